from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.uid import from_halves
from curate.rules.account.explain import verdict
from tests.unit.filter.filter_oracle import (
    Whole,
    at_least,
    dedup,
    either,
    judge,
    number,
    row_rule,
    top,
    wider_than_high,
)
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORER,
    Row,
    cut_in_shards,
    kept_uids,
    run_experiment,
    uid_from,
    write_pool,
)

SCORES = st.sampled_from([None, math.nan, -0.0, 0.0, 0.125, 0.25, 0.5, -1.0, math.inf, -math.inf])
# Uids near each other and far apart: shards of very uneven sizes, some of them empty.
HALF = 2**127
UIDS = st.one_of(st.integers(0, 40), st.integers(0, 2**128 - 1), st.integers(HALF, HALF + 40)).map(uid_from)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "uid": UIDS,
            "similarity": SCORES,
            "text_score": SCORES,
            "text_lang": st.sampled_from([None, "en", "de"]),
            "text": st.sampled_from([None, "", "a", "b"]),
            "sha256": st.sampled_from([None, "x", "y", "z"]),
            "width": st.sampled_from([None, 0, 1, 2, 3]),
            "height": st.sampled_from([None, 0, 1, 2]),
        }
    ),
    max_size=40,
    unique_by=lambda r: r["uid"],
)

WHERE: list[tuple[Any, Whole]] = [
    ("similarity >= 0.25", at_least("similarity", 0.25)),
    (
        "width >= 2 or text_score >= 0.125",
        either(at_least("width", 2), at_least("text_score", 0.125)),
    ),
    ({"where": "width / height > 1"}, row_rule(wider_than_high)),
    ("TEXT_LANG = 'en'", row_rule(lambda r: None if r["text_lang"] is None else r["text_lang"] == "en")),
    ("text_score IS NULL", row_rule(lambda r: number(r["text_score"]) is None)),
    ("length(text) > 0", row_rule(lambda r: None if r["text"] is None else len(r["text"]) > 0)),
]


@st.composite
def tops(draw: st.DrawFn) -> tuple[Any, Whole]:
    column = draw(st.sampled_from(["similarity", "text_score"]))
    times = draw(st.sampled_from([1, 2]))
    fraction = draw(st.sampled_from([0.001, 0.1, 0.29, 0.3, 0.5, 0.7, 1.0]))
    lowest = draw(st.booleans())
    expression = column if times == 1 else f"{column} * {times}"
    rule = {"top": expression, "fraction": fraction, "lowest": lowest}
    return rule, top(lambda r: None if number(r[column]) is None else r[column] * times, fraction, lowest)


@st.composite
def dedups(draw: st.DrawFn) -> tuple[Any, Whole]:
    keys = draw(st.sampled_from([["sha256"], ["text_lang", "width"], ["similarity"], ["text"]]))
    highest = draw(st.sampled_from([None, "similarity", "text_score", "width"]))
    return {"dedup": keys, "highest": highest}, dedup(keys, highest)


@st.composite
def experiments(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Whole]]:
    kinds = draw(st.lists(st.one_of(st.sampled_from(WHERE), tops(), dedups()), min_size=1, max_size=4))
    names = [f"r{i}" for i in range(len(kinds))]
    rules = {n: k[0] for n, k in zip(names, kinds, strict=True)}
    oracle = {n: k[1] for n, k in zip(names, kinds, strict=True)}
    tree = st.recursive(
        st.sampled_from(names),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda p: {"all": p}),
            st.lists(inner, min_size=1, max_size=3).map(lambda p: {"any": p}),
            inner.map(lambda p: {"not": p}),
        ),
        max_leaves=5,
    )
    keep = draw(st.one_of(st.none(), st.permutations(names).map(lambda p: {"all": p}), tree))
    return {"rules": rules, "keep": keep}, oracle


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 4), experiments())
def test_everything_is_as_the_oracle_says(
    rows: list[Row], shards: int, drawn: tuple[dict[str, Any], dict[str, Whole]]
) -> None:
    config, oracle = drawn
    experiment = Experiment.model_validate(config)
    expected = judge(rows, oracle, experiment.combination())
    with tempfile.TemporaryDirectory() as folder:
        workspace = write_pool(Path(folder), cut_in_shards(rows, shards))
        outcome = run_experiment(workspace, "e", config)
        assert kept_uids(workspace, "e") == expected.kept
        assert outcome.drops == expected.reasons
        assert (outcome.rows_in, outcome.rows_out) == (len(rows), len(expected.kept))

        subset = np.load(Path(folder) / layout.selection_file("e", "subset.npy"))
        assert from_halves(subset).to_pylist() == expected.kept if len(subset) else not expected.kept

        check_funnel(workspace.read_json(layout.selection_file("e", "funnel.json")), expected, len(rows))
        for row in rows[:2]:
            said = verdict(workspace, "e", experiment, (MODEL,), (SCORER,), row["uid"])
            order = sorted(r["uid"] for r in rows).index(row["uid"])
            assert said.reason == expected.why[row["uid"]]
            assert said.kept == (said.reason is None)
            words = {True: "pass", False: "fail", None: "missing"}
            assert {r.rule: r.result for r in said.rules} == {
                name: words[v[order]] for name, v in expected.verdicts.items()
            }


def check_funnel(funnel: dict[str, Any], expected: Any, rows: int) -> None:
    assert funnel["rows_in"] == rows == funnel["kept"] + sum(funnel["reasons"].values())
    assert funnel["kept"] == funnel["total"] == len(expected.kept)
    assert funnel["reasons"] == expected.reasons
    left = rows
    for step in funnel["sequence"]:
        assert step["rows_in"] == left
        assert 0 <= step["of_these_missing"] <= step["dropped"]
        left -= step["dropped"]
        assert step["left"] == left
    assert left == funnel["kept"]
    missing = sum(s["of_these_missing"] for s in funnel["sequence"])
    assert missing == funnel["reasons"].get("missing_score", 0)
    for facts in funnel["rules"]:
        verdicts = expected.verdicts[facts["rule"]]
        assert facts["passed"] == verdicts.count(True)
        assert facts["failed"] == verdicts.count(False)
        assert facts["missing"] == verdicts.count(None)
        assert facts["rows_in"] == rows == facts["passed"] + facts["failed"] + facts["missing"]
        assert facts["dropped_alone"] == rows - facts["passed"]
        if facts["in_keep"]:
            assert facts["uniquely_dropped"] == expected.unique.get(facts["rule"], 0)


@settings(max_examples=15, deadline=None)
@given(ROWS, experiments())
def test_how_rows_are_cut_into_shards_changes_nothing(
    rows: list[Row], drawn: tuple[dict[str, Any], dict[str, Whole]]
) -> None:
    answers = []
    for shards in (1, 3, 16):
        with tempfile.TemporaryDirectory() as folder:
            workspace = write_pool(Path(folder), cut_in_shards(rows, shards))
            run_experiment(workspace, "e", drawn[0])
            funnel = workspace.read_bytes(layout.selection_file("e", "funnel.json"))
            learned = workspace.read_bytes(layout.selection_file("e", "learned.json"))
            subset = workspace.read_bytes(layout.selection_file("e", "subset.npy"))
            answers.append((kept_uids(workspace, "e"), funnel, learned, subset))
    assert answers[0] == answers[1] == answers[2]
