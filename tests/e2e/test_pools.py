"""Pools without images by the command line: the guide's configs on made-up data, against plain numpy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from curate.clip.model import load
from curate.config.loading import check, load_config
from curate.config.models import ModelSettings
from curate.dataset.uid import SUBSET_DTYPE
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.errors import UserError
from curate.pipeline import build
from tests.e2e.conftest import Run, fingerprints
from tests.unit.embed.stored_pools import Row, rows_of, write_clip_retrieval, write_datacomp

DEMO = ModelSettings(model="demo", device="cpu")
DOCS = Path(__file__).parents[2] / "docs" / "pools.md"
PROMPTS = {"positive": ["a red circle"], "negative": ["a dog on grass", "a blue square"]}
ROWS = 2_500


def guide(folder: Path) -> dict[str, Path]:
    """The YAML blocks of the guide as files, by the name in their first line."""
    found = {}
    for block in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL):
        path = folder / block.splitlines()[0].removeprefix("#").strip()
        path.write_text(block)
        found[path.name] = path
    return found


def test_the_guide_loads(tmp_path: Path) -> None:
    configs = {name: load_config(str(path)) for name, path in guide(tmp_path).items()}
    assert set(configs) == {"direct.yaml", "laion.yaml", "small.yaml", "vectors.yaml", "mine.yaml"}
    tables = {name for name, config in configs.items() if config.filter.tables is not None}
    assert tables == {"direct.yaml", "laion.yaml"}
    assert all(config.download is None for name, config in configs.items() if name not in tables)
    assert configs["vectors.yaml"].embed.models["b32"].source == ("./metadata",)


def run_verbs(facts: dict[str, Any], *verbs: str) -> None:
    """In this process; the command line is tested elsewhere."""
    config = check(facts)
    Engine(Workspace(config.workspace), config.run, Console(quiet=True)).run(build(config, verbs))


def subset(rows: list[Row], kept: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    uids = sorted(row.uid for row, keep in zip(rows, kept, strict=True) if keep)
    return [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids]


def selected(work: Path, experiment: str) -> list[tuple[int, int]]:
    array = np.load(work / f"selections/{experiment}/subset.npy")
    assert array.dtype == SUBSET_DTYPE
    return [(int(a), int(b)) for a, b in array.tolist()]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return rows_of(ROWS, dims={"b32": load(DEMO).dim, "l14": 24})


@pytest.fixture(scope="module")
def datacomp(rows: list[Row], curate: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the guide's second config; tests must not change it."""
    folder = tmp_path_factory.mktemp("datacomp")
    write_datacomp(folder / "metadata", rows, files=7)
    guide(folder)
    facts = yaml.safe_load((folder / "vectors.yaml").read_text())
    facts["workspace"] = str(folder / "work")
    facts["run"] = {"workers": 2}
    facts["ingest"] = yaml.safe_load((folder / "small.yaml").read_text())["ingest"]
    facts["ingest"]["sources"][0]["paths"] = [str(folder / "metadata")]
    facts["ingest"]["shard_size"] = 400
    facts["embed"]["models"]["b32"] |= {"source": str(folder / "metadata"), "model": "demo", "device": "cpu"}
    del facts["embed"]["models"]["b32"]["pretrained"]
    facts["score"]["scorers"]["nsfw"] = {"type": "zero_shot", "model": "b32", **PROMPTS}
    top = {"top": "b32_similarity", "fraction": 0.3}
    facts["filter"]["experiments"]["top"] = {"rules": {"clip": top, "safe": "nsfw_score < 0.4"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(facts))
    before = curate("run", folder / "config.yaml", "--dry-run")
    assert "parse" in before.stderr
    assert not list((folder / "work").rglob("*.parquet"))
    curate("run", folder / "config.yaml")
    return folder


def test_published_files_are_filtered_as_they_are(
    datacomp: Path, rows: list[Row], curate: Run, tmp_path: Path
) -> None:
    text = guide(tmp_path)["direct.yaml"].read_text()
    text = text.replace("./direct", str(tmp_path / "work")).replace("./metadata", str(datacomp / "metadata"))
    (tmp_path / "config.yaml").write_text(text)
    curate("filter", tmp_path / "config.yaml")
    of_workspace, direct = (
        w / "selections/clip_l14_30/subset.npy" for w in (datacomp / "work", tmp_path / "work")
    )
    assert direct.read_bytes() == of_workspace.read_bytes()
    width, height = (np.array([getattr(r, side) for r in rows]) for side in ("width", "height"))
    small, large = np.minimum(width, height), np.maximum(width, height)
    wordy = np.array([len(r.text.split()) > 2 and len(r.text) > 5 for r in rows])
    assert selected(tmp_path / "work", "basic") == subset(rows, wordy & (small >= 200) & (large <= 3 * small))
    told = curate("explain", rows[0].uid, "-w", tmp_path / "work")
    assert "experiment clip_l14_30" in told.stdout


def test_rules_on_columns_of_the_source(datacomp: Path, rows: list[Row]) -> None:
    b32, l14 = (np.array([np.float32(r.cosine(name)) for r in rows]) for name in ("b32", "l14"))
    width, height = (np.array([getattr(r, side) for r in rows]) for side in ("width", "height"))
    small, large = np.minimum(width, height), np.maximum(width, height)
    english = np.isin([r.uid for r in rows], list(in_english(datacomp / "work")))
    assert selected(datacomp / "work", "laion2b") == subset(rows, (b32 >= np.float32(0.28)) & english)
    assert selected(datacomp / "work", "basic") == subset(
        rows, (small >= 200) & (large <= 3 * small) & english
    )
    order = sorted(range(len(rows)), key=lambda i: (-l14[i], rows[i].uid))
    kept = np.isin(np.arange(len(rows)), order[: int(0.3 * len(rows))])
    assert selected(datacomp / "work", "clip_l14_30") == subset(rows, kept)
    assert kept.sum() == 750


def in_english(work: Path) -> set[str]:
    """fastText's verdict is not what is tested here."""
    tables = [pq.read_table(path) for path in sorted((work / "scores/text").glob("*.parquet"))]
    found = {
        uid
        for table in tables
        for uid, lang in zip(table["uid"].to_pylist(), table["text_lang"].to_pylist(), strict=True)
        if lang == "en"
    }
    assert found
    return found


def test_rules_on_stored_vectors(datacomp: Path, rows: list[Row]) -> None:
    image, text = (np.stack([r.vectors[f"b32_{k}"] for r in rows]).astype(np.float64) for k in ("img", "txt"))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    similarity = (image * text).sum(axis=1)
    clip = load(DEMO)
    prompts = clip.encode_texts((*PROMPTS["positive"], *PROMPTS["negative"])).astype(np.float64)
    weights = np.exp(clip.logit_scale * (image.astype(np.float16).astype(np.float64) @ prompts.T))
    score = weights[:, 0] / weights.sum(axis=1)
    assert 200 < (score < 0.4).sum() < ROWS - 200
    order = sorted(range(ROWS), key=lambda i: (-similarity[i], rows[i].uid))
    best = np.isin(np.arange(ROWS), order[:750])
    # No row may be so near a cut that rounding decides.
    assert similarity[order[749]] - similarity[order[750]] > 1e-6
    assert np.abs(score - 0.4).min() > 1e-6
    assert selected(datacomp / "work", "top") == subset(rows, best & (score < 0.4))


def test_every_row_is_accounted_for(datacomp: Path, curate: Run) -> None:
    work = datacomp / "work"
    steps = {s["stage"]: s for s in json.loads(curate("status", "-w", work, "--json").stdout)}
    assert list(steps)[:4] == ["parse", "ingest", "stored/b32", "embed/b32"]
    for name in ("ingest", "stored/b32", "embed/b32", "score/nsfw", "filter/top"):
        assert steps[name]["rows_in"] == ROWS
    assert steps["embed/b32"]["rows_out"] == ROWS
    funnel = json.loads((work / "selections/top/funnel.json").read_text())
    assert "download" not in json.dumps(funnel)
    card = (work / "export/top/README.md").read_text()
    assert "tables (without images)" in card
    assert "| downloaded |" not in card
    exported = pq.read_table(work / "export/top/00000.parquet")
    assert exported.num_rows == len(selected(work, "top"))
    assert {"url", "text", "clip_b32_similarity_score", "similarity", "nsfw_score"} <= set(
        exported.column_names
    )
    assert not list((work / "export").rglob("*.tar"))
    page = (work / "report/top/index.html").read_text()
    assert "of the samples" in page
    assert "of the images" not in page


def test_explain_query_and_search(datacomp: Path, curate: Run, rows: list[Row]) -> None:
    work = datacomp / "work"
    uid = rows[5].uid
    trail = json.loads(curate("explain", uid, "-w", work, "--json").stdout)
    assert "image" not in trail
    assert trail["candidate"]["url"] == rows[5].url
    assert trail["embeddings"]["b32"]["similarity"] == pytest.approx(rows[5].cosine("b32"), abs=1e-6)
    assert set(trail["experiments"]) == {"basic", "clip_l14_30", "laion2b", "safe_and_similar", "top"}
    text = curate("explain", uid, "-w", work).stdout
    assert "not downloaded" not in text
    assert "experiment top" in text
    sql = "SELECT count(*) AS n, count(nsfw_score) AS scored, count(b32_similarity) AS s FROM samples"
    assert str(ROWS) in curate("query", sql, "-w", work).stdout.replace(",", "")
    kept = selected(work, "top")[0]
    own = f"{kept[0]:016x}{kept[1]:016x}"
    hits = json.loads(
        curate("search", "--uid", own, "-w", work, "--experiment", "top", "-k", 1, "--json").stdout
    )
    assert hits[0]["uid"] == own
    curate("search", "a red circle", "-w", work, "--experiment", "top", "-k", 3)


def test_a_second_run_does_nothing(datacomp: Path, curate: Run) -> None:
    before = fingerprints(datacomp / "work")
    again = curate("run", datacomp / "config.yaml", "--dry-run")
    assert re.findall(r"(\d+) of \d+ units? to do", again.stderr)
    assert all(n == "0" for n in re.findall(r"(\d+) of \d+ units? to do", again.stderr))
    curate("run", datacomp / "config.yaml")
    assert fingerprints(datacomp / "work") == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("export.tars=true", "export: {tars: false}"),
        ("embed.models.mine={model: demo}", "give `source` (existing embeddings)"),
        ("embed.models.b32.format=", "`source` needs `format`"),
    ],
)
def test_what_needs_images_is_refused_before_anything_runs(
    datacomp: Path, curate: Run, tmp_path: Path, override: str, words: str
) -> None:
    done = curate("run", datacomp / "config.yaml", "-w", tmp_path / "work", "-s", override, code=2)
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "work").exists()


def test_a_scorer_of_pixels_is_refused(datacomp: Path, curate: Run, tmp_path: Path) -> None:
    override = "score.scorers.hash={type: perceptual}"
    done = curate("score", datacomp / "config.yaml", "-w", tmp_path / "work", "-s", override, code=2)
    assert "looks at images" in " ".join(done.stderr.split())


def test_clip_retrieval_of_the_guide(tmp_path: Path) -> None:
    rows = rows_of(300)
    write_clip_retrieval(tmp_path / "embeddings", rows, files=11, arrays="l14")
    facts = yaml.safe_load(guide(tmp_path)["mine.yaml"].read_text())
    facts["workspace"] = str(tmp_path / "work")
    facts["run"] = {"cluster": "synchronous"}
    facts["ingest"]["sources"][0]["paths"] = [str(tmp_path / "embeddings/metadata/*.parquet")]
    facts["embed"]["models"]["l14"] |= {"source": str(tmp_path / "embeddings"), "model": "mine"}
    run_verbs(facts, "ingest", "download", "embed", "score", "filter")
    cosines = np.array([r.cosine("l14") for r in rows])
    assert np.abs(cosines - 0.24).min() > 1e-5
    assert selected(tmp_path / "work", "similar") == subset(rows, cosines >= 0.24)


def test_a_pool_may_get_its_images_later(tmp_path: Path) -> None:
    """The candidates stay; the samples become those with an image (here: none is reachable)."""
    rows = rows_of(40)
    write_datacomp(tmp_path / "metadata", rows, files=2)
    facts = yaml.safe_load(guide(tmp_path)["small.yaml"].read_text())
    facts["workspace"] = str(tmp_path / "work")
    facts["run"] = {"cluster": "synchronous"}
    facts["ingest"]["sources"][0]["paths"] = [str(tmp_path / "metadata")]
    facts["score"] = {"scorers": {"text": {"type": "text"}}}
    facts["filter"]["experiments"] = {"long": {"rules": {"length": "text_length > 0"}}}
    verbs = ("ingest", "download", "score", "filter")
    run_verbs(facts, *verbs)
    assert len(selected(tmp_path / "work", "long")) == 40
    proxy = {"proxy": "http://127.0.0.1:9", "timeout": 5, "retries": 0}
    with pytest.raises(UserError, match=r"none of 40 rows is left(.|\n)*connection 40: download.proxy"):
        run_verbs({**facts, "download": proxy}, *verbs)
    run_verbs({**facts, "download": proxy}, "score", "filter")
    assert selected(tmp_path / "work", "long") == []
    run_verbs(facts, *verbs)
    assert len(selected(tmp_path / "work", "long")) == 40
