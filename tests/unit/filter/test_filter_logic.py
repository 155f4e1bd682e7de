from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.rules.logic import Truth, combine, conjuncts, decided_by, has_not, truth_of, written

NAMES = ("a", "b", "c", "d")
VERDICT = st.sampled_from([True, False, None])


def keeps() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.sampled_from(NAMES),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
            inner.map(lambda part: {"not": part}),
        ),
        max_leaves=6,
    )


def possible(keep: Any, row: dict[str, bool]) -> bool:
    """Two-valued logic, in Python."""
    if isinstance(keep, str):
        return row[keep]
    ((word, inner),) = keep.items()
    if word == "not":
        return not possible(inner, row)
    return (all if word == "all" else any)(possible(part, row) for part in inner)


def kleene(keep: Any, row: dict[str, bool | None]) -> bool | None:
    if isinstance(keep, str):
        return row[keep]
    ((word, inner),) = keep.items()
    if word == "not":
        value = kleene(inner, row)
        return None if value is None else not value
    values = [kleene(part, row) for part in inner]
    decisive = word == "any"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def truths(rows: list[dict[str, bool | None]]) -> dict[str, Truth]:
    return {n: truth_of(pa.array([r[n] for r in rows], pa.bool_())) for n in NAMES}


def as_values(truth: Truth) -> list[bool | None]:
    assert not (truth.passed & truth.failed).any()
    return [True if p else False if f else None for p, f in zip(truth.passed, truth.failed, strict=True)]


@given(keeps(), st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, VERDICT)), max_size=8))
def test_combinations_are_kleenes(keep: Any, rows: list[dict[str, bool | None]]) -> None:
    assert as_values(combine(keep, truths(rows))) == [kleene(keep, row) for row in rows]


@given(keeps(), st.fixed_dictionaries(dict.fromkeys(NAMES, VERDICT)))
def test_a_missing_value_keeps_a_row_only_where_it_cannot_matter(
    keep: Any, row: dict[str, bool | None]
) -> None:
    if combine(keep, truths([row])).passed[0]:
        for bits in range(16):
            filled = {n: bool(bits >> i & 1) if row[n] is None else bool(row[n]) for i, n in enumerate(NAMES)}
            assert possible(keep, filled)


def test_not_of_missing_is_no_pass() -> None:
    verdicts = truths([dict.fromkeys(NAMES, None)])
    assert as_values(combine({"not": "a"}, verdicts)) == [None]
    assert as_values(combine({"not": {"not": "a"}}, verdicts)) == [None]


@given(keeps())
def test_conjuncts_together_are_the_combination(keep: Any) -> None:
    assert not any(isinstance(part, dict) and "all" in part for part in conjuncts(keep))
    rows = [
        dict(zip(NAMES, values, strict=True))
        for values in np.array(np.meshgrid(*[[True, False, None]] * 4)).reshape(4, -1).T.tolist()
    ]
    whole = combine(keep, truths(rows))
    parts = combine({"all": conjuncts(keep)}, truths(rows))
    assert as_values(whole) == as_values(parts)


@given(keeps(), st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, VERDICT)), max_size=8))
def test_decided_by(keep: Any, rows: list[dict[str, bool | None]]) -> None:
    verdicts = truths(rows)
    kept = combine(keep, verdicts).passed
    for name in NAMES:
        expected = [
            kleene(keep, row) is not True
            and True in (kleene(keep, {**row, name: True}), kleene(keep, {**row, name: False}))
            for row in rows
        ]
        assert decided_by(name, keep, verdicts, kept).tolist() == expected


@pytest.mark.parametrize(
    ("keep", "text", "negated"),
    [
        ("a", "a", False),
        ({"all": ["a", {"any": ["b", "c"]}]}, "all(a, any(b, c))", False),
        ({"any": ["a", {"not": "b"}]}, "any(a, not(b))", True),
    ],
)
def test_written(keep: Any, text: str, negated: bool) -> None:
    assert written(keep) == text
    assert has_not(keep) is negated


@given(st.lists(st.lists(st.sampled_from([True, False, None]), max_size=20), max_size=4), st.integers(0, 9))
def test_a_column_of_conditions_is_three_masks(parts: list[list[bool | None]], start: int) -> None:
    column = pa.chunked_array(parts, pa.bool_()).slice(start)
    truth = truth_of(column)
    for mask, value in ((truth.passed, True), (truth.failed, False), (truth.missing, None)):
        assert mask.dtype == bool
        assert mask.tolist() == [each is value for each in column.to_pylist()]
