from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from curate.cli import app
from curate.config.loading import dump
from curate.config.models import PipelineConfig
from curate.dataset import layout
from curate.dataset.family import CANDIDATES
from curate.dataset.tars import TarWriter
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.diff import diff
from curate.inspect.diff_page import check_place, diff_page
from tests.unit.filter.filter_pool import (
    SCORE_TYPES,
    Row,
    commit,
    cut_in_shards,
    run_experiment,
    uid_from,
    write_pool,
)

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
A = {"rules": {"en": "text_lang = 'en'"}}
B = {"rules": {"nsfw": "text_nsfw < 0.5", "high": "similarity >= 0.5"}}
ALL = {"rules": {"all": "uid IS NOT NULL"}}
NONE = {"rules": {"none": "similarity > 9"}}
TYPES = {**SCORE_TYPES, "text_nsfw": pa.float64()}


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [attrs[name] or "" for found, attrs in self.tags if found == tag and name in attrs]


def rows() -> list[dict[str, Any]]:
    found = []
    for i in range(60):
        row: dict[str, Any] = {"uid": uid_from(i * 2**122 + i * 7919), "text": f"{HOSTILE} {i}"}
        row["url"] = "javascript:alert(1)" if i % 5 == 0 else f"http://host{i}.example/{i}.jpg"
        row["similarity"] = None if i % 11 == 0 else (i * 37 % 100) / 100
        row["text_score"], row["text_length"] = i / 10, i
        row["text_lang"] = [None, "en", "de", "en"][i % 4]
        row["text_nsfw"] = 0.9 if i % 6 == 1 else 0.1
        found.append(row)
    return found


def config(experiments: dict[str, Any], workspace: str = "./work") -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "workspace": workspace,
            "embed": {"models": {"b32": {"model": "demo"}}},
            "score": {"scorers": {"text": {"type": "text"}}},
            "filter": {"experiments": experiments},
        }
    )


EXPERIMENTS = {"a": A, "b": B, "all": ALL, "none": NONE}


def write_tars(workspace: Workspace, parts: Sequence[Sequence[Row]]) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 90)).save(picture, "JPEG")
    for i, part in enumerate(parts):
        buffer = io.BytesIO()
        with TarWriter(buffer) as tar:
            for row in part:
                tar.add(f"{row['uid']}.jpg", picture.getvalue())
        workspace.write_bytes(layout.image_tar(layout.shard_name(i, len(parts))), buffer.getvalue())


def made(folder: Path, shards: int) -> Workspace:
    parts = cut_in_shards(rows(), shards)
    workspace = write_pool(folder, parts, TYPES)
    write_tars(workspace, parts)
    for name, experiment in EXPERIMENTS.items():
        run_experiment(workspace, name, experiment)
    return workspace


def page_of(workspace: Workspace, a: str, b: str, examples: int = 8) -> str:
    return diff_page(workspace, diff(workspace, config(EXPERIMENTS), a, b, examples))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(made(tmp_path_factory.mktemp("diff"), 3), "a", "b")


def cards(html: str) -> list[str]:
    return re.findall(r'<article class="sample".*?</article>', html, re.DOTALL)


def test_it_does_not_depend_on_shards(html: str, tmp_path: Path) -> None:
    assert page_of(made(tmp_path, 1), "a", "b") == html


def test_every_card_has_its_picture_and_its_reason(html: str) -> None:
    assert len(cards(html)) == 8 + 8 + 4
    assert all(url.startswith("data:image/webp;base64,") for url in Page(html).values("img", "src"))
    assert html.count("<img ") == 20
    reasons = [re.search(r'class="why"><b>(\w+)', card) for card in cards(html)]
    assert {match[1] for match in reasons[:8] if match} <= {"high", "missing_score", "nsfw"}
    assert {match[1] for match in reasons[8:16] if match} <= {"en", "missing_score"}
    assert all(reasons[:16])
    assert reasons[16:] == [None] * 4
    assert "needs similarity &gt;= 0.5" in html
    assert "no value for en" in html


def test_what_falls_to_a_rule_about_unsafe_pictures_is_blurred(html: str) -> None:
    unsafe = {row["uid"] for row in rows() if row["text_nsfw"] > 0.5}
    shown = {card: re.search(r'data-copy="(\w+)"', card) for card in cards(html)}
    veiled = {match[1] for card, match in shown.items() if match and "picture veiled" in card}
    assert veiled
    assert veiled == unsafe & {match[1] for match in shown.values() if match}


def test_nothing_from_the_web_is_markup(html: str) -> None:
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert HOSTILE in page.text
    links = page.values("a", "href")
    assert all(link.startswith(("#", "http://host")) for link in links)
    assert any(link.startswith("http://host") for link in links)
    (policy,) = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not page.values("div", "style")


def test_counts_and_the_strip(html: str) -> None:
    english = {r["uid"] for r in rows() if r["text_lang"] == "en"}
    high = {r["uid"] for r in rows() if r["similarity"] is not None and r["similarity"] >= 0.5}
    high &= {r["uid"] for r in rows() if r["text_nsfw"] < 0.5}
    parts = [len(english - high), len(english & high), len(high - english)]
    shown = re.findall(r"<b>([\d,]+)</b><span>", html)
    assert [int(n) for n in shown] == parts
    strip = re.search(r'<svg class="strip".*?</svg>', html, re.DOTALL)
    assert strip is not None
    widths = [float(w) for w in re.findall(r'class="(?:a|b|both)" x="[\d.]+" width="([\d.]+)"', strip[0])]
    assert sum(widths) == pytest.approx(1000 - 2 * 4, abs=0.1)
    assert [w / sum(widths) for w in widths] == pytest.approx([n / sum(parts) for n in parts], abs=0.01)


def test_without_a_tar_or_a_picture_there_is_a_card(tmp_path: Path) -> None:
    workspace = made(tmp_path, 3)
    before = page_of(workspace, "a", "b")
    (tmp_path / layout.image_tar("00000")).unlink()
    (tmp_path / layout.image_tar("00001")).write_bytes(b"no tar")
    after = page_of(workspace, "a", "b")
    assert len(cards(after)) == len(cards(before))
    assert 0 < after.count("<img ") < before.count("<img ")
    assert after.count("no readable picture") == before.count("<img ") - after.count("<img ")


def test_groups_without_samples(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    less = page_of(workspace, "all", "a")
    assert "Nothing is kept by a alone." in less
    assert "One side is empty" in less
    same = page_of(workspace, "a", "a")
    assert "They keep the same samples." in same
    assert 'id="why"' not in same
    assert len(cards(same)) == 4
    nothing = page_of(workspace, "none", "none")
    assert "Neither keeps any." in nothing
    assert cards(nothing) == []
    assert "No examples were asked for." in page_of(workspace, "a", "b", 0)


def test_a_pool_without_images_shows_captions(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    workspace.write_json(layout.DATASET, {"shards": 1, "shard_size": 99, "candidates": 60, "images": False})
    table = pa.table({name: [row[name] for row in rows()] for name in ("uid", "url", "text", "text_length")})
    shard = layout.shard_name(0, 1)
    commit(workspace, "ingest", shard, [workspace.write_table(CANDIDATES.path(shard), table)])
    experiments = {"short": {"rules": {"s": "text_length < 40"}}, "long": {"rules": {"l": "text_length > 9"}}}
    for name, experiment in experiments.items():
        run_bare(workspace, name, experiment)
    settings = PipelineConfig.model_validate({"filter": {"experiments": experiments}})
    page = diff_page(workspace, diff(workspace, settings, "short", "long", 6))
    assert '<body class="wordy">' in page
    assert "<img " not in page
    assert 'class="picture"' not in page
    assert len(cards(page)) == 15


def run_bare(workspace: Workspace, name: str, experiment: dict[str, Any]) -> None:
    from curate.config.filters import Experiment
    from curate.filter.stage import FilterStage

    stage = FilterStage(name, Experiment.model_validate(experiment), (), ())
    (unit,) = stage.units(workspace)
    outputs = list(stage.run(workspace, unit).outputs)
    commit(workspace, stage.name, unit.name, outputs, unit.inputs, stage.settings)


def test_the_command(tmp_path: Path) -> None:
    workspace = made(tmp_path / "work", 2)
    workspace.write_bytes(layout.CONFIG, dump(config(EXPERIMENTS, workspace.url)).encode())
    target = tmp_path / "diff.html"
    run = CliRunner().invoke(app, ["diff", "a", "b", "-w", workspace.url, "--html", str(target)])
    assert run.exit_code == 0, run.output
    assert "dropped them" in run.output
    assert f"page  {target}" in run.stderr
    found = diff(workspace, config(EXPERIMENTS), "a", "b", 24)
    assert len(cards(target.read_text())) == sum(len(g.examples) for g in found.groups.values()) > 24


def test_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name a file"):
        check_place(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        check_place(tmp_path / "nowhere" / "diff.html")
    check_place(tmp_path / "diff.html")
