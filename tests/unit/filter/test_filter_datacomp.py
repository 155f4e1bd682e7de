"""Experiments against the golden files of DataComp's own code (`scripts/golden/datacomp.py` wrote them).

Where the two differ, the difference is asserted row for row:

- a fraction: DataComp keeps the row at index `int(n * f)` of the sorted scores and all that tie with it, we
  exactly `floor(n * f)` rows;
- a fraction that reaches into the missing scores: DataComp's threshold becomes NaN and nothing is kept, we
  keep every row that has a score;
- captions of white space only: they are dropped before they are candidates.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import yaml
from rich.console import Console

from curate.config.loading import check
from curate.dataset.uid import SUBSET_DTYPE
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.pipeline import build
from tests.golden.datacomp import made

FOLDER = Path(made.__file__).parent
GOLDEN = json.loads((FOLDER / "golden.json").read_text())
JOBS: dict[str, dict[str, Any]] = GOLDEN["jobs"]
CONFIG = r"""
download: null

ingest:
  sources:
    - paths: ["@metadata"]
      uid_column: uid
      extra_columns:
        [original_width, original_height, clip_b32_similarity_score, clip_l14_similarity_score, language]

embed:
  models:
    l14:
      source: "@metadata"
      format: datacomp
      arrays: l14
      model: demo                   # has vectors of this length; it is not run
      modalities: [image]
      device: cpu

score:
  scorers:
    text: {type: text}
    image: {type: image}
    topic:
      type: cluster
      model: l14
      centroids: "@assets/centroids.npy"
      targets: "@assets/targets.npy"
      device: cpu

filter:
  experiments:
    no_filter: {rules: {any: "true"}}
    basic_filter:
      rules:
        language: language = 'en'
        words: text_words > 2 AND text_length > 5
        size: image_min_side >= 200 AND image_aspect <= 3
    laion2b: {rules: {language: language = 'en', clip: clip_b32_similarity_score >= 0.28}}
    text_based:
      rules:
        language: language = 'en'
        nouns: {entities: "@assets/imagenet21k_wordnet_ids", wordnet: "@assets/wordnet"}
    image_based:
      rules:
        language: language = 'en'
        # fastText's tokens: a newline is one; of white space it knows ASCII's, and NUL
        words: "len(regexp_extract_all(text, '\\n|[^ \\n\\r\\t\\v\\f\\x00]+')) > 1 AND text_length > 5"
        cluster: topic_target
    image_based_by_words:
      rules:
        language: language = 'en'
        words: text_words > 1 AND text_length > 5
        cluster: topic_target
    image_based_listed:
      rules:
        language: language = 'en'
        words: "len(regexp_extract_all(text, '\\n|[^ \\n\\r\\t\\v\\f\\x00]+')) > 1 AND text_length > 5"
        cluster: {in: topic_id, file: "@assets/clusters.npy"}
    image_based_l14_03:
      rules:
        image: {experiment: image_based}
        clip: {top: clip_l14_similarity_score, fraction: 0.3}
"""


def clip_experiments() -> dict[str, Any]:
    """Every golden job of CLIP scores; a threshold as `where`, and as `score` with a suffix."""
    found: dict[str, Any] = {}
    for path, job in JOBS.items():
        pool, name = path.split("/")
        if pool != "main" or job["baseline"] != "clip_score" or job.get("error"):
            continue
        column = f"clip_{job['arch']}_similarity_score"
        if "fraction" in job:
            found[slug(name)] = {"rules": {"clip": {"top": column, "fraction": job["fraction"]}}}
        else:
            found[slug(name)] = {"rules": {"clip": f"{column} >= {job['threshold']}"}}
            found[slug(name) + "_score"] = {"rules": {"clip": {"score": column, "min": job["threshold"]}}}
    return found


def slug(name: str) -> str:
    """What may name an experiment."""
    return name.replace(".", "_").replace("-", "_")


@dataclass(frozen=True)
class Pool:
    """The metadata in the order of uids, and a finished workspace made of them."""

    name: str
    table: pa.Table
    work: Path

    def golden(self, name: str) -> npt.NDArray[np.bool_]:
        with np.load(FOLDER / "kept.npz") as masks:
            return np.unpackbits(masks[f"{self.name}/{name}"], count=self.table.num_rows).astype(bool)

    def ours(self, name: str) -> npt.NDArray[np.bool_]:
        subset = np.load(self.work / f"selections/{slug(name)}/subset.npy")
        assert subset.dtype == SUBSET_DTYPE
        pairs = np.array(
            [(int(u[:16], 16), int(u[16:], 16)) for u in self.table["uid"].to_pylist()], SUBSET_DTYPE
        )
        kept = np.isin(pairs, subset)
        assert np.array_equal(pairs[kept], subset)
        return kept

    def texts(self) -> list[str]:
        return self.table["text"].to_pylist()


def run(folder: Path, name: str, table: pa.Table, drop: tuple[str, ...] = ()) -> Pool:
    """The config's pipeline in this process, without the experiments whose names begin with one of `drop`."""
    made.write(folder / "metadata", table)
    assets = folder / "assets"
    made.write_wordnet(assets / "wordnet", assets / "imagenet21k_wordnet_ids")
    np.save(assets / "centroids.npy", made.centroids())
    np.save(assets / "targets.npy", made.targets())
    held = np.unique((made.targets() @ made.centroids().T).argmax(axis=1))
    np.save(assets / "clusters.npy", held)
    text = CONFIG.replace("@metadata", str(folder / "metadata")).replace("@assets", str(assets))
    facts = {**yaml.safe_load(text), "workspace": str(folder / "work"), "run": {"cluster": "synchronous"}}
    experiments = facts["filter"]["experiments"] | clip_experiments()
    facts["filter"]["experiments"] = {
        n: e for n, e in experiments.items() if not n.startswith(drop or ("-",))
    }
    if "image" in drop:
        del facts["embed"], facts["score"]["scorers"]["topic"]
    config = check(facts)
    Engine(Workspace(config.workspace), config.run, Console(quiet=True)).run(
        build(config, ("ingest", "embed", "score", "filter"))
    )
    return Pool(name, table.sort_by("uid"), folder / "work")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """All rows and all experiments; tests must not change it."""
    table = made.make()
    assert made.fingerprint(table) == GOLDEN["metadata"]["main"]
    return run(tmp_path_factory.mktemp("datacomp"), "main", table)


@pytest.fixture(scope="module")
def with_empty_captions(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    table = made.make(1_000, empty=True)
    assert made.fingerprint(table) == GOLDEN["metadata"]["empty"]
    return run(tmp_path_factory.mktemp("empty"), "empty", table, drop=("image",))


SAME = ["no_filter", "basic_filter", "laion2b", "text_based", "image_based"]
SAME += [p.removeprefix("main/") for p, j in JOBS.items() if p.startswith("main/") and "threshold" in j]


@pytest.mark.parametrize("name", SAME)
def test_the_same_rows(pool: Pool, name: str) -> None:
    golden = pool.golden(name)
    assert golden.sum() == JOBS[f"main/{name}"]["kept"] > 0
    assert differing(pool, pool.ours(name), golden) == []
    if "threshold" in JOBS[f"main/{name}"]:
        assert differing(pool, pool.ours(f"{name}_score"), golden) == []


def differing(pool: Pool, ours: npt.NDArray[np.bool_], golden: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The first rows that only one of the two has, to be read in a message."""
    rows: list[dict[str, Any]] = pool.table.take(pa.array(np.flatnonzero(ours != golden)[:5])).to_pylist()
    return rows


FRACTIONS = [p.removeprefix("main/") for p, j in JOBS.items()
             if p.startswith("main/clip") and "fraction" in j and not j.get("error")]  # fmt: skip


@pytest.mark.parametrize("name", FRACTIONS)
def test_fractions_differ_by_the_row_at_the_index_and_its_ties(pool: Pool, name: str) -> None:
    job = JOBS[f"main/{name}"]
    scores = scores_of(pool, job["arch"])
    ours, golden = pool.ours(name), pool.golden(name)
    order = best_first(scores)
    count = int(Fraction(str(job["fraction"])) * len(scores))
    assert set(np.flatnonzero(ours)) == set(order[:count])
    index = int(len(scores) * job["fraction"])
    if index >= len(order):
        assert not golden.any()
        return
    last = scores[order[index]]
    assert golden.sum() == job["kept"] == (scores >= last).sum()
    assert not (ours & ~golden).any()
    assert set(scores[golden & ~ours]) <= {last}
    assert (golden & ~ours).sum() == (scores >= last).sum() - count


def scores_of(pool: Pool, arch: str) -> npt.NDArray[np.float64]:
    column = pool.table[f"clip_{arch}_similarity_score"].fill_null(float("nan"))
    return np.asarray(column, np.float64)


def best_first(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows with a score, the best first, of equals the smaller uid."""
    order = np.argsort(-scores, kind="stable")
    return order[: np.count_nonzero(~np.isnan(scores))]


def test_the_golden_fractions_have_every_kind() -> None:
    kept = {name: JOBS[f"main/{name}"]["kept"] for name in FRACTIONS}
    # 0.29 of 100,000 is 28,999.99… in binary: DataComp's one more makes up for its one less.
    assert kept["clip_l14_fraction_0.29"] == 29_000
    assert kept["clip_l14_fraction_0.3"] == 30_001
    assert kept["clip_l14_fraction_0.999"] == 0
    assert kept["clip_b32_fraction_1e-06"] == 1
    assert kept["clip_b32_fraction_0.3"] > 30_001
    assert "IndexError" in JOBS["main/clip_l14_fraction_1"]["error"]
    assert "AttributeError" in JOBS["null/basic_filter"]["error"]


def test_clusters_by_a_list(pool: Pool) -> None:
    assert differing(pool, pool.ours("image_based_listed"), pool.golden("image_based")) == []


def test_words_are_not_the_tokens_of_the_image_based_filter(pool: Pool) -> None:
    by_words, golden = pool.ours("image_based_by_words"), pool.golden("image_based")
    several = np.array([len(text.split()) > 1 for text in pool.texts()])
    tokens = np.array([len(made.tokens(text)) > 1 for text in pool.texts()])
    assert (several & ~tokens).any()
    assert (tokens & ~several).any()
    assert np.array_equal(by_words & tokens, golden & several)
    assert 0 < (by_words != golden).sum() <= (several != tokens).sum()


def test_image_based_and_clip_score(pool: Pool) -> None:
    scores = scores_of(pool, "l14")
    order = best_first(scores)
    last = scores[order[int(0.3 * len(scores))]]
    ours, golden, image = (
        pool.ours("image_based_l14_03"),
        pool.golden("image_based_l14_0.3"),
        pool.golden("image_based"),
    )
    assert np.array_equal(golden, image & (scores >= last))
    assert not (ours & ~golden).any()
    assert set(scores[golden & ~ours]) <= {last}


@pytest.mark.parametrize(
    "name", ["no_filter", "basic_filter", "laion2b", "text_based", "clip_b32_threshold_0.28"]
)
def test_blank_captions_are_no_candidates(with_empty_captions: Pool, name: str) -> None:
    pool = with_empty_captions
    blank = np.array([not text.strip() for text in pool.texts()])
    assert blank.sum() == 100
    golden = pool.golden(name)
    assert np.array_equal(pool.ours(name), golden & ~blank)
    # Which filters of DataComp's keep them is a fact about the golden files.
    assert (golden & blank).any() == (name in ("no_filter", "laion2b", "clip_b32_threshold_0.28"))


def test_fractions_are_of_what_are_candidates(with_empty_captions: Pool) -> None:
    pool = with_empty_captions
    scores = scores_of(pool, "l14")
    blank = np.array([not text.strip() for text in pool.texts()])
    left = [row for row in best_first(scores) if not blank[row]]
    assert set(np.flatnonzero(pool.ours("clip_l14_fraction_0.3"))) == set(left[:270])
    assert pool.golden("clip_l14_fraction_0.3").sum() == 301
