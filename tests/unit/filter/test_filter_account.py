from __future__ import annotations

import itertools
import math
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.filters import Experiment
from curate.config.loading import check
from curate.config.models import PipelineConfig
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.errors import UserError
from curate.filter.stage import FilterStage
from curate.pipeline import build
from curate.rules.account import breakdown
from curate.rules.account.breakdown import Breakdown, account_columns, countable
from curate.samples.columns import Column
from tests.unit.filter.filter_oracle import Answer, judge, number
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORER,
    Row,
    commit,
    cut_in_shards,
    run_experiment,
    stage_of,
    uid_from,
    write_pool,
)
from tests.unit.filter.test_filter_oracle import ROWS, experiments

RULES: dict[str, Any] = {
    "clip": "similarity >= 0.25",
    "lang": "text_lang = 'en'",
    "wide": {"score": "width", "above": 1},
}


def funnel_of(workspace: Workspace, name: str = "e") -> Any:
    return workspace.read_json(layout.selection_file(name, "funnel.json"))


def run_by(
    workspace: Workspace, experiment: Mapping[str, Any], by: Sequence[str] | None, name: str = "e"
) -> Any:
    """Run with the account broken down by some columns; its funnel."""
    stage = FilterStage(
        name, Experiment.model_validate(experiment), (MODEL,), (SCORER,), None if by is None else tuple(by)
    )
    (unit,) = stage.units(workspace)
    outcome = stage.run(workspace, unit)
    commit(workspace, stage.name, unit.name, list(outcome.outputs), unit.inputs, stage.settings)
    return funnel_of(workspace, name)


def check_entry(entry: Mapping[str, Any], rows: Sequence[Row], answer: Answer) -> None:
    fates = Counter(answer.why[r["uid"]] for r in rows)
    assert entry["rows_in"] == len(rows)
    assert entry["kept"] == entry["total"] == fates.pop(None, 0)
    assert entry["reasons"] == dict(sorted(fates.items()))


def check_by(facts: Mapping[str, Any], rows: Sequence[Row], column: str, answer: Answer) -> None:
    """Against one row after the other; fewer values than are listed."""
    texts = {r["uid"]: None if number(r[column]) is None else str(r[column]) for r in rows}
    counts = Counter(t for t in texts.values() if t is not None)
    assert [v["value"] for v in facts["values"]] == sorted(counts, key=lambda t: (-counts[t], t))
    for entry in facts["values"]:
        check_entry(entry, [r for r in rows if texts[r["uid"]] == entry["value"]], answer)
    check_entry(facts["unknown"], [r for r in rows if texts[r["uid"]] is None], answer)
    assert facts["other"] == {"values": 0, "rows_in": 0, "kept": 0, "total": 0, "reasons": {}}


@settings(max_examples=20, deadline=None)
@given(ROWS, experiments(), st.booleans())
def test_the_account_is_as_the_oracle_says(
    rows: list[Row], drawn: tuple[dict[str, Any], dict[str, Any]], many: bool
) -> None:
    config, oracle = drawn
    answer = judge(rows, oracle, Experiment.model_validate(config).combination())
    said = []
    for shards in (1, 5):
        with tempfile.TemporaryDirectory() as folder:
            workspace = write_pool(Path(folder), cut_in_shards(rows, shards))
            said.append(run_by(workspace, config, ["text_lang", "WIDTH", "text"]))
    assert said[0] == said[1]
    names = list(config["rules"])
    drops = [[v is not True for v in answer.verdicts[n]] for n in names]
    assert said[0]["overlap"] == {
        "rules": names,
        "both_drop": [[sum(a and b for a, b in zip(x, y, strict=True)) for y in drops] for x in drops],
    }
    assert list(said[0]["by"]) == ["text_lang", "width", "text"]
    for column, facts in said[0]["by"].items():
        check_by(facts, rows, column, answer)


def some_rows(count: int) -> list[Row]:
    return [
        {
            "uid": uid_from(i * 2**119 + 1),
            "similarity": None if i % 7 == 0 else i % 11 / 20,
            "text_lang": ["en", "de", None][i % 3],
            "width": i % 5,
            "text": f"caption {i}",
            "sha256": f"{i // 2}",
        }
        for i in range(count)
    ]


def pool_of(folder: Path, rows: Sequence[Row], shards: int = 3) -> Workspace:
    return write_pool(folder, cut_in_shards(rows, shards))


def test_a_rule_that_others_come_before_drops_what_reached_it(tmp_path: Path) -> None:
    rows = some_rows(100)
    workspace = pool_of(tmp_path, rows)
    rules = {**RULES, "best": {"top": "similarity", "fraction": 0.5}}
    facts = run_by(workspace, {"rules": rules, "keep": {"then": ["clip", "lang", "best", "wide"]}}, None)
    both = np.array(facts["overlap"]["both_drop"])
    assert (both == both.T).all()
    assert both.diagonal().tolist() == [r["dropped_alone"] for r in facts["rules"]]
    clip = [r["similarity"] is not None and r["similarity"] >= 0.25 for r in rows]
    lang = [r["text_lang"] == "en" for r in rows]
    assert both[0, 1] == sum(not c and not t for c, t in zip(clip, lang, strict=True))
    at = facts["overlap"]["rules"].index("best")
    reached = sum(c and t for c, t in zip(clip, lang, strict=True))
    assert facts["rules"][at]["rows_in"] == reached
    assert both[at].tolist()[:2] == [0, 0]  # what they drop does not reach it
    assert 0 < both[at, at] == reached - reached // 2
    assert 0 < both[at, 2] < both[at, at]


def test_repeats_are_counted_by_value(tmp_path: Path) -> None:
    rows = some_rows(120)
    workspace = pool_of(tmp_path, rows)
    rules = {"lang": "text_lang IS NOT NULL", "draw": {"soft_cap": "width", "count": 300, "batch": 20}}
    facts = run_by(workspace, {"rules": rules, "keep": {"then": ["lang", "draw"]}}, ["text_lang", "width"])
    assert facts["total"] > facts["kept"]
    subset = np.load(tmp_path / layout.selection_file("e", "subset.npy"))
    times = Counter(f"{int(a):016x}{int(b):016x}" for a, b in subset.tolist())
    for entry in facts["by"]["width"]["values"]:
        mine = [times[r["uid"]] for r in rows if str(r["width"]) == entry["value"]]
        assert entry["total"] == sum(mine)
        assert entry["kept"] == sum(t > 0 for t in mine)
    assert facts["by"]["text_lang"]["unknown"] == {
        "rows_in": 40,
        "kept": 0,
        "total": 0,
        "reasons": {"lang": 40},
    }
    for part in facts["by"].values():
        entries = [*part["values"], part["other"], part["unknown"]]
        for key in ("rows_in", "kept", "total"):
            assert sum(e[key] for e in entries) == facts[key]


# ---- values that are many ----------------------------------------------------------------------------------


def broken_down(
    values: Sequence[Any], fates: Sequence[int], cuts: Sequence[int], kind: pa.DataType
) -> dict[str, Any]:
    found = Breakdown(3)
    edges = [0, *sorted(cuts), len(values)]
    for a, b in itertools.pairwise(edges):
        part = pa.chunked_array(
            [pa.array(values[a : (a + b) // 2], kind), pa.array(values[(a + b) // 2 : b], kind)]
        )
        found.add(part, np.array(fates[a:b], np.uint8))
    return found.facts(["failed", "missing_score"])


def slowly(values: Sequence[Any], fates: Sequence[int], known: int, listed: int) -> dict[str, Any]:
    """The first so many different values, counted one row after the other."""

    def entry(rows: Sequence[int]) -> dict[str, Any]:
        mine = Counter(fates[i] for i in rows)
        reasons = {name: mine[fate] for fate, name in ((1, "failed"), (2, "missing_score")) if mine[fate]}
        return {"rows_in": len(rows), "kept": mine[0], "total": mine[0], "reasons": reasons}

    first: list[Any] = []
    for value in values:
        if value is not None and value not in first and len(first) < known and len(str(value)) <= 5:
            first.append(value)
    counts = Counter(v for v in values if v in first)
    order = sorted(first, key=lambda v: (-counts[v], str(v)))
    shown = order[:listed]
    beyond = any(v is not None and v not in first for v in values)
    rest = [i for i, v in enumerate(values) if v is not None and v not in shown]
    return {
        "values": [{"value": str(v), **entry([i for i, w in enumerate(values) if w == v])} for v in shown],
        "other": {"values": None if beyond else len(order) - len(shown), **entry(rest)},
        "unknown": entry([i for i, v in enumerate(values) if v is None]),
    }


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_memory_is_bounded_and_batches_change_nothing(data: st.DataObject) -> None:
    text = st.sampled_from([*"abcdefghij", "", "a text that is too long", "another long text"])
    kind, value = data.draw(
        st.sampled_from(
            [
                (pa.string(), text),
                (pa.large_string(), text),
                (pa.dictionary(pa.int32(), pa.string()), text),
                (pa.int32(), st.integers(-3, 8)),
            ]
        )
    )
    values = data.draw(st.lists(st.none() | value, max_size=60))
    fates = data.draw(st.lists(st.integers(0, 2), min_size=len(values), max_size=len(values)))
    cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=4))
    known, listed = data.draw(st.sampled_from([(1, 1), (4, 2), (4, 9), (100, 3), (100, 100)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breakdown, "KNOWN", known)
        patch.setattr(breakdown, "LISTED", listed)
        patch.setattr(breakdown, "LONGEST", 5)
        assert broken_down(values, fates, cuts, kind) == slowly(values, fates, known, listed)


def test_a_pool_of_many_values_is_counted_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "KNOWN", 1000)
    rng = np.random.default_rng(0)
    found = Breakdown(2)
    for _ in range(10):
        names = [f"often{i % 7}" if i % 2 else f"rare{rng.integers(10**9)}" for i in range(5000)]
        found.add(pa.chunked_array([names]), np.arange(5000, dtype=np.uint8) % 4 // 3)
    assert len(found._values) == 1000
    facts = found.facts(["failed"])
    assert len(facts["values"]) == breakdown.LISTED
    assert {v["value"] for v in facts["values"][:7]} == {f"often{i}" for i in range(7)}
    assert sum(v["rows_in"] for v in facts["values"][:7]) == 25_000
    assert facts["other"]["values"] is None
    entries = [*facts["values"], facts["other"], facts["unknown"]]
    assert sum(e["rows_in"] for e in entries) == 50_000
    assert sum(e["reasons"].get("failed", 0) for e in entries) == 12_500


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ([True, False, True], pa.bool_(), ["true", "false"]),
        ([0.5, 2.0, 0.5], pa.float32(), ["0.5", "2"]),
        ([3, 3, 2**63], pa.uint64(), ["3", str(2**63)]),
        ([1, 0, 0], pa.date32(), ["1970-01-01", "1970-01-02"]),
        (["b", "b", "a"], pa.dictionary(pa.int8(), pa.string()), ["b", "a"]),
    ],
)
def test_values_are_told_by_their_text(values: list[Any], kind: pa.DataType, texts: list[str]) -> None:
    assert countable(kind)
    facts = broken_down(values, [0, 0, 0], [], kind) if not pa.types.is_dictionary(kind) else None
    if facts is None:
        found = Breakdown(3)
        found.add(pa.chunked_array([pa.array(values).dictionary_encode()]), np.zeros(3, np.uint8))
        facts = found.facts(["failed", "missing_score"])
    assert [v["value"] for v in facts["values"]] == texts


# ---- which columns -----------------------------------------------------------------------------------------


def test_without_a_word_languages_and_sources_that_are_read_anyway(tmp_path: Path) -> None:
    workspace = pool_of(tmp_path, some_rows(60))
    assert list(run_by(workspace, {"rules": RULES}, None)["by"]) == ["text_lang"]
    assert run_by(workspace, {"rules": RULES}, [])["by"] == {}
    assert run_by(workspace, {"rules": {"clip": "similarity > 0"}}, None)["by"] == {}
    by_group = {"rules": {"each": {"cap": "text_lang", "at_most": 3}}}
    (facts,) = run_by(workspace, by_group, None)["by"].values()
    assert [v["kept"] for v in facts["values"]] == [3, 3]

    columns = {n: Column("images", n, pa.string()) for n in ("source", "lang", "x_lang", "langs", "url")}
    assert account_columns(None, list(columns), columns) == ("lang", "source", "x_lang")


def test_columns_that_cannot_be_counted_are_user_errors(tmp_path: Path) -> None:
    workspace = pool_of(tmp_path, some_rows(10))
    with pytest.raises(
        UserError, match=r"filter\.account_by: unknown column 'text_lnag'; did you mean text_lang"
    ):
        run_by(workspace, {"rules": RULES}, ["text_lnag"])
    columns = {
        "Lang": Column("images", "Lang", pa.string()),
        "lang": Column("scores/x", "lang", pa.string()),
        "boxes": Column("images", "boxes", pa.list_(pa.int32())),
    }
    with pytest.raises(UserError, match="'boxes' is list"):
        account_columns(["boxes"], [], columns)
    with pytest.raises(UserError, match="differ in case only"):
        account_columns(["Lang"], ["lang"], columns)
    assert account_columns(["Lang", "Lang"], [], columns) == ("Lang",)
    assert account_columns(None, ["boxes"], columns) == ()


def test_a_scorer_that_has_not_run_is_named(tmp_path: Path) -> None:
    workspace = pool_of(tmp_path, some_rows(10))
    experiment = Experiment.model_validate({"rules": {"clip": "similarity > 0"}})
    stage = FilterStage("e", experiment, (MODEL,), (SCORER, "later"), ("later_tag",))
    with pytest.raises(UserError, match=r"not there yet: score/later"):
        stage.units(workspace)


def test_only_the_account_is_told_and_it_is_done_again(tmp_path: Path) -> None:
    workspace = pool_of(tmp_path, some_rows(60))
    experiment = {"rules": {"clip": "similarity >= 0.25"}}
    run_by(workspace, experiment, None)
    folder = tmp_path / "selections/e"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    facts = run_by(workspace, experiment, ["text_lang"])
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {n for n in before if before[n] != after[n]} == {"funnel.json"}
    assert {**facts, "by": {}} == {**funnel_of(workspace), "by": {}}

    one, two = stage_of("e", experiment), stage_of("e", experiment)
    two = FilterStage("e", two.experiment, two.models, two.scorers, ("text_lang",))
    assert one.settings != two.settings
    (unit,) = one.units(workspace)
    (wider,) = two.units(workspace)
    assert {r.path for r in wider.inputs} - {r.path for r in unit.inputs} == {
        Family.scores(SCORER).path(layout.shard_name(i, 3)) for i in range(3)
    }
    assert len(make_plan(two, workspace, RecordStore(workspace)).jobs) == 1


def test_the_setting_reaches_every_experiment() -> None:
    config = PipelineConfig.model_validate(
        {"filter": {"account_by": ["source"], "experiments": {"a": {"rules": RULES}, "b": {"rules": RULES}}}}
    )
    stages = build(config, ["filter"])
    assert [s.settings["account_by"] for s in stages] == [["source"], ["source"]]
    plain = config.model_copy(update={"filter": config.filter.model_copy(update={"account_by": None})})
    assert all("account_by" not in s.settings for s in build(plain, ["filter"]))


def test_the_docs_example_loads() -> None:
    page = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()
    (block,) = re.findall(r"```yaml\n(filter:\n  account_by:.*?)```", page, re.DOTALL)
    config = check(yaml.safe_load(block))
    assert config.filter.account_by == ("text_lang", "source")
    assert len(build(config, ["filter"])) == 1


# ---- thresholds --------------------------------------------------------------------------------------------

ONE_SIDED: list[tuple[Any, str, float, bool]] = [
    ("similarity >= 0.25", "similarity", 0.25, True),
    ("0.25 < SIMILARITY", "similarity", 0.25, True),
    ('"similarity" < -.5e0', "similarity", -0.5, False),
    ({"score": "text_score", "min": 0.125}, "text_score", 0.125, True),
    ({"score": "text_score", "below": 0.5}, "text_score", 0.5, False),
    ({"score": "text_score", "max": 0.25, "below": 0.5}, "text_score", 0.25, False),
    ({"score": "text_score", "min": 0.25, "above": 0.125}, "text_score", 0.25, True),
]
MORE_THAN_A_BOUND: list[Any] = [
    "similarity >= 0.25 and text_score > 0",
    "similarity between 0 and 1",
    "not similarity > 0.5",
    "similarity >= text_score",
    "similarity = 0.25",
    "abs(similarity) > 0.25",
    {"score": "text_score", "min": 0, "max": 1},
]


@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_a_bound_is_told_as_value_and_as_quantile(rows: list[Row]) -> None:
    cases = {f"r{i}": case for i, case in enumerate(ONE_SIDED)}
    others = {f"s{i}": rule for i, rule in enumerate(MORE_THAN_A_BOUND)}
    with tempfile.TemporaryDirectory() as folder:
        workspace = pool_of(Path(folder), rows)
        run_experiment(workspace, "e", {"rules": {**{n: c[0] for n, c in cases.items()}, **others}})
        facts = {r["rule"]: r for r in funnel_of(workspace)["rules"]}
    for name, (_, column, bound, above) in cases.items():
        values = [v for r in rows if (v := number(r[column])) is not None]
        # None of the pool's values is one of the bounds that are exclusive, or it lies on their other side.
        told = facts[name]
        below = told["failed"] if above else told["passed"]
        assert told["threshold"] == bound
        assert told["quantile"] == (below / len(values) if values else None)
        strictly = sum(v < bound for v in values)
        assert strictly <= below <= sum(v <= bound for v in values)
    for name in others:
        assert not {"threshold", "quantile"} & facts[name].keys()


def test_a_quantile_that_was_learned_comes_back(tmp_path: Path) -> None:
    rows = [{"uid": uid_from(i), "text_score": i / 100} for i in range(100)]
    rows += [{"uid": uid_from(1000 + i), "text_score": math.nan} for i in range(30)]
    workspace = pool_of(tmp_path, rows)
    rules = {
        "upper": {"score": "text_score", "min_quantile": 0.7},
        "lower": {"score": "text_score", "max_quantile": 0.4},
        "band": {"score": "text_score", "min_quantile": 0.1, "max_quantile": 0.4},
        "best": {"top": "text_score", "fraction": 0.1},
        "none": {"score": "width", "min_quantile": 0.5},
        "ends": {"score": "text_score", "above": 0.05},
    }
    run_experiment(workspace, "e", {"rules": rules})
    facts = {r["rule"]: r for r in funnel_of(workspace)["rules"]}
    told = {n: (f.get("threshold"), f.get("quantile")) for n, f in facts.items()}
    assert told == {
        "upper": (0.7, 0.7),
        "lower": (0.39, 0.4),
        "band": (None, None),
        "best": (0.87, 0.87),
        "none": (None, None),
        "ends": (0.05, 0.06),
    }
