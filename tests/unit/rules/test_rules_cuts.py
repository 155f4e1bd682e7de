"""A cut is data from the moment a rule is compiled, and nobody has to read it out of a text again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.family import IMAGES
from curate.dataset.workspace import Workspace
from curate.rules.account.run import read_account
from curate.rules.contract import CompiledRule, Compiling
from curate.rules.cuts import MIRRORED, NEGATED, Cut
from curate.rules.sql.expressions import Checker
from curate.samples.columns import Column
from curate.samples.database import Database, open_database
from tests.unit.filter.filter_pool import cut_in_shards, run_experiment, uid_from, write_pool

NUMBERS = ("a", "a_b", "b_b", "width", "SCORE")


def column(name: str, kind: pa.DataType) -> Column:
    return Column(IMAGES, name, kind)


COLUMNS = {
    **{name: column(name, pa.float64()) for name in NUMBERS},
    "text": column("text", pa.string()),
    "t": column("t", pa.struct({"a": pa.float64()})),
    "numbers": column("numbers", pa.list_(pa.float64())),
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with open_database(tmp_path_factory.mktemp("scratch")) as connection:
        yield connection


def compiled(database: Database, rule: Any) -> CompiledRule:
    settings = RULES.validate(rule)
    found: CompiledRule = settings.load_implementation().compile(
        settings, Compiling("r", Checker(database, COLUMNS), "rules.r")
    )
    return found


def cuts(database: Database, rule: Any, learned: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    return [(c.column, c.op, c.value) for c in compiled(database, rule).cuts(learned or {})]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a >= 0.3", [("a", ">=", 0.3)]),
        ("0.3 <= a and a_b<5", [("a", ">=", 0.3), ("a_b", "<", 5.0)]),
        ("width BETWEEN 10 AND 1e3", [("width", ">=", 10.0), ("width", "<=", 1000.0)]),
        ("t.a > 1 or text > 'b'", []),
        ("text != 'a > 3' and abs(a) > 2", []),
        ('"a" > -1.5', [("a", ">", -1.5)]),
        ("a > width", []),
        ("A > 1 AND score < 2", [("a", ">", 1.0), ("SCORE", "<", 2.0)]),
        ("NOT (a > 1 OR width <= 2)", [("a", "<=", 1.0), ("width", ">", 2.0)]),
        ("NOT NOT a > 1", [("a", ">", 1.0)]),
        ("a NOT BETWEEN 1 AND 2", [("a", "<", 1.0), ("a", ">", 2.0)]),
        ("a = 1 AND width <> 2", []),
        ("a > 1_000 AND width < .5", [("a", ">", 1000.0), ("width", "<", 0.5)]),
        ("a > '3' OR a > 3::FLOAT OR a + 0 > 3", []),
        ("len(list_filter(numbers, lambda a: a > 3)) > 0", []),
        ("CASE WHEN text = 'x' THEN a > 1 ELSE width > 2 END", [("a", ">", 1.0), ("width", ">", 2.0)]),
    ],
)
def test_of_conditions(database: Database, sql: str, expected: list[tuple[str, str, float]]) -> None:
    assert cuts(database, sql) == expected


def test_bounds_in_conditions(database: Database) -> None:
    cases: dict[str, tuple[float, bool] | None] = {
        " a>=0.3\n": (0.3, True),
        "3 <= A": (3.0, True),
        '"a" < 5.': (5.0, False),
        "1e-3>a": (0.001, False),
        "a > 1 -- a comment changes nothing": (1.0, True),
        "(a > 1)": (1.0, True),
        "a_b > b_b": None,
        "a > 1 or true": None,
        "a > 1 AND a > 2": None,
        "a BETWEEN 1 AND 2": None,
        "a > 1 + 1": None,
        "t.a > 1": None,
        "a <> 1": None,
        "NOT a > 1": None,
    }
    found = {}
    for sql in cases:
        bound = compiled(database, sql).bound({})
        found[sql] = None if bound is None else (bound.value, bound.above)
    assert found == cases


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a_b", "b_b", "width"]), st.sampled_from(["<", "<=", ">", ">="]),
                  st.decimals(-999, 999, places=2).map(str)),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_what_is_read_without_sql_is_what_duckdb_reads(
    database: Database, parts: list[tuple[str, str, str]]
) -> None:
    plain = " AND ".join(f"{name} {sign} {number}" for name, sign, number in parts)
    parsed = " AND ".join(f"({name}) {sign} ({number})" for name, sign, number in parts)
    one, other = (compiled(database, sql) for sql in (plain, parsed))
    assert one.expressions[0].short is not None
    assert one.cuts({}) == other.cuts({}) == tuple(Cut(n, s, float(x)) for n, s, x in parts)  # type: ignore[arg-type]
    assert one.bound({}) == other.bound({})


def test_of_scores(database: Database) -> None:
    both = {"score": "A", "min": 0.2, "below": 0.5}
    assert cuts(database, both) == [("a", ">=", 0.2), ("a", "<", 0.5)]
    assert compiled(database, both).bound({}) is None
    low = compiled(database, {"score": "a", "min": 0.2, "above": 0.4, "min_quantile": 0.7})
    assert [c.value for c in low.cuts({})] == [0.2, 0.4, None]
    assert low.bound({}) is None
    assert low.bound({"least": 0.3}) == Cut("a", ">", 0.4)
    assert low.bound({"least": 0.6}) == Cut("a", ">=", 0.6)
    assert low.bound({"least": None}) is None
    high = {"score": "a + width", "max_quantile": 0.7}
    assert cuts(database, high, {"most": "inf"}) == [("a + width", "<=", math.inf)]


@pytest.mark.parametrize("of", ["left", "pool"])
def test_of_the_best(database: Database, of: str) -> None:
    rule = {"top": "score", "fraction": 0.3, "of": of}
    assert cuts(database, rule) == [("SCORE", ">=", None)]
    assert cuts(database, rule, {"value": 0.5}) == [("SCORE", ">=", 0.5)]
    assert cuts(database, {**rule, "lowest": True}, {"value": 0.5}) == [("SCORE", "<=", 0.5)]
    assert cuts(database, rule, {"value": None}) == [("SCORE", ">=", None)]


@pytest.mark.parametrize(
    "rule",
    [
        {"top": "a", "fraction": 0.3, "by": "text"},
        {"sample": "a", "fraction": 0.3},
        {"dedup": "a"},
        {"in": "text", "values": ["3"]},
        {"cap": "text", "at_most": 3, "highest": "a"},
        {"soft_cap": "a"},
    ],
)
def test_of_rules_without(database: Database, rule: Any) -> None:
    assert cuts(database, rule) == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"top": "a", "fraction": 0.3}, "the 30 % of all samples with the highest a"),
        (
            {"top": "a + width", "fraction": 0.001, "lowest": True},
            "the 0.1 % of all samples with the lowest a + width",
        ),
        ({"top": "a", "count": 1000}, "the 1,000 samples with the highest a"),
        (
            {"top": "a", "fraction": 0.2, "of": "pool"},
            "as many samples as are 20 % of the pool, those with the highest a",
        ),
        ({"dedup": "text", "highest": "a"}, "one row per text, highest a"),
    ],
)
def test_words(database: Database, rule: Any, words: str) -> None:
    assert compiled(database, rule).words == words


@given(
    st.sampled_from(["<", "<=", ">", ">="]),
    st.one_of(st.none(), st.floats(allow_nan=False)),
)
def test_facts_are_json_that_reads_back(op: Any, value: float | None) -> None:
    cut = Cut("a", op, value)
    assert Cut.from_facts(json.loads(json.dumps(cut.facts(), allow_nan=False))) == cut


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
@pytest.mark.parametrize("x", [1, 2, 3])
def test_operators(op: str, x: int) -> None:
    def holds(sign: str, a: float, b: float) -> bool:
        return bool(eval(f"{a} {sign} {b}"))

    assert holds(op, x, 2) == holds(MIRRORED[op], 2, x) == (not holds(NEGATED[op], x, 2))


def test_the_account_has_them(tmp_path: Path) -> None:
    rows = [{"uid": uid_from(i << 120), "similarity": i / 10, "text_length": i} for i in range(10)]
    workspace = write_pool(tmp_path, cut_in_shards(rows, 2))
    rules = {
        "where": "similarity > 0.15",
        "score": {"score": "TEXT_LENGTH", "min": 2, "max_quantile": 0.9},
        "pool": {"top": "similarity", "fraction": 0.2, "of": "pool"},
        "nothing": {"score": "width", "min_quantile": 0.5},
    }
    run_experiment(workspace, "e", {"rules": rules, "keep": {"then": list(rules)}})
    found = {rule.name: rule.cuts for rule in read_account(workspace, "e").rules}
    assert found["where"] == (Cut("similarity", ">", 0.15),)
    assert found["score"] == (Cut("text_length", ">=", 2.0), Cut("text_length", "<=", 9.0))
    assert found["pool"] == (Cut("similarity", ">=", pytest.approx(0.8)),)
    assert found["nothing"] == (Cut("width", ">=", None),)


def test_an_account_without_cuts_still_reads(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    old = {"rules": [{"rule": "r", "kind": "top", "expression": "highest 0.3 by s", "threshold": 0.5}]}
    workspace.write_json(layout.selection_file("e", "funnel.json"), old)
    (rule,) = read_account(workspace, "e").rules
    assert (rule.cuts, rule.threshold, rule.words) == ((), 0.5, "highest 0.3 by s")
