"""Experiments on published tables: the same rows as in a workspace, and as DataComp's own code keeps."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from curate.cli import app
from curate.config.filters import Experiment
from curate.config.loading import check
from curate.config.models import PipelineConfig
from curate.config.scorers.cluster import ClusterScorer
from curate.config.tables import TableSettings
from curate.dataset.uid import SUBSET_DTYPE
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.errors import ConfigError, UserError
from curate.filter.stage import FilterStage
from curate.inspect.diff import diff
from curate.inspect.diff_page import diff_page
from curate.inspect.explain import explain
from curate.inspect.explain_text import print_trail
from curate.pipeline import build
from curate.rules.account.explain import verdict
from curate.samples.sources import Tables
from curate.samples.tables import TablesPool
from tests.golden.datacomp import made
from tests.unit.filter.filter_pool import commit, cut_in_shards, run_experiment, uid_from, write_pool
from tests.unit.filter.test_filter_datacomp import GOLDEN, JOBS, best_first, slug

FOLDER = Path(made.__file__).parent


# ---- against a workspace -----------------------------------------------------------------------------------


def some_rows(count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(2**20)[:count]
    return [
        {
            "uid": uid_from(int(number) << 100 | int(number) << 3),
            "text": f"caption {rng.integers(6)}",
            "url": f"https://host{rng.integers(4)}.com/{number}",
            "sha256": str(rng.integers(count)),
            "width": int(rng.integers(3, 9)),
            "height": 5,
            "similarity": [None, float("nan"), *np.round(rng.random(8), 1)][rng.integers(10)],
            "text_lang": [None, "en", "de"][rng.integers(3)],
            "text_score": float(rng.normal()),
        }
        for number in numbers
    ]


TYPES = {
    **dict.fromkeys(("uid", "text", "url", "sha256", "text_lang"), pa.string()),
    **dict.fromkeys(("width", "height"), pa.int32()),
    "similarity": pa.float32(),
    "text_score": pa.float64(),
}


def publish(folder: Path, rows: list[dict[str, Any]], seed: int, files: int = 3) -> Tables:
    """Parquet files with the rows in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    for number, part in enumerate(np.array_split(order, files)):
        table = pa.table({n: pa.array([rows[i].get(n) for i in part], t) for n, t in TYPES.items()})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=7)
    return Tables(TableSettings(paths=(str(folder),)), {})


def keep_of(workspace: Workspace, name: str, experiment: dict[str, Any], tables: Tables) -> dict[str, Any]:
    """Run it on tables; the funnel."""
    stage = FilterStage(name, Experiment.model_validate(experiment), (), (), None, tables)
    (unit,) = stage.units(workspace)
    outcome = stage.run(workspace, unit)
    assert outcome.rows_in == outcome.rows_out + sum(outcome.drops.values())
    commit(workspace, stage.name, unit.name, list(outcome.outputs), unit.inputs, stage.settings)
    funnel: dict[str, Any] = workspace.read_json(f"selections/{name}/funnel.json")
    steps = funnel["sequence"]
    assert steps[0]["rows_in"] == funnel["rows_in"]
    assert steps[-1]["left"] == funnel["kept"]
    return funnel


EXPERIMENTS: dict[str, dict[str, Any]] = {
    "where": {"rules": {"a": "similarity >= 0.5 AND width > 4"}},
    "comparison": {"rules": {"a": "similarity > 0.3", "b": "width <= 6"}},
    "score": {"rules": {"a": {"score": "similarity", "min_quantile": 0.3, "max_quantile": 0.9}}},
    "top": {"rules": {"a": {"top": "similarity", "fraction": 0.3}}},
    "lowest": {"rules": {"a": {"top": "width", "count": 17, "lowest": True}}},
    "ties": {"rules": {"a": {"top": "height", "fraction": 0.41}}},
    "all_ties": {"rules": {"a": {"top": "height", "count": 1000}}},
    "constant": {"rules": {"a": {"top": "1", "fraction": 0.3}}},
    "by": {"rules": {"a": {"top": "similarity", "fraction": 0.5, "by": "text_lang"}}},
    "cap": {"rules": {"a": {"cap": "width", "at_most": 4, "highest": "height"}}},
    "cap_drawn": {"rules": {"a": {"cap": "text", "at_most": 3, "seed": 2}}},
    "equal": {"rules": {"a": {"equal": "text_lang"}}},
    "sample": {"rules": {"a": {"sample": "uniform", "fraction": 0.2, "seed": 4}}},
    "weights": {"rules": {"a": {"sample": "width - 3", "count": 20}}},
    "in": {"rules": {"a": {"in": "text_lang", "values": ["en"]}, "b": {"not_in": "width", "values": [5]}}},
    "frequency": {"rules": {"a": {"frequency": "text", "at_most": 12}}},
    "dedup": {"rules": {"a": {"dedup": ["text", "width"], "highest": "similarity"}}},
    "dedup_uid": {"rules": {"a": {"dedup": ["sha256"]}}},
    "soft_cap": {"rules": {"a": {"soft_cap": "text_score", "count": 90, "batch": 10}}},
    "then": {
        "rules": {
            "a": "width > 3",
            "b": {"top": "similarity", "fraction": 0.5},
            "c": {"top": "height", "fraction": 0.5},
            "d": {"score": "text_score", "min_quantile": 0.1},
        },
        "keep": {"then": ["a", "b", {"any": ["c", {"not": "d"}]}]},
    },
    "then_dedup": {
        "rules": {"a": {"top": "height", "fraction": 0.6}, "b": {"dedup": ["text"]}},
        "keep": {"then": ["a", "b"]},
    },
}


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(("seed", "keep"), [(0, False), (1, True)])
def test_the_same_rows_as_in_a_workspace(tmp_path: Path, name: str, seed: int, keep: bool) -> None:
    rows = some_rows(150, seed)
    workspace = write_pool(tmp_path / "pool", cut_in_shards(rows, 3))
    run_experiment(workspace, "e", EXPERIMENTS[name])
    tables = replace(publish(tmp_path / "published", rows, seed), keep=keep)
    there = Workspace(str(tmp_path / "work"))
    funnel = keep_of(there, "e", EXPERIMENTS[name], tables)
    assert there.read_bytes("selections/e/subset.npy") == workspace.read_bytes("selections/e/subset.npy")
    expected = workspace.read_json("selections/e/funnel.json")
    assert funnel == expected
    counts = there.read_table("selections/e/counts.parquet").to_pylist()
    assert counts == [{"shard": "tables", "samples": 150, "kept": funnel["kept"], "total": funnel["total"]}]


@pytest.mark.parametrize("name", ["then_dedup", "ties", "cap", "soft_cap"])
def test_a_row_is_explained(tmp_path: Path, name: str) -> None:
    rows = some_rows(40, 3)
    tables = publish(tmp_path / "published", rows, 3)
    workspace = Workspace(str(tmp_path / "work"))
    keep_of(workspace, "e", EXPERIMENTS[name], tables)
    kept = set(np.load(tmp_path / "work/selections/e/subset.npy").tolist())
    experiment = Experiment.model_validate(EXPERIMENTS[name])
    for row in rows:
        said = verdict(workspace, "e", experiment, (), (), row["uid"], tables)
        assert said.kept == ((int(row["uid"][:16], 16), int(row["uid"][16:], 16)) in kept)
        assert said.shard.startswith(str(tmp_path / "published"))
    with pytest.raises(UserError, match="no row of the tables has this uid"):
        verdict(workspace, "e", experiment, (), (), "f" * 32, tables)


def test_what_another_experiment_kept(tmp_path: Path) -> None:
    rows = some_rows(100, 5)
    workspace = Workspace(str(tmp_path / "work"))
    tables = publish(tmp_path / "published", rows, 5)
    config = check(
        {
            "workspace": workspace.url,
            "run": {"cluster": "synchronous"},
            "filter": {
                "tables": {"paths": str(tmp_path / "published")},
                "experiments": {
                    "second": {"rules": {"a": {"experiment": "first"}, "b": "height = 5"}},
                    "first": {"rules": {"a": "width > 5"}},
                },
            },
        }
    )
    assert config.filter.tables == tables.settings
    Engine(workspace, config.run, Console(quiet=True)).run(build(config))
    first, second = (np.load(tmp_path / f"work/selections/{n}/subset.npy") for n in ("first", "second"))
    assert np.array_equal(first, second)
    assert len(first) == sum(row["width"] > 5 for row in rows)


@pytest.mark.parametrize("second", ["then_dedup", "cap"])
def test_two_experiments_are_compared(tmp_path: Path, second: str) -> None:
    rows = some_rows(120, 6)
    tables = publish(tmp_path / "published", rows, 6)
    workspace = Workspace(str(tmp_path / "work"))
    experiments = {"top": EXPERIMENTS["top"], "other": EXPERIMENTS[second]}
    facts = {"filter": {"tables": {"paths": str(tmp_path / "published")}, "experiments": experiments}}
    config = check({**facts, "workspace": workspace.url})
    Engine(workspace, config.run, Console(quiet=True)).run(build(config))
    top, other = (
        {(f"{a:016x}{b:016x}") for a, b in np.load(tmp_path / f"work/selections/{n}/subset.npy").tolist()}
        for n in experiments
    )
    assert config.filter.tables == tables.settings
    found = diff(workspace, config, "top", "other", 1000)
    assert (found.pool, found.kept_a, found.kept_b) == (120, len(top), len(other))
    assert found.notes == []
    for group, uids in (("only_a", top - other), ("only_b", other - top), ("both", top & other)):
        one = found.groups[group]
        assert one.samples == len(uids)
        assert {e.uid for e in one.examples} <= uids
        widths = [r["width"] for r in rows if r["uid"] in uids]
        assert one.means["width"] == pytest.approx(np.mean(widths))
        assert group == "both" or sum(one.reasons.values()) == len(uids)
    assert not found.pictures
    page = diff_page(workspace, found)
    assert all(example.text in page for example in found.groups["only_a"].examples[:3])


@pytest.mark.parametrize("name", ["top", "dedup_uid"])
@pytest.mark.parametrize("keep", [False, True])
def test_rows_that_nobody_can_name_are_counted(tmp_path: Path, name: str, keep: bool) -> None:
    rows = [{**row, "similarity": 0.5, "sha256": row["uid"]} for row in some_rows(40, 1)]
    twice = [dict(rows[3]), dict(rows[7])]
    nobody = [{**rows[9], "uid": None, "sha256": "x"}, {**rows[9], "uid": "none", "sha256": "y"}]
    tables = replace(publish(tmp_path / "published", rows + twice + nobody, 2), keep=keep)
    workspace = Workspace(str(tmp_path / "work"))
    experiment = (
        {"rules": {"a": {"top": "similarity", "fraction": 1.0}}} if name == "top" else EXPERIMENTS[name]
    )
    funnel = keep_of(workspace, "e", experiment, tables)
    assert (funnel["rows_in"], funnel["kept"]) == (44, 40)
    assert funnel["reasons"] == {"duplicate_uid": 2, "no_uid": 2}
    subset = np.load(tmp_path / "work/selections/e/subset.npy")
    assert subset.tolist() == sorted((int(r["uid"][:16], 16), int(r["uid"][16:], 16)) for r in rows)


def test_columns_that_are_kept_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(60, 7)
    tables = publish(tmp_path / "published", rows, 7)
    workspace = Workspace(str(tmp_path / "work"))
    experiments = {"e": {"rules": {"a": "width > 5 AND text_score > 0"}}, "f": EXPERIMENTS["top"]}
    plain = [keep_of(workspace, name, experiment, tables) for name, experiment in experiments.items()]
    assert not (tmp_path / "work/.curate/columns").exists()
    tables = replace(tables, keep=True)
    kept = [keep_of(workspace, name, experiment, tables) for name, experiment in experiments.items()]
    assert kept == plain
    files = {p.name.rpartition("-")[0]: p.name for p in (tmp_path / "work").rglob("*.arrow")}
    assert files.keys() == {"uid%00raw", "width", "text_score", "similarity"}

    with monkeypatch.context() as patch:
        patch.setattr(TablesPool, "scan", lambda *_: pytest.fail("the tables are read again"))
        assert keep_of(workspace, "e", experiments["e"], tables) == plain[0]
        assert keep_of(workspace, "g", {"rules": {"a": "similarity > 0.5"}}, tables)["rows_in"] == 60
    publish(tmp_path / "published", rows[:50], 7)
    assert keep_of(workspace, "e", experiments["e"], tables)["rows_in"] == 50
    now = {p.name.rpartition("-")[0]: p.name for p in (tmp_path / "work").rglob("*.arrow")}
    assert now.keys() == files.keys()
    assert {name for name in now if now[name] == files[name]} == {"similarity"}


@pytest.mark.parametrize(
    ("experiments", "asked", "keep"), [(1, None, False), (2, None, True), (1, True, True), (2, False, False)]
)
def test_columns_are_kept_for_several_experiments(experiments: int, asked: bool | None, keep: bool) -> None:
    tables = {"paths": "x", "keep_columns": asked}
    named = {f"e{i}": {"rules": {"a": "true"}} for i in range(experiments)}
    found = Tables.of(check({"filter": {"tables": tables, "experiments": named}}))
    assert found is not None
    assert found.keep is keep
    # How they are read says nothing about what is selected.
    assert "keep_columns" not in found.facts()


def test_a_file_that_changes_is_other_work(tmp_path: Path) -> None:
    tables = publish(tmp_path / "published", some_rows(20, 1), 2)
    workspace = Workspace(str(tmp_path / "work"))
    stage = FilterStage("e", Experiment.model_validate(EXPERIMENTS["top"]), (), (), None, tables)
    before = list(stage.units(workspace))
    assert list(stage.units(workspace)) == before
    publish(tmp_path / "published", some_rows(21, 1), 2)
    assert list(stage.units(workspace)) != before


def test_mistakes(tmp_path: Path) -> None:
    tables = publish(tmp_path / "published", some_rows(20, 1), 2)
    tables = Tables(tables.settings, {"topic": ClusterScorer(type="cluster", model="m", clusters=2)})
    workspace = Workspace(str(tmp_path / "work"))
    wrong = {"rules": {"a": "topic_target"}}
    with pytest.raises(
        UserError, match=r"unknown column 'topic_target'.*\(not there yet: scorer topic, which"
    ):
        keep_of(workspace, "e", wrong, tables)
    with pytest.raises(UserError, match=r"unknown column 'similarty'; did you mean similarity"):
        keep_of(workspace, "e", {"rules": {"a": {"top": "similarty", "fraction": 0.5}}}, tables)
    config = check({"filter": {"tables": {"paths": "x"}, "experiments": {"e": {"rules": {"a": "true"}}}}})
    for verb in ("ingest", "download", "embed", "score", "index", "export", "report"):
        with pytest.raises(ConfigError, match=rf"{verb}: with `filter.tables` there is nothing but"):
            build(config, (verb,))
    assert [stage.name for stage in build(config)] == ["filter/e"]


def test_by_the_command_line(tmp_path: Path) -> None:
    publish(tmp_path / "published", some_rows(30, 1), 2)
    config = tmp_path / "c.yaml"
    facts = {
        "workspace": str(tmp_path / "work"),
        "filter": {"tables": {"paths": "published"}, "experiments": {"half": EXPERIMENTS["top"]}},
    }
    config.write_text(json.dumps(facts).replace('"published"', json.dumps(str(tmp_path / "published"))))
    done = CliRunner().invoke(app, ["filter", str(config)])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, ["filter", str(config)])
    assert "1 unit done before" in again.output
    subset = np.load(tmp_path / "work/selections/half/subset.npy")
    assert len(subset) == 9
    kept = f"{subset[0][0]:016x}{subset[0][1]:016x}"
    told = CliRunner().invoke(app, ["explain", kept, "-w", str(tmp_path / "work")])
    assert told.exit_code == 0, told.output
    assert "similarity" in told.output
    assert "experiment half  kept" in told.output
    told = CliRunner().invoke(app, ["explain", "f" * 32, "-w", str(tmp_path / "work")])
    assert told.exit_code == 1
    assert "no row of its tables" in told.output.replace("\n", " ")


def test_of_rows_of_one_uid_the_kept_one_is_explained(tmp_path: Path) -> None:
    rows = [{"uid": uid_from(7), "x": x} for x in (1, 9, 3)]
    (tmp_path / "published").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "published" / "a.parquet", row_group_size=1)
    tables = Tables(TableSettings(paths=(str(tmp_path / "published"),)), {})
    workspace = Workspace(str(tmp_path / "work"))
    any_order, in_order = {"rules": {"r": "x > 5"}}, {"rules": {"r": "x > 5", "d": {"dedup": "x"}}}
    for name, experiment, kept in (("a", any_order, True), ("b", in_order, False)):
        funnel = keep_of(workspace, name, experiment, tables)
        found = verdict(workspace, name, Experiment.model_validate(experiment), (), (), uid_from(7), tables)
        assert (funnel["kept"] == 1, found.kept) == (kept, kept)
        assert found.rules[0].values == {"x": 9 if kept else 1}


def test_what_changed_since_is_said(tmp_path: Path) -> None:
    tables = publish(tmp_path / "published", some_rows(30, 1), 2)
    workspace = Workspace(str(tmp_path / "work"))
    keep_of(workspace, "half", EXPERIMENTS["top"], tables)
    (row, *_) = sorted((tmp_path / "published").glob("*.parquet"))
    table = pq.read_table(row)
    pq.write_table(table.slice(1), row)
    config = PipelineConfig.model_validate(
        {"workspace": workspace.url, "filter": {"tables": {"paths": tables.settings.paths}}}
    )
    trail = explain(workspace, config, table["uid"][1].as_py())
    assert "was run on other samples or columns" in trail["experiments"]["half"]["error"]
    stream = io.StringIO()
    print_trail(Console(file=stream, width=60), trail)
    assert "experiment half  ? experiment 'half' was run on other samples" in stream.getvalue()


# ---- against DataComp --------------------------------------------------------------------------------------

LISTED = [p for p, job in JOBS.items() if not job.get("error") and not p.startswith("null/")]
BASELINES: dict[str, Any] = {
    "no_filter": {"any": "true"},
    "basic_filter": {
        "language": "language = 'en'",
        "words": "text_words > 2 AND text_length > 5",
        "size": "image_min_side >= 200 AND image_aspect <= 3",
    },
    "laion2b": {"language": "language = 'en'", "clip": "clip_b32_similarity_score >= 0.28"},
    "text_based": {
        "language": "language = 'en'",
        "nouns": {"entities": "@assets/imagenet21k_wordnet_ids", "wordnet": "@assets/wordnet"},
    },
}


def rules_of(job: dict[str, Any]) -> dict[str, Any] | None:
    if job["baseline"] in BASELINES:
        return dict(BASELINES[job["baseline"]])
    if job["baseline"] != "clip_score":
        return None  # needs embeddings
    column = f"clip_{job['arch']}_similarity_score"
    if "fraction" in job:
        return {"clip": {"top": column, "fraction": job["fraction"]}}
    return {"clip": f"{column} >= {job['threshold']}"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[pa.Table, Path]]:
    """Pool → its metadata in the order of uids, and the workspace with what was kept."""
    found = {}
    for name, table in (("main", made.make()), ("empty", made.make(1_000, empty=True))):
        assert made.fingerprint(table) == GOLDEN["metadata"][name]
        folder = tmp_path_factory.mktemp(name)
        made.write(folder / "metadata", table)
        made.write_wordnet(folder / "assets/wordnet", folder / "assets/imagenet21k_wordnet_ids")
        jobs = {p.partition("/")[2]: JOBS[p] for p in LISTED if p.startswith(f"{name}/")}
        experiments = {slug(n): {"rules": r} for n, job in jobs.items() if (r := rules_of(job))}
        facts = {
            "workspace": str(folder / "work"),
            "run": {"cluster": "synchronous"},
            "score": {"scorers": {"text": {"type": "text"}, "image": {"type": "image"}}},
            "filter": {"tables": {"paths": "@metadata"}, "experiments": experiments},
        }
        text = json.dumps(facts).replace("@metadata", str(folder / "metadata"))
        config = check(json.loads(text.replace("@assets", str(folder / "assets"))))
        Engine(Workspace(config.workspace), config.run, Console(quiet=True)).run(build(config))
        found[name] = table.sort_by("uid"), folder / "work"
    return found


def kept_of(work: Path, table: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    subset = np.load(work / f"selections/{slug(name)}/subset.npy")
    pairs = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in table["uid"].to_pylist()], SUBSET_DTYPE)
    kept = np.isin(pairs, subset)
    assert np.array_equal(pairs[kept], subset)
    return kept


@pytest.mark.parametrize("path", [p for p in LISTED if rules_of(JOBS[p])])
def test_datacomps_own_code_keeps_the_same(published: dict[str, tuple[pa.Table, Path]], path: str) -> None:
    pool, name = path.split("/")
    table, work = published[pool]
    with np.load(FOLDER / "kept.npz") as masks:
        golden = np.unpackbits(masks[path], count=table.num_rows).astype(bool)
    ours, job = kept_of(work, table, name), JOBS[path]
    if "fraction" not in job:
        assert np.array_equal(ours, golden)
        return
    # DataComp keeps the row at the index, and its ties, besides; nothing where that row has no score.
    column = table[f"clip_{job['arch']}_similarity_score"].fill_null(float("nan"))
    scores = np.asarray(column, np.float64)
    order = best_first(scores)
    index = int(len(scores) * job["fraction"])
    assert golden.sum() == (0 if index >= len(order) else (scores >= scores[order[index]]).sum())
    if golden.any():
        assert not (ours & ~golden).any()
        assert set(scores[golden & ~ours]) <= {scores[order[index]]}
