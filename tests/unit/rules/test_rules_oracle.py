"""Every kind of rule, in random combinations, against plain Python."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.selections import Selection
from curate.dataset.uid import from_halves
from curate.dataset.workspace import Workspace
from curate.rules.account.explain import verdict
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORER,
    Row,
    cut_in_shards,
    run_experiment,
    uid_from,
    write_pool,
)
from tests.unit.rules import rules_oracle as oracle

TYPES = {
    "text_score": pa.float64(),
    "text_lang": pa.string(),
    "text_hash": pa.uint64(),
    "text_cluster": pa.int32(),
}
SCORES = st.sampled_from([None, math.nan, -0.0, 0.0, 0.125, 0.25, 0.5, -1.0, 2.0, math.inf, -math.inf])
HALF = 2**127
UIDS = st.one_of(st.integers(0, 40), st.integers(0, 2**128 - 1), st.integers(HALF, HALF + 40)).map(uid_from)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "uid": UIDS,
            "similarity": SCORES,
            "text_score": SCORES,
            "text_lang": st.sampled_from([None, "en", "de", "fr"]),
            "text": st.sampled_from([None, "", "a", "b"]),
            "text_hash": st.sampled_from([None, 0, 1, 3, 7, 15, 2**63, 2**63 + 1, 2**64 - 1, 2**64 - 2]),
            "text_cluster": st.sampled_from([None, 0, 1, 2, -5]),
        }
    ),
    max_size=40,
    unique_by=lambda r: r["uid"],
)
NUMBERS = st.sampled_from(["similarity", "text_score"])
GROUPS = st.sampled_from(["text_lang", "text_cluster", "text"])
SHARES = st.one_of(
    st.sampled_from([0.001, 0.1, 0.29, 0.3, 0.5, 0.7, 1.0]).map(lambda f: (f, None)),
    st.sampled_from([1, 2, 5, 100]).map(lambda n: (None, n)),
)
PREFERENCES = st.sampled_from(
    [(None, None), ("similarity", None), (None, "text_score"), ("text_cluster", None)]
)
Drawn = tuple[Any, oracle.Rule]
NAMES = ("r0", "r1", "r2", "r3", "r4")


def only(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in rule.items() if v is not None}


def share(rule: dict[str, Any], drawn: tuple[float | None, int | None]) -> dict[str, Any]:
    return only({**rule, "fraction": drawn[0], "count": drawn[1]})


@st.composite
def wheres(draw: st.DrawFn, name: str) -> Drawn:
    column, least = draw(NUMBERS), draw(st.sampled_from([0.0, 0.25]))

    def condition(row: Row) -> bool | None:
        value = oracle.number(row[column])
        return None if value is None else value >= least

    return f"{column} >= {least}", oracle.local(condition)


@st.composite
def scores(draw: st.DrawFn, name: str) -> Drawn:
    column = draw(NUMBERS)
    bounds: dict[str, float] = {}
    for key, values in {
        "min": [-0.5, 0.125],
        "max": [0.25, 2.0],
        "above": [0.0, 0.125],
        "below": [0.5],
        "min_quantile": [0.0, 0.29, 0.5],
        "max_quantile": [0.5, 0.7, 1.0],
    }.items():
        if draw(st.booleans()):
            bounds[key] = draw(st.sampled_from(values))
    bounds = bounds or {"min": 0.0}
    return {"score": column, **bounds}, oracle.score(column, bounds)


@st.composite
def tops(draw: st.DrawFn, name: str) -> Drawn:
    column, (fraction, count), lowest = draw(NUMBERS), draw(SHARES), draw(st.booleans())
    by = draw(st.one_of(st.none(), GROUPS))
    of = "left" if by else draw(st.sampled_from(["left", "pool"]))
    rule = share({"top": column, "lowest": lowest, "by": by, "of": of}, (fraction, count))
    return rule, oracle.top(column, fraction, count, lowest, by, of)


@st.composite
def dedups(draw: st.DrawFn, name: str) -> Drawn:
    keys = draw(st.sampled_from([["text"], ["text_lang", "text_cluster"], ["similarity"]]))
    highest, lowest = draw(PREFERENCES)
    return only({"dedup": keys, "highest": highest, "lowest": lowest}), oracle.dedup(keys, highest, lowest)


@st.composite
def nears(draw: st.DrawFn, name: str) -> Drawn:
    distance = draw(st.integers(0, 3))
    highest, lowest = draw(PREFERENCES)
    rule = only({"near": "text_hash", "distance": distance, "highest": highest, "lowest": lowest})
    return rule, oracle.near("text_hash", distance, highest, lowest)


@st.composite
def memberships(draw: st.DrawFn, name: str) -> Drawn:
    column, values = draw(
        st.sampled_from(
            [
                ("text_lang", ["en", "xx"]),
                ("text_cluster", [0, -5, 9]),
                ("uid", [uid_from(3), uid_from(HALF)]),
            ]
        )
    )
    inside = draw(st.booleans())

    def condition(row: Row) -> bool | None:
        return None if row[column] is None else (row[column] in values) == inside

    return {"in" if inside else "not_in": column, "values": values}, oracle.local(condition)


@st.composite
def frequencies(draw: st.DrawFn, name: str) -> Drawn:
    column = draw(st.sampled_from(["text", "text_lang", "text_cluster"]))
    at_most, at_least = draw(st.sampled_from([(1, None), (3, None), (None, 2), (6, 3)]))
    rule = only({"frequency": column, "at_most": at_most, "at_least": at_least})
    return rule, oracle.frequency(column, at_most, at_least)


@st.composite
def caps(draw: st.DrawFn, name: str) -> Drawn:
    column, at_most, seed = draw(GROUPS), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    highest, lowest = draw(PREFERENCES)
    rule = only({"cap": column, "at_most": at_most, "seed": seed, "highest": highest, "lowest": lowest})
    return rule, oracle.grouped(column, lambda _: at_most, highest, lowest, oracle.salted(name, seed))


@st.composite
def equals(draw: st.DrawFn, name: str) -> Drawn:
    column, seed = draw(GROUPS), draw(st.integers(0, 3))
    highest, lowest = draw(PREFERENCES)
    rule = only({"equal": column, "seed": seed, "highest": highest, "lowest": lowest})
    return rule, oracle.grouped(column, min, highest, lowest, oracle.salted(name, seed))


@st.composite
def samples(draw: st.DrawFn, name: str) -> Drawn:
    weight, seed = draw(st.one_of(st.none(), NUMBERS)), draw(st.integers(0, 3))
    fraction, count = draw(SHARES)
    rule = share({"sample": weight or "uniform", "seed": seed}, (fraction, count))
    return rule, oracle.sample(weight, fraction, count, oracle.salted(name, seed))


@st.composite
def soft_caps(draw: st.DrawFn, name: str) -> Drawn:
    column, draws = draw(NUMBERS), draw(st.sampled_from([None, 1, 17]))
    batch = draw(st.sampled_from([1, 3, 50]))
    rule = only({"soft_cap": column, "count": draws, "alpha": 0.4, "batch": batch})
    return rule, oracle.soft_cap(column, draws, 0.4, batch, oracle.salted(name, 0))


@st.composite
def hard_caps(draw: st.DrawFn, name: str) -> Drawn:
    column, draws = draw(NUMBERS), draw(st.sampled_from([None, 1, 17, 200]))
    at_most = draw(st.integers(1, 4))
    rule = only({"hard_cap": column, "count": draws, "at_most": at_most})
    return rule, oracle.hard_cap(column, draws, at_most, oracle.salted(name, 0))


KINDS: list[Callable[[str], st.SearchStrategy[Drawn]]] = [
    wheres,
    scores,
    tops,
    dedups,
    nears,
    memberships,
    frequencies,
    caps,
    equals,
    samples,
    soft_caps,
    hard_caps,
]


@st.composite
def trees(draw: st.DrawFn, names: tuple[str, ...]) -> Any:
    """A combination in which each name stands once."""
    if len(names) == 1:
        leaf: Any = names[0]
        return {"not": leaf} if draw(st.sampled_from([False, False, True])) else leaf
    cuts = sorted(draw(st.sets(st.integers(1, len(names) - 1), min_size=1)))
    parts = [draw(trees(names[a:b])) for a, b in zip([0, *cuts], [*cuts, len(names)], strict=True)]
    tree = {draw(st.sampled_from(["all", "any", "then", "then"])): parts}
    return {"not": tree} if draw(st.sampled_from([False, False, False, True])) else tree


@st.composite
def experiments(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, oracle.Rule]]:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    drawn = {name: draw(draw(st.sampled_from(KINDS))(name)) for name in names}
    used = draw(st.permutations(names))[: draw(st.integers(1, len(names)))]
    keep = draw(st.one_of(st.none(), trees(tuple(used)), trees(tuple(used))))
    rules = {n: rule for n, (rule, _) in drawn.items()}
    return {"rules": rules, "keep": keep}, {n: meaning for n, (_, meaning) in drawn.items()}


def selected(workspace: Workspace) -> dict[str, int]:
    """uid → repeats, checked against the counts."""
    found: dict[str, int] = {}
    counts = workspace.read_table(layout.selection_file("e", "counts.parquet")).to_pylist()
    for row in counts:
        table = Selection(workspace, "e").read(row["shard"])
        assert (table.num_rows, sum(table["repeats"].to_pylist())) == (row["kept"], row["total"])
        found |= dict(zip(table["uid"].to_pylist(), table["repeats"].to_pylist(), strict=True))
    return found


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(1, 4), experiments())
def test_everything_is_as_the_oracle_says(
    rows: list[Row], shards: int, drawn: tuple[dict[str, Any], dict[str, oracle.Rule]]
) -> None:
    config, rules = drawn
    experiment = Experiment.model_validate(config)
    expected = oracle.Experiment(rules, experiment.combination(), rows)
    with tempfile.TemporaryDirectory() as folder:
        workspace = write_pool(Path(folder), cut_in_shards(rows, shards), TYPES)
        outcome = run_experiment(workspace, "e", config)
        assert selected(workspace) == expected.kept
        assert outcome.drops == expected.reasons
        assert (outcome.rows_in, outcome.rows_out) == (len(rows), len(expected.kept))
        subset = np.load(Path(folder) / layout.selection_file("e", "subset.npy"))
        multiset = [uid for uid in sorted(expected.kept) for _ in range(expected.kept[uid])]
        assert (from_halves(subset).to_pylist() if len(subset) else []) == multiset

        funnel = workspace.read_json(layout.selection_file("e", "funnel.json"))
        check_funnel(funnel, expected, experiment.combination(), len(rows))
        words = {True: "pass", False: "fail", None: "missing"}
        for i, row in enumerate(expected.rows[:2]):
            said = verdict(workspace, "e", experiment, (MODEL,), (SCORER,), row["uid"])
            assert (said.reason, said.kept) == (expected.why[i], expected.why[i] is None)
            results = {r.rule: r.result for r in said.rules}
            assert results == {name: words[v[i][0]] for name, v in expected.verdicts.items()}


def check_funnel(funnel: dict[str, Any], expected: oracle.Experiment, keep: Any, rows: int) -> None:
    assert funnel["rows_in"] == rows == funnel["kept"] + sum(funnel["reasons"].values())
    assert funnel["kept"] == len(expected.kept)
    assert funnel["total"] == sum(expected.kept.values())
    left = rows
    for step in funnel["sequence"]:
        assert step["rows_in"] == left
        left -= step["dropped"]
        assert step["left"] == left
    assert left == funnel["kept"]
    for facts in funnel["rules"]:
        verdicts = [v for v, _ in expected.verdicts[facts["rule"]]]
        assert facts["rows_in"] == expected.reached[facts["rule"]]
        assert facts["passed"] == verdicts.count(True)
        assert facts["failed"] == verdicts.count(False)
        assert facts["rows_in"] == facts["passed"] + facts["failed"] + facts["missing"]
        assert facts["dropped_alone"] == facts["rows_in"] - facts["passed"]
        if facts["in_keep"]:
            assert facts["uniquely_dropped"] == expected.uniquely_dropped(keep, facts["rule"])


@settings(max_examples=15, deadline=None)
@given(ROWS, experiments())
def test_how_rows_are_cut_into_shards_changes_nothing(
    rows: list[Row], drawn: tuple[dict[str, Any], dict[str, oracle.Rule]]
) -> None:
    answers = []
    for shards in (1, 3, 16):
        with tempfile.TemporaryDirectory() as folder:
            workspace = write_pool(Path(folder), cut_in_shards(rows, shards), TYPES)
            outcome = run_experiment(workspace, "e", drawn[0])
            own = [r.path for r in outcome.outputs if "_" in r.path.rsplit("/", 1)[-1]]
            files = [layout.selection_file("e", f) for f in ("funnel.json", "learned.json", "subset.npy")]
            answers.append((selected(workspace), [workspace.read_bytes(p) for p in files + own]))
    assert answers[0] == answers[1] == answers[2]
