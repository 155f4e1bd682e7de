"""Presets load and compile, their constants are the published ones, DataComp's agree with its own code."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from curate.cli import app
from curate.config.loading import load_config, preset_text, presets
from curate.config.models import PipelineConfig
from curate.config.scorers.cluster import ClusterScorer
from curate.config.scorers.perceptual import PerceptualScorer
from curate.config.scorers.table import TableScorer
from curate.dataset.family import CANDIDATES, IMAGES
from curate.dataset.selections import Selection
from curate.dataset.uid import SUBSET_DTYPE
from curate.dataset.workspace import Workspace
from curate.download.writer import table_schema
from curate.engine.engine import Engine
from curate.ingest.parse import CANDIDATE_COLUMNS
from curate.pipeline import build
from curate.rules.program import compile_experiment
from curate.rules.settings import settings_of
from curate.samples.columns import Column
from curate.samples.database import open_database
from tests.golden.datacomp import made

DOC = Path(__file__).resolve().parents[3] / "docs/presets.md"
OLD = {"demo", "starter", "laion400m"}
RECIPES = sorted(set(presets()) - OLD)
EXPERIMENTS = {
    "align": ["align"],
    "cat": ["cat"],
    "cc12m": ["cc12m"],
    "cc3m": ["cc3m"],
    "coyo": ["coyo"],
    "datacomp": [
        *("no_filter", "basic_filter", "clip_score_b32_30", "clip_score_l14_30"),
        *("clip_score_b32_threshold", "clip_score_l14_threshold", "laion2b"),
    ],
    "datacomp-1b": ["image_based", "image_based_intersect_clip_score"],
    "datacomp-pool": [],
    "datacomp-text-based": ["text_based"],
    "density-based-pruning": ["pruned"],
    "dfn": ["dfn"],
    "laion1b-nolang": ["laion1b_nolang"],
    "laion2b-en": ["laion2b_en"],
    "laion5b-multi": ["laion2b_multi"],
    "m-flyt": ["mflyt_scs015", "mflyt_scs025", "mflyt_hcs15"],
    "metaclip": ["metaclip_400m", "metaclip_2_5b"],
    "negcliploss-normsim": ["negcliploss", "negcliploss_normsim"],
    "relaion-research": ["research"],
    "relaion-research-safe": ["research_safe"],
    "semdedup": ["semdedup"],
    "t-mars": ["tmars"],
}


def load(name: str, *overrides: str) -> PipelineConfig:
    """A preset; those that leave the sources to their users get one."""
    if not any("sources" in yaml.safe_load(preset_text(n)).get("ingest", {}) for n in parents(name)):
        overrides = ("ingest.sources=[{paths: [x.parquet]}]", *overrides)
    return load_config(name, overrides)


def parents(name: str) -> list[str]:
    """A preset and those it extends, the last one on its own."""
    found = [name]
    while "extends" in (data := yaml.safe_load(preset_text(found[-1]))):
        found.append(data["extends"])
    return found


def test_every_recipe_is_there_with_its_experiments() -> None:
    found = {name: list(load(name).filter.experiments) for name in RECIPES}
    assert found == EXPERIMENTS


def test_every_experiment_has_a_description() -> None:
    for name in RECIPES:
        for experiment in load(name).filter.experiments.values():
            assert experiment.description, name


def test_the_command_line_lists_every_preset_with_one_line() -> None:
    result = CliRunner().invoke(app, ["config", "presets"], env={"COLUMNS": "300"})
    assert result.exit_code == 0
    for name in RECIPES:
        (line,) = (row for row in result.output.splitlines() if row.startswith(f"{name} "))
        assert len(line.removeprefix(name).strip()) > 30
        assert len(presets()[name]) <= 110


def test_every_recipe_says_its_source_and_what_it_lacks() -> None:
    for name in RECIPES:
        text = preset_text(name)
        assert re.search(r"^# Source", text, re.M), name
        assert re.search(r"^# (Differs|Lacks|Not checked)|^# Source and differences", text, re.M), name


def test_the_pages_example_loads(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", DOC.read_text(), re.M | re.S)
    (tmp_path / "mine.yaml").write_text(example)
    config = load_config(str(tmp_path / "mine.yaml"))
    assert list(config.filter.experiments) == [*EXPERIMENTS["datacomp"], "mine"]
    assert config.ingest is not None
    assert config.ingest.sources[0].extra_columns == load("datacomp").ingest.sources[0].extra_columns  # type: ignore[union-attr]


def test_the_page_has_every_preset() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", DOC.read_text(), re.M)
    assert sorted(rows) == sorted([*RECIPES, "laion400m"])


# What is published → where. A value at a dotted path, or a rule as it is written.
CONSTANTS: list[tuple[str, str, Any, str]] = [
    ("datacomp", "basic_filter.words.where", "text_words > 2", "datacomp apply_filter.py:200-235"),
    ("datacomp", "basic_filter.length.where", "text_length > 5", "datacomp apply_filter.py:200-235"),
    ("datacomp", "basic_filter.size.where", "image_min_side >= 200", "datacomp apply_filter.py:200-235"),
    ("datacomp", "basic_filter.aspect.where", "image_aspect <= 3", "datacomp apply_filter.py:200-235"),
    ("datacomp", "clip_score_b32_30.clip.fraction", 0.3, "arXiv 2304.14108, table 3"),
    ("datacomp", "clip_score_l14_30.clip.fraction", 0.3, "arXiv 2304.14108, table 3"),
    ("datacomp", "clip_score_b32_threshold.clip.min", 0.281, "arXiv 2304.14108, table 16"),
    ("datacomp", "clip_score_l14_threshold.clip.min", 0.243, "arXiv 2304.14108, table 16"),
    ("datacomp", "laion2b.clip.min", 0.28, "datacomp apply_filter.py:695-704"),
    ("datacomp-1b", "image_based.length.where", "text_length > 5", "datacomp apply_filter.py:57-77"),
    ("datacomp-1b", "image_based_intersect_clip_score.clip.fraction", 0.3, "arXiv 2304.14108"),
    ("laion2b-en", "ingest.min_text_length", 5, "crawlingathome-gpu-hcloud ccpp.py"),
    ("laion2b-en", "ingest.max_url_length", 2000, "crawlingathome-gpu-hcloud ccpp.py"),
    ("laion2b-en", "ingest.languages", ["en"], "crawlingathome-gpu-hcloud ccpp.py"),
    (
        "laion2b-en",
        "ingest.blocked_url_substrings",
        [".svg", ".gif", "data:image", "javascript:"],
        "crawlingathome-gpu-hcloud ccpp.py",
    ),
    ("laion2b-en", "download.min_bytes", 5000, "crawlingathome-gpu-hcloud dbdl.py"),
    ("laion2b-en", "download.max_pixels", 89_478_484, "crawlingathome-gpu-hcloud dbdl.py"),
    ("laion2b-en", "download.timeout", 10.0, "crawlingathome-gpu-hcloud dbdl.py"),
    ("laion2b-en", "laion2b_en.similarity.where", "similarity >= 0.28", "gpu_inference.py at 92414a3"),
    ("laion5b-multi", "laion2b_multi.similarity.where", "similarity >= 0.26", "gpu_inference.py at c871a24"),
    ("laion1b-nolang", "laion1b_nolang.similarity.where", "similarity >= 0.26", "gpu_inference.py"),
    (
        "laion1b-nolang",
        "embed.models.clip.text_model",
        "sentence-transformers/clip-ViT-B-32-multilingual-v1",
        "gpu_inference.py",
    ),
    ("relaion-research-safe", "research_safe.safe.max", 0.45, "laion.ai blog/relaion-5b.md"),
    (
        "relaion-research",
        "research.safe.where",
        "NOT (punsafe > 0.95 AND words_count > 0)",
        "laion.ai blog/relaion-5b.md",
    ),
    ("align", "align.size.where", "image_min_side > 200", "arXiv 2102.05918"),
    ("align", "align.aspect.where", "image_aspect < 3", "arXiv 2102.05918"),
    ("align", "align.words.where", "text_words BETWEEN 3 AND 20", "arXiv 2102.05918"),
    ("align", "align.shared_text.at_most", 10, "arXiv 2102.05918"),
    ("align", "align.shared_image.at_most", 1000, "arXiv 2102.05918"),
    ("cc3m", "cc3m.size.where", "image_min_side > 400", "conceptual-captions"),
    ("cc3m", "cc3m.aspect.where", "image_aspect <= 2", "conceptual-captions"),
    ("cc12m", "cc12m.aspect.where", "image_aspect <= 2.5", "conceptual-12m"),
    ("cc12m", "cc12m.words.where", "text_words BETWEEN 3 AND 256", "conceptual-12m"),
    ("coyo", "download.min_bytes", 5000, "coyo-dataset README"),
    ("coyo", "coyo.length.where", "text_length > 5 AND text_length <= 1000", "coyo-dataset README"),
    ("coyo", "coyo.words.where", "text_words BETWEEN 3 AND 256", "coyo-dataset README"),
    ("coyo", "coyo.size.where", "image_min_side >= 200", "coyo-dataset README"),
    ("coyo", "coyo.aspect.where", "image_aspect <= 3", "coyo-dataset README"),
    ("coyo", "coyo.shared_text.at_most", 10, "coyo-dataset README"),
    ("coyo", "coyo.unique.dedup", ["hash_phash", "text"], "coyo-dataset README"),
    ("dfn", "dfn.clip.fraction", 0.15, "arXiv 2309.17425"),
    ("negcliploss-normsim", "negcliploss_normsim.ncl.fraction", 0.3, "arXiv 2405.19547"),
    ("negcliploss-normsim", "negcliploss_normsim.near.fraction", 0.2, "arXiv 2405.19547"),
    ("negcliploss-normsim", "negcliploss_normsim.near.of", "pool", "arXiv 2405.19547"),
    ("negcliploss-normsim", "score.scorers.ncl.batch_size", 32_768, "negCLIPLoss_NormSim vas2.py"),
    ("negcliploss-normsim", "score.scorers.ncl.temperature", 0.01, "negCLIPLoss_NormSim vas2.py"),
    ("negcliploss-normsim", "score.scorers.near.norm", "inf", "negCLIPLoss_NormSim vas2.py"),
    (
        "m-flyt",
        "score.scorers.mflyt.weights",
        {
            "input_vit-b-32": 0.08,
            "input_vit-l-14": 0.21,
            "input_DFN-Base": 0.60,
            "input_DFN-FT": 0.80,
            "input_CC2M-Classifier": 0.17,
            "input_IN1K-Classifier": 0.36,
            "input_FLYT": 0.65,
            "input_normsim_inf": 0.55,
            "input_negCLIPLoss": 0.51,
            "input_hype_lorentzian_distance": 0.45,
            "input_hype_image_specificity": -0.05,
            "input_hype_text_specificity": 0.02,
        },
        "FLYT examples.ipynb",
    ),
    ("m-flyt", "score.scorers.mflyt.standardise", False, "FLYT flyt/data.py"),
    ("m-flyt", "mflyt_scs015.draw.alpha", 0.15, "FLYT examples.ipynb"),
    ("m-flyt", "mflyt_scs015.draw.batch", 100_000, "FLYT examples.ipynb"),
    ("m-flyt", "mflyt_scs015.draw.count", 128_000_000, "FLYT examples.ipynb"),
    ("m-flyt", "mflyt_scs025.draw.alpha", 0.25, "FLYT examples.ipynb"),
    ("m-flyt", "mflyt_hcs15.draw.at_most", 15, "FLYT examples.ipynb"),
    ("semdedup", "score.scorers.topic.clusters", 50_000, "SemDeDup's configuration"),
    ("semdedup", "score.scorers.topic.iterations", 100, "SemDeDup's configuration"),
    ("semdedup", "score.scorers.topic.seed", 1234, "SemDeDup's configuration"),
    ("semdedup", "score.scorers.topic.spherical", True, "SemDeDup's configuration"),
    ("semdedup", "semdedup.meaning.lowest", "topic_similarity", "SemDeDup semdedup.py:60-80"),
    ("density-based-pruning", "score.scorers.concept.clusters", 100, "effective_pruning"),
    ("density-based-pruning", "pruned.hard.fraction", 0.277, "effective_pruning README"),
    ("metaclip", "metaclip_400m.balanced.t", 20_000, "arXiv 2309.16671"),
    ("metaclip", "metaclip_2_5b.balanced.t", 170_000, "arXiv 2309.16671"),
    ("t-mars", "tmars.masked.fraction", 0.5, "second hand"),
    ("cat", "cat.complexity.where", "cat_relations >= 1", "second hand"),
    ("cat", "cat.action.where", "cat_verbs >= 1", "second hand"),
    ("cat", "cat.text_spotting.where", "cat_shared < 5", "second hand"),
]


@pytest.mark.parametrize(("name", "path", "value", "source"), CONSTANTS)
def test_constants_are_the_published_ones(name: str, path: str, value: object, source: str) -> None:
    node: Any = load(name).model_dump(mode="json", by_alias=True)
    experiment, *rest = path.split(".")
    if experiment in node["filter"]["experiments"]:
        node = node["filter"]["experiments"][experiment]["rules"]
        path = ".".join(rest)
    for key in path.split("."):
        node = node[key]
    assert node == value, source
    if source == "second hand":
        assert "at second hand" in preset_text(name)


def test_the_prompts_of_laions_drop_rules_are_as_many_as_theirs() -> None:
    scorers = load("laion2b-en").model_dump()["score"]["scorers"]
    assert [len(scorers["age"][k]) for k in ("positive", "negative")] == [4, 4]
    assert [len(scorers["animal"][k]) for k in ("positive", "negative")] == [13, 21]
    for prompt in scorers["animal"]["positive"]:
        assert prompt.startswith("an animal")
    assert not any(p.startswith("an animal") for p in scorers["animal"]["negative"])


def test_laions_other_languages_are_all_that_are_detected() -> None:
    config = load("laion5b-multi")
    assert config.ingest is not None
    languages = config.ingest.languages or ()
    assert len(set(languages)) == len(languages) == 175
    assert "en" not in languages
    assert {"no", "ru", "zh", "ja"} <= set(languages)
    assert all(isinstance(code, str) for code in languages)


# Columns of the types of scorers that presets use, as these scorers write them.
SCORED: dict[str, dict[str, pa.DataType]] = {
    "text": {"length": pa.int32(), "words": pa.int32(), "lang": pa.string(), "lang_score": pa.float32()},
    "image": {
        "min_side": pa.int32(),
        "max_side": pa.int32(),
        "aspect": pa.float64(),
        "pixels": pa.int64(),
    },
    "zero_shot": {"score": pa.float32(), "top": pa.string(), "tag": pa.string()},
    "words": {"count": pa.int32(), "distinct": pa.int32(), "first": pa.string()},
    "negclip": {"score": pa.float32(), "image_norm": pa.float32(), "text_norm": pa.float32()},
    "normsim": {"score": pa.float32()},
    "mix": {"score": pa.float32()},
}
TABLES = {
    "original_width": pa.int64(),
    "original_height": pa.int64(),
    "sha256": pa.string(),
    "clip_b32_similarity_score": pa.float32(),
    "clip_l14_similarity_score": pa.float32(),
    "WIDTH": pa.int64(),
    "HEIGHT": pa.int64(),
    "similarity": pa.float64(),
    "punsafe": pa.float32(),
    "pwatermark": pa.float32(),
}
"""Columns of the published tables (DataComp's cards, LAION's joined releases)."""


def columns_of(config: PipelineConfig) -> dict[str, Column]:
    """What ingest, download, embed and the scorers of a config would give."""
    assert config.ingest is not None
    extra = {n: TABLES[n] for source in config.ingest.sources for n in source.extra_columns}
    base = {"uid": pa.string(), **CANDIDATE_COLUMNS, **extra}
    if config.ingest.languages is not None:
        base |= {"lang": pa.string(), "lang_score": pa.float32()}
    if config.download is None:
        found = {name: Column(CANDIDATES, name, kind) for name, kind in base.items()}
    else:
        stored = table_schema(pa.schema(list(base.items())))
        found = {f.name: Column(IMAGES, f.name, f.type) for f in stored}
        found["text"] = found.pop("caption")
    for i, (alias, model) in enumerate(config.embed.models.items()):
        if set(model.modalities) == {"image", "text"}:
            column = Column(f"embeddings/{alias}", "similarity", pa.float32())
            found |= {f"{alias}_similarity": column, **({"similarity": column} if i == 0 else {})}
    for name, scorer in config.score.scorers.items():
        for suffix, kind in scored(scorer).items():
            found[f"{name}_{suffix}"] = Column(f"scores/{name}", f"{name}_{suffix}", kind)
    return found


def scored(scorer: Any) -> Mapping[str, pa.DataType]:
    if isinstance(scorer, TableScorer):
        return dict.fromkeys(scorer.columns, pa.float32())
    if isinstance(scorer, PerceptualScorer):
        return dict.fromkeys(scorer.hashes, pa.uint64())
    if isinstance(scorer, ClusterScorer):
        target = {"target": pa.bool_()} if scorer.targets else {}
        return {"id": pa.int32(), "similarity": pa.float32(), **target}
    return SCORED[scorer.type]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_database(tmp_path) as opened:
        yield opened


@pytest.fixture
def with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every file that a preset names lies, made up."""
    files = tmp_path / "files"
    vectors = np.eye(8, dtype=np.float32)
    for folder in ("in1k_clip_vit_l14", "keywords", "profanity", "m-flyt-scores"):
        (files / folder).mkdir(parents=True)
    np.save(files / "centroids_l14.npy", vectors)
    np.save(files / "in1k_clip_vit_l14/0.npy", vectors)
    for folder in ("keywords", "profanity"):
        (files / folder / "en").write_text("word\n")
    made.write_wordnet(files / "wordnet/dict", files / "imagenet21k_wordnet_ids.txt")
    (files / "metaclip.json").write_text('["photo", "red"]')
    (files / "DFN-FT.pt").write_bytes(b"weights")
    for name in ("t-mars", "cat", "m-flyt"):
        columns = next(s.columns for s in load(name).score.scorers.values() if isinstance(s, TableScorer))
        path = files / (f"{name}.parquet" if name != "m-flyt" else "m-flyt-scores/0.parquet")
        pq.write_table(pa.table({"uid": ["0" * 32], **{c: [0.5] for c in columns}}), path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_experiments_compile_against_what_the_preset_gives(
    name: str, connection: duckdb.DuckDBPyConnection, with_files: Path
) -> None:
    config = load(name)
    columns = columns_of(config)
    for experiment_name, experiment in config.filter.experiments.items():
        program = compile_experiment(experiment_name, experiment, columns, connection)
        assert [r.name for r in program.rules] == list(experiment.rules)
        for rule in program.rules:
            rule.check_files()
        for alias, modality in program.vectors():
            assert modality in config.embed.models[alias].modalities
        assert settings_of(experiment)["rules"]


@pytest.mark.parametrize("name", RECIPES)
def test_scorers_take_the_files_of_the_preset(name: str, with_files: Path) -> None:
    config = load(name)
    stages = build(config, ("score", "filter"))
    scored = {s.name.removeprefix("score/") for s in stages if s.name.startswith("score/")}
    assert set(config.score.scorers) <= scored
    assert {f"filter/{e}" for e in config.filter.experiments} <= {s.name for s in stages}


@pytest.mark.parametrize("name", RECIPES)
def test_every_file_is_explained_and_lies_in_files(name: str) -> None:
    """A path that a preset names is in its comment, or in that of the preset it extends."""
    comments = "\n".join(
        line for n in parents(name) for line in preset_text(n).splitlines() if line[:1] == "#"
    )
    for path in re.findall(r"\./files/[\w./-]+", yaml.safe_dump(load(name).model_dump(mode="json"))):
        assert path in comments, path


def test_m_flyt_mixes_as_published_and_draws_as_often_as_asked(with_files: Path) -> None:
    table = made.make(200)
    Path("metadata").mkdir()
    pq.write_table(table, f"metadata/{'0' * 32}.parquet")
    counts = [f"filter.experiments.{e}.rules.draw.count=500" for e in EXPERIMENTS["m-flyt"]]
    config = load_config("m-flyt", [*counts, "run.cluster=synchronous"])
    weights = config.model_dump()["score"]["scorers"]["mflyt"]["weights"]
    values = {
        n.removeprefix("input_"): np.random.default_rng(i).normal(size=200) for i, n in enumerate(weights)
    }
    pq.write_table(pa.table({"uid": table["uid"], **values}), "files/m-flyt-scores/0.parquet")
    engine = Engine(Workspace(config.workspace), config.run, Console(quiet=True))
    engine.run(build(config, ("ingest", "score", "filter")))
    scores = pa.concat_tables(pq.read_table(p) for p in sorted(Path("work/scores/mflyt").glob("*.parquet")))
    found = dict(zip(scores["uid"].to_pylist(), scores["mflyt_score"].to_pylist(), strict=True))
    wanted = sum(weight * values[name.removeprefix("input_")] for name, weight in weights.items())
    assert [found[uid] for uid in table["uid"].to_pylist()] == pytest.approx(wanted, abs=1e-5)
    for experiment in EXPERIMENTS["m-flyt"]:
        counted = pq.read_table(f"work/selections/{experiment}/counts.parquet")
        assert sum(counted["total"].to_pylist()) == 500
        if experiment == "mflyt_hcs15":
            selection = Selection(Workspace("work"), experiment)
            repeats = [
                n for s in counted["shard"].to_pylist() for n in selection.read(s)["repeats"].to_pylist()
            ]
            assert 1 < max(repeats) <= 15


# DataComp's presets against DataComp's own code, see tests/golden/datacomp and the tests of filters.

ROWS = 4_000
golden_table = functools.cache(made.make)
SAME = {
    "no_filter": "no_filter",
    "basic_filter": "basic_filter",
    "laion2b": "laion2b",
    "text_based": "text_based",
    "image_based": "image_based",
}
ENGLISH = ("basic_filter", "laion2b", "text_based", "image_based")
CHILD: dict[str, Any] = {
    "extends": ["datacomp", "datacomp-text-based", "datacomp-1b"],
    "run": {"cluster": "synchronous"},
    # Has vectors of the golden files' length; it is not run.
    "embed": {"models": {"l14": {"model": "demo", "pretrained": None, "device": "cpu"}}},
    "score": {"scorers": {"topic": {"device": "cpu"}}},
    # The golden files have a language of their own, since every detector differs a little.
    "filter": {"experiments": {n: {"rules": {"language": {"where": "language = 'en'"}}} for n in ENGLISH}},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, Path]:
    """The first rows of the golden metadata, and the workspace that the presets made of them."""
    folder = tmp_path_factory.mktemp("presets")
    table = golden_table().slice(0, ROWS)
    (folder / "metadata").mkdir()
    pq.write_table(table, folder / f"metadata/{'0' * 32}.parquet")
    np.savez(folder / f"metadata/{'0' * 32}.npz", l14_img=made.vectors(made.ROWS)[:ROWS])
    files = folder / "files"
    made.write_wordnet(files / "wordnet/dict", files / "imagenet21k_wordnet_ids.txt")
    np.save(files / "centroids_l14.npy", made.centroids())
    (files / "in1k_clip_vit_l14").mkdir()
    np.save(files / "in1k_clip_vit_l14/0.npy", made.targets())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        columns = [*load_config("datacomp").ingest.sources[0].extra_columns, "language"]  # type: ignore[union-attr]
        source = {"paths": ["./metadata"], "uid_column": "uid", "extra_columns": columns}
        Path("child.yaml").write_text(yaml.safe_dump({**CHILD, "ingest": {"sources": [source]}}))
        config = load_config("child.yaml")
        engine = Engine(Workspace(config.workspace), config.run, Console(quiet=True))
        engine.run(build(config, ("ingest", "embed", "score", "filter")))
    return table, folder / "work"


def kept(table: pa.Table, work: Path, experiment: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    subset = np.load(work / f"selections/{experiment}/subset.npy")
    uids = [(int(u[:16], 16), int(u[16:], 16)) for u in table["uid"].to_pylist()]
    return np.isin(np.array(uids, SUBSET_DTYPE), subset)


@pytest.mark.parametrize(("ours", "theirs"), SAME.items())
def test_datacomp_keeps_the_rows_that_its_own_code_keeps(
    ran: tuple[pa.Table, Path], ours: str, theirs: str
) -> None:
    table, work = ran
    everything = golden_table()
    order = np.argsort(np.array(everything["uid"].to_pylist()))
    with np.load(Path(made.__file__).parent / "kept.npz") as masks:
        in_order = np.unpackbits(masks[f"main/{theirs}"], count=everything.num_rows).astype(bool)
    golden = np.empty(everything.num_rows, bool)
    golden[order] = in_order
    assert 0 < golden[:ROWS].sum() <= ROWS
    assert np.array_equal(kept(table, work, ours), golden[:ROWS])


@pytest.mark.parametrize("arch", ["b32", "l14"])
def test_datacomps_clip_scores(ran: tuple[pa.Table, Path], arch: str) -> None:
    table, work = ran
    scores = np.asarray(table[f"clip_{arch}_similarity_score"].fill_null(float("nan")))
    top = kept(table, work, f"clip_score_{arch}_30")
    assert top.sum() == 1200
    assert np.nanmax(scores[~top]) <= scores[top].min()
    bound = np.float32({"b32": 0.281, "l14": 0.243}[arch])
    assert np.array_equal(kept(table, work, f"clip_score_{arch}_threshold"), scores >= bound)


def test_datacomp_1b_is_both_filters(ran: tuple[pa.Table, Path]) -> None:
    table, work = ran
    both = kept(table, work, "image_based") & kept(table, work, "clip_score_l14_30")
    assert both.any()
    assert np.array_equal(kept(table, work, "image_based_intersect_clip_score"), both)
