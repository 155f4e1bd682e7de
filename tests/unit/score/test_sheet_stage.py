from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from curate.cli import app
from curate.config.loading import check
from curate.config.models import EmbedSettings, ScoreSettings
from curate.config.scorers.cluster import ClusterScorer
from curate.config.scorers.text import TextScorer
from curate.dataset import layout
from curate.dataset.family import CANDIDATES, Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import DataError, UserError
from curate.score.selection import select_stages
from curate.score.sheet.scan import Column, scan
from curate.score.sheet.stage import SheetStage, sheet_stages
from curate.score.stage import ScoreStage, score_stages
from tests.unit.embed.clip_shards import FakeDownload, dataset, image_table, jpeg, run_stage, samples, tar_of

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}</script>"


class FakeScores(Stage):
    """Commits columns that are given: shard → table."""

    settings: Mapping[str, Any] = {}

    def __init__(self, scorer: str, shards: Mapping[str, pa.Table]) -> None:
        self.name = f"score/{scorer}"
        self.scorer, self.shards = scorer, shards

    def units(self, workspace: Workspace) -> list[Unit]:
        return [Unit(name, (), {"digest": str(table.to_pydict())}) for name, table in self.shards.items()]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        table = self.shards[unit.name]
        return Outcome(
            (workspace.write_table(Family.scores(self.scorer).path(unit.name), table),),
            table.num_rows,
            table.num_rows,
        )


class Page(HTMLParser):
    """Elements of a page and the text of its captions."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.captions: list[str] = []
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = str(dict(attrs).get("class") or "")

    def handle_data(self, data: str) -> None:
        if self.open == "caption":
            self.captions.append(data)
            self.open = ""

    def classes(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.tags if name in str(a.get("class") or "").split()]


def stage_of(name: str = "text", per_band: int = 3, blur: bool | None = None) -> SheetStage:
    settings = TextScorer(type="text")
    return SheetStage(ScoreStage(name, settings, EmbedSettings()), settings, per_band=per_band, blur=blur)


def made(workspace: Workspace, stage: SheetStage) -> str:
    run_stage(workspace, stage)
    return workspace.read_bytes(layout.sheet(stage.scorer)).decode()


def one_shard(workspace: Workspace, rows: list[tuple[str, str, str]], columns: dict[str, pa.Array]) -> None:
    """Commit images and scores of a dataset of one shard; the tar lacks the first, breaks the second."""
    pictures = [(uid, b"\xff\xd8 broken" if i == 1 else jpeg(i)) for i, (uid, _, _) in enumerate(rows)][1:]
    run_stage(workspace, FakeDownload({"00000": (image_table(rows), tar_of(pictures))}))
    workspace.write_json(layout.DATASET, {"shards": 1, "shard_size": 100, "candidates": len(rows)})
    table = pa.table({"uid": pa.array([r[0] for r in rows]), **columns})
    run_stage(workspace, FakeScores("text", {"00000": table}))


@pytest.fixture
def scored(tmp_path: Path) -> Workspace:
    workspace = Workspace(str(tmp_path / "work"))
    dataset(workspace, samples(60), 3)
    run_stage(workspace, ScoreStage("text", TextScorer(type="text"), EmbedSettings()))
    return workspace


def test_a_sheet_shows_every_column_and_pictures(scored: Workspace) -> None:
    page = Page(made(scored, stage_of()))
    assert [a["id"] for t, a in page.tags if t == "section"] == [
        "text_length",
        "text_words",
        "text_lang",
        "text_lang_score",
    ]
    pictures = [a["src"] for t, a in page.tags if t == "img"]
    assert pictures
    for source in pictures:
        head, _, data = str(source).partition(",")
        assert head == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 40)
    assert not page.classes("veiled")
    assert all(len(str(a["title"]).split()[-1]) == 32 for a in page.classes("uid"))


def test_the_same_data_gives_the_same_bytes(scored: Workspace, tmp_path: Path) -> None:
    first = made(scored, stage_of())
    assert make_plan(stage_of(), scored, RecordStore(scored)).jobs == []
    scored.remove(layout.sheet("text"))
    assert made(scored, stage_of()) == first
    other = Workspace(str(tmp_path / "other"))
    dataset(other, samples(60), 1)
    run_stage(other, ScoreStage("text", TextScorer(type="text"), EmbedSettings()))
    assert made(other, stage_of()) == first  # nor does it matter how the samples are cut into shards


def test_the_page_loads_nothing_and_allows_nothing(scored: Workspace) -> None:
    text = made(scored, stage_of())
    page = Page(text)
    (policy,) = [str(a["content"]) for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for _, attributes in page.tags:
        assert not {"href", "action", "srcset", "style"} & attributes.keys() or str(
            attributes.get("href", "")
        ).startswith("#")
        assert not [name for name in attributes if name.startswith("on")]


def test_hostile_captions_urls_and_values_are_text(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    rows = sorted((uid, HOSTILE, f"https://{HOSTILE}/x") for uid, _, _ in samples(8))
    one_shard(
        workspace, rows, {"text_x": pa.array([HOSTILE] * 8), "text_v": pa.array([float(i) for i in range(8)])}
    )
    text = made(workspace, stage_of())
    page = Page(text)
    assert set(page.captions) == {HOSTILE}
    assert {t for t, a in page.tags if "onerror" in a or a.get("src") == "x"} == set()
    assert [t for t, _ in page.tags].count("script") == 1
    (line,) = [str(a["data-copy"]) for a in page.classes("copy") if "text_x" in str(a["data-copy"])]
    assert yaml.safe_load(line) == {"text_x": "text_x = '" + HOSTILE.replace("'", "''") + "'"}


def test_missing_and_broken_pictures_are_placeholders(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    rows = samples(8)
    one_shard(workspace, rows, {"text_v": pa.array([float(i) for i in range(8)])})
    page = Page(made(workspace, stage_of(per_band=8)))
    assert len(page.classes("sample")) == 8
    assert len(page.classes("none")) == 2
    assert len([t for t, _ in page.tags if t == "img"]) == 6


@pytest.mark.parametrize("tar", [b"no tar at all", None])
def test_without_pictures_captions_are_shown(scored: Workspace, tar: bytes | None) -> None:
    for shard in ("00000", "00001", "00002"):
        path = Path(scored.location(layout.image_tar(shard)))
        if tar is None:
            path.unlink()
        else:
            path.write_bytes(tar)
    page = Page(made(scored, stage_of()))
    assert not page.classes("picture")
    assert page.captions
    assert all(caption.startswith("a picture of thing") for caption in page.captions)


def test_a_pool_without_images_shows_captions(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    rows = samples(20)
    workspace.write_json(layout.DATASET, {"shards": 1, "shard_size": 100, "candidates": 20, "images": False})
    table = pa.table({"uid": [r[0] for r in rows], "url": [r[2] for r in rows], "text": [r[1] for r in rows]})
    workspace.write_table(CANDIDATES.path("00000"), table)
    run_stage(
        workspace,
        FakeScores(
            "text", {"00000": pa.table({"uid": table["uid"], "text_v": pa.array(range(20), pa.int32())})}
        ),
    )
    page = Page(made(workspace, stage_of(per_band=2)))
    assert not page.classes("picture")
    assert len(page.captions) == 12  # bands of 1, 3, 5, 5, 3, 1, 1, 1 values, at most two of each


def test_missing_scores_are_counted_with_their_reasons(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    rows = samples(6)
    reason = pa.array(["too_dark", None, None, None, None, None], pa.string())
    values = pa.array([None, float("nan"), 3.0, None, 1.0, 2.0], pa.float32())
    one_shard(workspace, rows, {"text_v": values, "text_reason": reason})
    text = made(workspace, stage_of())
    assert "3 of 6 samples have a value" in text
    assert "<code>no reason stored</code> 2, <code>too_dark</code> 1" in text
    assert 'id="text_reason"' in text


def test_cosines_are_shown_within_what_a_cosine_can_be(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    values = pa.array([-1.0009, -0.5, 0.25, 0.5, 0.75, 1.0009], pa.float32())
    one_shard(workspace, samples(6), {"text_similarity": values, "text_other": values})
    embed = EmbedSettings.model_validate({"models": {"m": {"model": "demo"}}})
    score = ScoreStage("text", ClusterScorer(type="cluster", model="m", clusters=2), embed)
    text = made(workspace, SheetStage(score, TextScorer(type="text"), per_band=3, blur=None))
    cosines, others = (re.split(r"(?=<section)", text)[i] for i in (1, 2))
    shown = re.compile(r">[^<>]*1\.001[^<>]*<")
    assert 'id="text_similarity"' in cosines
    assert not shown.search(cosines)
    assert "1.0009" in cosines, "the rule is about what is stored"
    assert shown.search(others)


def test_a_missing_embedding_is_the_reason(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    rows = samples(3)
    one_shard(workspace, rows, {"text_v": pa.array([None, 1.0, None], pa.float32())})
    workspace.write_table(
        Family.embeddings("b32").path("00000"),
        pa.table(
            {"uid": [r[0] for r in rows], "reason": pa.array(["decode_error", None, None], pa.string())}
        ),
    )
    found = scan(workspace, "text", ["00000"], [Column("text_v", pa.float32())], ["b32"])
    assert found.missing["text_v"] == {"decode_error": 1, "no reason stored": 1}
    assert found.without("text_v") == 2


def test_odd_columns_do_not_break_the_page(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    columns = {
        "text_none": pa.array([None] * 6, pa.float32()),
        "text_nothing": pa.array([None] * 6, pa.string()),
        "text_one": pa.array([7] * 6, pa.int64()),
        "text_inf": pa.array([float("inf"), float("-inf"), 0, 1, 2, 3], pa.float64()),
        "text_flag": pa.array([True, False, None, True, True, True]),
        "text_list": pa.array([[1]] * 6, pa.list_(pa.int32())),
        "text_half": pa.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], pa.float16()),
    }
    one_shard(workspace, samples(6), columns)
    text = made(workspace, stage_of())
    assert text.count("No sample has a value in this column.") == 2
    assert "<code>text_list</code> (list&lt;" in text
    assert "text_flag: &#34;text_flag = true&#34;" in text
    assert "NaN" not in text


def test_a_pool_of_no_samples_has_a_page(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    one_shard(workspace, [], {"text_v": pa.array([], pa.float32())})
    assert "No sample has a value in this column." in made(workspace, stage_of())


def test_every_rule_on_the_page_is_a_rule_of_this_project(scored: Workspace) -> None:
    page = Page(made(scored, stage_of()))
    rules: dict[str, Any] = {}
    for button in page.classes("copy"):
        rules |= yaml.safe_load(str(button["data-copy"]))
    assert list(rules) == ["text_length", "text_words", "text_lang", "text_lang_score"]
    config = check({"filter": {"experiments": {"mine": {"rules": rules}}}})
    assert len(config.filter.experiments["mine"].rules) == 4


def test_the_example_of_the_docs_is_a_config() -> None:
    text = (Path(__file__).parents[3] / "docs" / "calibration.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = check(yaml.safe_load(example))
    assert list(config.filter.experiments["mine"].rules) == ["watermark_score", "text_lang"]


def test_a_large_pool_is_sampled_and_says_so(scored: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.score.sheet.stage.LIMIT", 20)
    text = made(scored, stage_of())
    assert "estimates from 20 of 60 rows" in text
    assert text.count("data-estimate") == 4


def test_sensitive_sheets_are_blurred(scored: Workspace) -> None:
    assert stage_of("my_nsfw").blur
    assert not stage_of("my_nsfw", blur=False).blur
    page = Page(made(scored, stage_of(blur=True)))
    assert page.classes("veiled")
    assert len(page.classes("veiled")) == len([t for t, _ in page.tags if t == "img"])


def test_scores_of_other_samples_are_an_error(scored: Workspace) -> None:
    path = Family.scores("text").path("00001")
    table = scored.read_table(path)
    scored.write_table(
        path, table.set_column(0, "uid", pa.array(sorted(u[::-1] for u in table["uid"].to_pylist())))
    )
    with pytest.raises(DataError, match="score it again"):
        stage_of(per_band=50).run(scored, Unit("page"))


def test_shards_of_other_columns_are_an_error(scored: Workspace) -> None:
    path = Family.scores("text").path("00001")
    scored.write_table(path, scored.read_table(path).drop_columns(["text_words"]))
    with pytest.raises(DataError, match="not the columns of 00000"):
        stage_of().run(scored, Unit("page"))


def test_without_scores_the_error_says_what_to_run(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    with pytest.raises(UserError, match=r"no scores of 'text' yet.*run `curate download` first"):
        list(stage_of().units(workspace))
    dataset(workspace, samples(10), 1)
    with pytest.raises(UserError, match="run `curate score`"):
        list(stage_of().units(workspace))


def test_only_takes_the_named_scorers() -> None:
    settings = ScoreSettings.model_validate(
        {"scorers": {"text": {"type": "text"}, "size": {"type": "image"}, "words": {"type": "text"}}}
    )
    stages = score_stages(settings, EmbedSettings())
    assert [s.name for s in select_stages(stages, ["words", "text"])] == ["score/text", "score/words"]
    assert [s.name for s in select_stages(stages, [])] == ["score/text", "score/size", "score/words"]
    assert [s.name for s in sheet_stages(select_stages(stages, ["size"]), settings)] == ["sheet/size"]
    with pytest.raises(UserError, match="did you mean 'text'"):
        select_stages(stages, ["txt"])
    with pytest.raises(UserError, match="none defined"):
        sheet_stages([], settings)


def test_the_command_scores_and_writes_the_sheets(scored: Workspace, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    facts = {
        "workspace": scored.url,
        "run": {"cluster": "synchronous"},
        "score": {"scorers": {"text": {"type": "text"}, "size": {"type": "image"}}},
    }
    config.write_text(yaml.safe_dump(facts))
    runner = CliRunner()
    result = runner.invoke(app, ["score", str(config), "--only", "size", "--sheet", "--per-band", "2"])
    assert result.exit_code == 0, result.output
    assert scored.exists(layout.sheet("size"))
    assert not scored.exists(layout.sheet("text"))
    result = runner.invoke(app, ["score", str(config)])
    assert result.exit_code == 0, result.output
    assert not scored.exists(layout.sheet("text"))
