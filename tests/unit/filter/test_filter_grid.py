"""A grid keeps at every point what the same experiment keeps alone, and counts it right."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from curate.cli import app
from curate.config.filters import Experiment
from curate.config.filters.grid import Grid
from curate.config.loading import check, dump
from curate.config.models import RunSettings
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.selections import Selection
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.engine.stage import Outcome
from curate.errors import UserError
from curate.filter import grid as grid_module
from curate.filter.grid import GridStage
from curate.filter.grid_counts import Counting
from curate.filter.grid_files import Comparison, read_comparison
from curate.filter.stages import grid_stages
from curate.inspect.grid_text import print_comparison
from curate.inspect.status import read_status
from curate.pipeline import build
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORER,
    Row,
    commit,
    cut_in_shards,
    run_experiment,
    uid_from,
    write_pool,
)
from tests.unit.rules.test_rules_experiments import pool_of, some_rows
from tests.unit.rules.test_rules_oracle import ROWS, TYPES, experiments

Experiments = dict[str, dict[str, Any]]


def stage_of(grid: Mapping[str, Any], experiments: Mapping[str, Any], name: str = "g") -> GridStage:
    checked = {n: Experiment.model_validate(e) for n, e in experiments.items()}
    return GridStage(name, Grid.model_validate(grid), checked, (MODEL,), (SCORER,))


def run_grid(
    workspace: Workspace, grid: Mapping[str, Any], experiments: Mapping[str, Any] | None = None
) -> Outcome:
    """Run as the engine does, with its check of the sums and its record."""
    stage = stage_of(grid, experiments or {})
    (unit,) = stage.units(workspace)
    outcome = stage.run(workspace, unit)
    assert outcome.rows_in == outcome.rows_out + sum(outcome.drops.values())
    commit(workspace, stage.name, unit.name, list(outcome.outputs), unit.inputs, stage.settings)
    return outcome


def selected(workspace: Workspace, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in workspace.read_table(layout.selection_file(name, "counts.parquet")).to_pylist():
        table = Selection(workspace, name).read(row["shard"])
        found |= dict(zip(table["uid"].to_pylist(), table["repeats"].to_pylist(), strict=True))
    return found


def check_comparison(found: Comparison, alone: list[dict[str, int]], rows: list[Row]) -> None:
    """The stored comparison against the selections of single runs."""
    by_uid = {row["uid"]: row for row in rows}
    table = found.table.to_pylist()
    assert found.rows == len(rows)
    assert found.any == len(set().union(*alone))
    assert [row["kept"] for row in table] == [len(kept) for kept in alone]
    assert [row["total"] for row in table] == [sum(kept.values()) for kept in alone]
    assert found.overlap.tolist() == [[len(a.keys() & b.keys()) for b in alone] for a in alone]
    for i, kept in enumerate(alone):
        assert table[i]["share"] == (len(kept) / len(rows) if rows else 0)
        assert found.languages[i] == Counter(by_uid[uid]["text_lang"] or "unknown" for uid in kept)
        for column in found.means:
            values = [by_uid[uid][column] for uid in kept]
            values = [v for v in values if v is not None and not math.isnan(v)]
            mean = table[i][f"mean_{column}"]
            expected = sum(values) / len(values) if values else math.nan
            assert (mean is None) == math.isnan(expected)
            assert mean is None or mean == pytest.approx(expected)


class Recorded(Counting):
    """Keeps what it is told."""

    masks: ClassVar[list[np.ndarray[Any, Any]]] = []

    def add(self, kept: Any, columns: Any, languages: Any) -> None:
        self.masks.append(kept)
        super().add(kept, columns, languages)


@st.composite
def relatives(draw: st.DrawFn) -> Experiments:
    """Experiments that share some rules, names and combinations, and differ in others."""
    drawn = [draw(experiments())[0] for _ in range(draw(st.integers(1, 3)))]
    found = {f"e{i}": e for i, e in enumerate(drawn)}
    for i, base in enumerate(drawn):
        other = draw(st.sampled_from(drawn))
        swapped = {
            n: other["rules"].get(n, r) if draw(st.booleans()) else r for n, r in base["rules"].items()
        }
        found[f"s{i}"] = {**base, "rules": swapped}
    return found


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 4), relatives())
def test_every_point_is_what_the_experiment_is_alone(
    rows: list[Row], shards: int, experiments: Experiments
) -> None:
    rows = sorted(rows, key=lambda r: r["uid"])
    with tempfile.TemporaryDirectory() as folder:
        workspace = write_pool(Path(folder), cut_in_shards(rows, shards), TYPES)
        for name, config in experiments.items():
            run_experiment(workspace, name, config)
        alone = [selected(workspace, name) for name in experiments]
        Recorded.masks = []
        with mock.patch.object(grid_module, "Counting", Recorded):
            run_grid(workspace, {"experiments": list(experiments)}, experiments)
        masks = np.concatenate([np.zeros((len(alone), 0), bool), *Recorded.masks], axis=1)
        for mine, mask in zip(alone, masks, strict=True):
            assert [row["uid"] for row, kept in zip(rows, mask, strict=True) if kept] == sorted(mine)
        check_comparison(read_comparison(workspace, "g"), alone, rows)
        assert set(workspace.folders("selections")) == set(experiments)


GRID: dict[str, Any] = {
    "over": {"t": [0.1, 0.3], "f": [0.2, 0.5, 1.0]},
    "rules": {
        "clip": {"score": "similarity", "min": "$t"},
        "english": "text_lang = 'en'",
        "best": {"top": "text_score", "fraction": "$f"},
        "draw": {"sample": "uniform", "fraction": 0.9},
        "unused": {"dedup": "text"},
    },
    "keep": {"then": ["english", {"any": ["clip", "best"]}, "draw"]},
}


class TestGrid:
    def test_points_as_experiments_to_paste(self, tmp_path: Path) -> None:
        rows = some_rows(200)
        workspace = pool_of(tmp_path, rows)
        run_grid(workspace, {**GRID, "means": ["text_cluster", "similarity"]})
        found = read_comparison(workspace, "g")
        points = yaml.safe_load(workspace.read_bytes(layout.grid_file("g", "points.yaml")))
        assert list(points)[:2] == ["g_0_1_0_2", "g_0_1_0_5"]
        assert points["g_0_1_0_2"]["description"] == "t=0.1,f=0.2"
        check({"filter": {"experiments": points}})
        for name, config in points.items():
            run_experiment(workspace, name, config)
        check_comparison(found, [selected(workspace, name) for name in points], rows)
        assert found.table["point"].to_pylist()[1] == "t=0.1,f=0.5"
        assert found.table["t"].to_pylist() == [0.1, 0.1, 0.1, 0.3, 0.3, 0.3]
        assert found.parameters == ("t", "f")
        assert found.means == ("text_cluster", "similarity")
        assert found.overlap[0, 0] > 0

    def test_what_rules_cut_at(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(50))
        grid = {"over": {"n": [1, 10]}, "rules": {"best": {"top": "text_score", "count": "$n"}}}
        run_grid(workspace, grid)
        found = read_comparison(workspace, "g")
        scores = sorted((r["text_score"] for r in some_rows(50)), reverse=True)
        assert found.thresholds == ("at_best_threshold",)
        assert found.table["at_best_threshold"].to_pylist() == [scores[0], scores[9]]
        assert found.means == ("similarity", "text_score")
        assert found.table.schema.field("n").type == pa.int64()

    def test_repeats_count(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(60))
        grid = {
            "over": {"a": [0.1, 2.0], "lang": ["en", "de"]},
            "rules": {
                "soft": {"soft_cap": "text_score", "count": 200, "batch": 5, "alpha": "$a"},
                "lang": "text_lang = '$lang'",
            },
        }
        run_grid(workspace, grid)
        points = yaml.safe_load(workspace.read_bytes(layout.grid_file("g", "points.yaml")))
        for name, config in points.items():
            run_experiment(workspace, name, config)
        alone = [selected(workspace, name) for name in points]
        check_comparison(read_comparison(workspace, "g"), alone, some_rows(60))
        assert sum(alone[0].values()) > len(alone[0])

    def test_a_point_may_build_on_a_selection(self, tmp_path: Path) -> None:
        rows = some_rows(100)
        workspace = pool_of(tmp_path, rows)
        config = {
            "basic": {"rules": {"l": "text_lang = 'en'"}},
            "more": {"rules": {"b": {"experiment": "basic"}, "s": "similarity > 0.2"}},
        }
        run_experiment(workspace, "basic", config["basic"])
        run_experiment(workspace, "more", config["more"])
        grid = {
            "over": {"t": [0.2, 0.3]},
            "rules": {"b": {"experiment": "basic"}, "s": "similarity > $t"},
            "experiments": ["more"],
        }
        (unit,) = stage_of(grid, config).units(workspace)
        assert layout.selection_file("basic", "subset.npy") in [ref.path for ref in unit.inputs]
        run_grid(workspace, grid, config)
        found = read_comparison(workspace, "g")
        assert found.table["point"].to_pylist() == ["t=0.2", "t=0.3", "more"]
        kept = found.table["kept"].to_pylist()
        assert kept[0] == kept[2] == len(selected(workspace, "more")) > kept[1] > 0
        assert found.table["t"].to_pylist() == [0.2, 0.3, None]

    def test_the_same_bytes_for_any_shards(self, tmp_path: Path) -> None:
        rows = some_rows(300)
        answers = []
        for shards in (1, 7):
            workspace = pool_of(tmp_path / str(shards), rows, shards)
            refs = run_grid(workspace, GRID).outputs
            answers.append({ref.path: ref.digest for ref in refs})
        assert answers[0] == answers[1]
        assert len(answers[0]) == 6

    def test_rules_that_say_the_same_are_one(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(50))
        outcome = run_grid(workspace, GRID)
        # 2 thresholds, the language, 3 fractions of English rows, and the draw behind each of 6.
        assert outcome.stats == {"points": 6, "rules": 2 + 1 + 3 + 6}

    def test_nothing_to_compare_without_samples(self, tmp_path: Path) -> None:
        assert list(stage_of(GRID, {}).units(Workspace(str(tmp_path)))) == []


class TestErrors:
    @pytest.mark.parametrize(
        ("grid", "message"),
        [
            (
                {"over": {"t": [1]}, "rules": {"r": {"score": "similarty", "min": "$t"}}},
                r"filter\.grids\.g\[t=1\]\.rules\.r: unknown column 'similarty'; did you mean",
            ),
            (
                {"over": {"c": ["text_score", "text_lang"]}, "rules": {"r": {"top": "$c", "count": 1}}},
                r"filter\.grids\.g\[c=text_lang\]\.rules\.r: 'text_lang' is VARCHAR, not a number",
            ),
            (
                {"over": {"t": [1]}, "rules": {"r": "similarity > $t"}, "means": ["text_skore"]},
                r"filter\.grids\.g\.means: unknown column 'text_skore'; did you mean text_score",
            ),
            (
                {"over": {"t": [1]}, "rules": {"r": "similarity > $t"}, "means": ["text_lang"]},
                r"filter\.grids\.g\.means: 'text_lang' is string, not a number",
            ),
            (
                {"over": {"t": [1]}, "rules": {"missing_score": "similarity > $t"}},
                r"filter\.grids\.g\[t=1\]\.rules\.missing_score: .* another name",
            ),
        ],
    )
    def test_what_cannot_be_compiled(self, tmp_path: Path, grid: Any, message: str) -> None:
        workspace = pool_of(tmp_path, some_rows(5))
        with pytest.raises(UserError, match=message):
            list(stage_of(grid, {}).units(workspace))

    def test_a_row_on_which_a_point_fails(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(50))
        grid = {"over": {"c": ["text_score", "text"]}, "rules": {"r": "CAST($c AS DOUBLE) > 0"}}
        with pytest.raises(UserError, match=r"g\[c=text\]\.rules\.r: fails on a row .*TRY_CAST"):
            run_grid(workspace, grid)
        assert not workspace.exists("selections/grid-g")


def test_frozen_experiments_are_compared_with_what_they_are_frozen_to(tmp_path: Path) -> None:
    rules = {
        "best": {"top": "text_score", "fraction": 0.4},
        "cap": {"cap": "text_cluster", "at_most": 9, "highest": "similarity"},
    }
    there, here = pool_of(tmp_path / "a", some_rows(150, 1)), pool_of(tmp_path / "b", some_rows(100))
    run_experiment(there, "then", {"rules": rules})
    frozen = {"rules": rules, "frozen": there.url}
    experiments = {"then": frozen, "now": {"rules": rules}}
    for name, config in experiments.items():
        run_experiment(here, name, config)
    files = {path: here.read_bytes(path) for path in here.sizes("selections/then")}
    run_grid(here, {"experiments": ["then", "now"]}, experiments)
    alone = [selected(here, name) for name in experiments]
    check_comparison(read_comparison(here, "g"), alone, some_rows(100))
    assert alone[0] != alone[1]
    assert files == {path: here.read_bytes(path) for path in here.sizes("selections/then")}
    stage = stage_of({"experiments": ["then"]}, experiments)
    digest = stage.settings["points"]["then"]["frozen"]
    run_experiment(there, "then", {"rules": {**rules, "best": {"top": "text_score", "fraction": 0.5}}})
    with pytest.raises(UserError, match=r"filter\.experiments\.then\.frozen: .*was another one there"):
        stage_of({"experiments": ["then"]}, experiments)
    assert len(digest) == 32


def config_of(workspace: Workspace, **sections: Any) -> Any:
    models = {MODEL: {"model": "demo"}}
    scorers = {SCORER: {"type": "text"}}
    return check(
        {"workspace": workspace.url, "embed": {"models": models}, "score": {"scorers": scorers}, **sections}
    )


def printed(workspace: Workspace, width: int = 200) -> str:
    stream = io.StringIO()
    print_comparison(Console(width=width, file=stream), workspace, read_comparison(workspace, "g"))
    return stream.getvalue()


class TestRuns:
    def test_done_again_when_something_changed_and_shown_always(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(80))
        experiments = {
            "basic": {"rules": {"l": "text_lang = 'en'"}},
            "other": {"rules": {"x": "similarity > 0"}},
        }
        rules = {"b": {"experiment": "basic"}, "c": "similarity > $t"}
        grids = {"g": {"over": {"t": [0.1, 0.2]}, "rules": rules}}
        config = config_of(workspace, filter={"experiments": experiments, "grids": grids})
        stages = grid_stages(config)
        assert [s.name for s in stages] == ["filter/basic", "filter-grid/g"]
        assert [s.name for s in build(config, ("filter",))] == ["filter/basic", "filter/other"]
        texts = []
        for _ in range(2):
            Engine(workspace, RunSettings(), Console(quiet=True)).run(grid_stages(config))
            texts.append(RecordStore(workspace).read("filter-grid/g", "all").finished)
        assert texts[0] == texts[1]
        (step,) = (s for s in read_status(workspace) if s.verb == "filter-grid")
        found = read_comparison(workspace, "g")
        assert (step.rows_in, step.rows_out) == (80, found.any)
        assert step.drops == {"not_selected": 80 - found.any}

        grids["g"]["over"] = {"t": [0.1, 0.3]}
        config = config_of(workspace, filter={"experiments": experiments, "grids": grids})
        Engine(workspace, RunSettings(), Console(quiet=True)).run(grid_stages(config))
        assert read_comparison(workspace, "g").table["t"].to_pylist() == [0.1, 0.3]

    def test_a_config_without_grids_compares_its_experiments(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(40))
        experiments = {"a": {"rules": {"l": "text_lang = 'en'"}}, "b": {"rules": {"x": "similarity > 0"}}}
        config = config_of(workspace, filter={"experiments": experiments})
        (stage,) = grid_stages(config)
        assert stage.name == "filter-grid/experiments"
        with pytest.raises(UserError, match=r"--only: no grid named 'x' \(grids: experiments\)"):
            grid_stages(config, ["x"])
        with pytest.raises(UserError, match="nothing to compare"):
            grid_stages(config_of(workspace))

    def test_on_the_command_line(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(80))
        grid = {"over": {"t": [0.1, 0.2]}, "rules": {"c": "similarity > $t"}}
        filters = {"experiments": {"a": {"rules": {"x": "similarity > 0"}}}, "grids": {"g": grid, "h": grid}}
        path = tmp_path / "my.yaml"
        path.write_text(dump(config_of(workspace, filter=filters)))
        for _ in range(2):
            result = CliRunner().invoke(app, ["filter", str(path), "--grid", "--only", "h"])
            assert result.exit_code == 0
            assert "t=0.1" in result.stdout
            assert "grids/h" in result.stdout
        assert not workspace.exists("grids/g")
        assert not workspace.exists("selections")
        preview = CliRunner().invoke(app, ["filter", str(path), "--grid", "--dry-run"])
        assert (preview.exit_code, preview.stdout) == (0, "")
        for arguments, message in (
            (["--only", "h"], "no experiment named 'h'"),
            (["--grid", "--frozen", "x"], "do not go together"),
            (["--grid", "--only", "x"], "no grid named 'x'"),
        ):
            result = CliRunner().invoke(app, ["filter", str(path), *arguments])
            assert message in str(result.exception)

    def test_what_is_printed(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(200))
        run_grid(workspace, GRID)
        text = printed(workspace)
        found = read_comparison(workspace, "g")
        assert "6 points over 200 rows" in text
        for row in found.table.to_pylist():
            assert f"{row['point']}" in text
            assert f"{row['kept']:,}" in text
        assert f"{found.jaccard()[0, 5]:.0%}" in text
        assert "en 100%" in text
        assert "points.yaml" in text

    @pytest.mark.parametrize("width", [20, 40, 80, 200])
    def test_no_figure_is_cut_short(self, tmp_path: Path, width: int) -> None:
        workspace = pool_of(tmp_path, some_rows(200))
        run_grid(workspace, GRID)
        found = read_comparison(workspace, "g")
        text = printed(workspace, width)
        assert "…" not in text
        for row in found.table.to_pylist():
            (line,) = (x for x in text.splitlines() if x.lstrip().startswith(row["point"]))
            assert line.split()[1] == f"{row['kept']:,}"
        if width < 80:
            assert "both keep" not in text
            assert "how they overlap: overlap.npy" in text
        else:
            assert "of what either keeps, both keep" in text
            (line,) = (x for x in text.splitlines() if x.lstrip().startswith("1 t=0.1"))
            assert line.split()[2:] == [f"{share:.0%}" for share in found.jaccard()[0]]

    def test_one_is_singular(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(1))
        run_grid(workspace, {"over": {"t": [0.1]}, "rules": {"c": "similarity > $t"}})
        assert "1 point over 1 row;" in printed(workspace)

    def test_many_points_and_none_that_keeps(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(30))
        run_grid(
            workspace, {"over": {"t": {"from": 1, "to": 20, "step": 1}}, "rules": {"c": "similarity > $t"}}
        )
        found = read_comparison(workspace, "g")
        assert "overlap.npy" in printed(workspace)
        assert found.any == 0
        assert np.isnan(found.jaccard()).all()
        assert found.table["mean_similarity"].null_count == 20


POINTS = st.integers(1, 70)


@settings(max_examples=60, deadline=None)
@given(POINTS, st.lists(st.integers(0, 40), max_size=3), st.booleans(), st.integers(0, 2**32 - 1))
def test_counting(points: int, sizes: list[int], alike: bool, seed: int) -> None:
    """Batches of rows against sums over single rows, with few sets of points and with many."""
    draw = np.random.default_rng(seed)
    counting = Counting(points, 2)
    kept, values, spoken = [], [], []
    with mock.patch("curate.filter.grid_counts._SETS", 8):
        for size in sizes:
            mask = draw.random((points, size)) < 0.5
            mask = np.repeat(mask[:1], points, axis=0) if alike else mask
            columns = draw.choice([math.nan, math.inf, -1.5, 0.25, 3.0], (2, size))
            languages = [draw.choice(["en", "de", ""]) if draw.random() < 0.8 else None for _ in range(size)]
            counting.add(mask, columns, pa.chunked_array([languages], pa.string()))
            kept.append(mask)
            values.append(columns)
            spoken += [language or ("unknown" if language is None else "") for language in languages]
    mask = np.concatenate([np.zeros((points, 0), bool), *kept], axis=1)
    columns = np.concatenate([np.zeros((2, 0)), *values], axis=1)
    totals = counting.totals()
    assert (totals.rows, totals.any) == (mask.shape[1], int(mask.any(axis=0).sum()))
    assert totals.kept.tolist() == mask.sum(axis=1).tolist()
    assert totals.overlap.tolist() == (mask.astype(int) @ mask.T.astype(int)).tolist()
    for point in range(points):
        for i in range(2):
            present = columns[i][mask[point] & ~np.isnan(columns[i])]
            assert totals.values[point, i] == len(present)
            assert totals.sums[point, i] == present.sum()
        mine = Counter(language for language, here in zip(spoken, mask[point], strict=True) if here)
        assert {name: n for name, c in totals.languages.items() if (n := int(c[point]))} == mine


def test_languages_beyond_number_are_counted_as_one() -> None:
    counting = Counting(1, 0)
    names = [f"l{i}" for i in range(400)]
    for part in (names, names[::-1], names):
        counting.add(np.ones((1, 400), bool), np.zeros((0, 400)), pa.chunked_array([part]))
    languages = counting.totals().languages
    assert len(languages) == 256
    assert languages["l7"].tolist() == [3]
    assert languages["other"].tolist() == [3 * 145]


PAGE = (Path(__file__).parents[3] / "docs" / "grids.md").read_text()
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_of_the_page_run(number: int, tmp_path: Path) -> None:
    filters = check(BLOCKS[number]).filter
    rows = [{**row, "sha256": row["text"], "width": 300, "height": 200} for row in some_rows(60)]
    types = {**TYPES, "text_length": pa.int64()}
    workspace = write_pool(
        tmp_path, cut_in_shards([{**r, "text_length": len(r["text"])} for r in rows], 2), types
    )
    for name, grid in filters.grids.items():
        stage = GridStage(name, grid, filters.experiments, (MODEL,), (SCORER,))
        (unit,) = stage.units(workspace)
        assert stage.run(workspace, unit).rows_out > 0
        written = {path.rsplit("/", 1)[-1] for path in workspace.sizes(f"grids/{name}")}
        assert {f"`{file}`" for file in written} == set(re.findall(r"^\| (`.*?`) \|", PAGE, re.M))
        page = workspace.read_bytes(layout.grid_file(name, "index.html")).decode()
        for point in stage.points:
            assert f">{point.name}<" in page
        assert ("<polyline" in page) == (name != "all")
        assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("rule", [{"top": "score", "fraction": "$f"}, {"score": "score", "min": "$f"}])
@pytest.mark.parametrize("more", [{}, {"unique": {"dedup": "text", "highest": "score"}}])
def test_published_tables(tmp_path: Path, rule: dict[str, Any], more: dict[str, Any]) -> None:
    """Rows in no order, some of them without a uid."""
    draw = np.random.default_rng(0)
    rows = {
        "uid": ["no uid" if i % 10 == 3 else uid_from(int(draw.integers(2**62))) for i in range(200)],
        "text": [f"text {i % 90}" for i in range(200)],
        "lang": ["en" if i % 3 else "de" for i in range(200)],
        "score": draw.integers(0, 20, 200) / 20,
    }
    (tmp_path / "published").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "published" / "a.parquet", row_group_size=64)
    grid = {"over": {"f": [0.2, 0.5]}, "rules": {"best": rule, **more}}
    sections: dict[str, Any] = {
        "workspace": str(tmp_path / "work"),
        "filter": {"tables": {"paths": str(tmp_path / "published")}, "grids": {"g": grid}},
    }
    workspace = Workspace(sections["workspace"])
    Engine(workspace, RunSettings(), Console(quiet=True)).run(grid_stages(check(sections)))
    found = read_comparison(workspace, "g")
    sections["filter"]["experiments"] = yaml.safe_load(
        workspace.read_bytes(layout.grid_file("g", "points.yaml"))
    )
    Engine(workspace, RunSettings(), Console(quiet=True)).run(build(check(sections), ("filter",)))
    subsets = [set(np.load(tmp_path / "work" / f"selections/g_0_{n}/subset.npy").tolist()) for n in (2, 5)]
    assert found.overlap.tolist() == [[len(a & b) for b in subsets] for a in subsets]
    assert found.rows == 200
    assert 0 < found.overlap[0, 1] < found.any < 200
    assert set(found.languages[0]) == {"en", "de"}


def test_the_policy_of_the_page_blocks_nothing_of_it(tmp_path: Path) -> None:
    rows = [{"uid": uid_from(i << 110), "similarity": i / 100, "text_score": i % 7} for i in range(100)]
    workspace = write_pool(tmp_path, cut_in_shards(rows, 2), TYPES)
    run_grid(
        workspace, {"over": {"t": [0.1, 0.5, 0.9]}, "rules": {"clip": {"score": "similarity", "min": "$t"}}}
    )
    page = workspace.read_bytes(layout.grid_file("g", "index.html")).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for name, source in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy
    # With digests alone a policy lets no element have a style or a handler of its own.
    assert not re.search(r"<[^>]*\s(style|on[a-z]+)=", page)
    cells = re.findall(r'<td class="s(\d+)( dark)?" title="[^"]*">(\d+)</td>', page)
    assert [int(step) for step, _, _ in cells] == [round(int(share) / 5) for _, _, share in cells]
    assert len(cells) == 9
    assert {int(step) for step, _, _ in cells} >= {20}
    for step, _, _ in cells:
        assert f".s{step} {{ --share: {5 * int(step)}%; }}" in page
