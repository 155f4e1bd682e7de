"""The account of an experiment by the values of a column, in memory that does not grow with the pool."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import UserError
from curate.rules.logic import Copies
from curate.samples.columns import Column, need

LISTED = 50
"""Values that have an entry of their own."""

KNOWN = 65_536
"""Different values that are counted; those that turn up later are counted together."""

LONGEST = 300
"""Characters of a value; longer ones are counted together."""

PLACE = "filter.account_by"
_UNKNOWN, _OTHER, _FIRST = 0, 1, 2
"""Rows of the counts: without a value, not counted one by one, and where the known values begin."""

Fates = npt.NDArray[np.unsignedinteger[Any]]
"""What became of each row: 0 it is kept, else the number of why it is not."""


class Breakdown:
    """For each value of one column: rows, what is kept of them, and why the others are not.

    Values are known in the order in which the pool has them first, up to ``KNOWN``, and counted from
    their first row to the last: so counts are exact, and shards and batches change nothing. Rows lie in
    the order of their uids, which are hashes: a value that is missed because so many others come before
    it is a rare one (of one row in 2,000 it is missed with a chance of 1e-14).

    Args:
        fates: how many there are, kept included.
    """

    def __init__(self, fates: int) -> None:
        self._values: pa.Array | None = None
        self._counts = np.zeros((_FIRST, fates), np.int64)
        self._totals = np.zeros(_FIRST, np.int64)
        self._more = False

    def add(self, column: pa.ChunkedArray, fates: Fates, times: Copies | None = None) -> None:
        """Count rows.

        Args:
            column: their values, n; of a type that is ``countable``.
            fates: shape (n,).
            times: how often each row is there, int64, shape (n,), 0 for a row that is not kept; None: each
                that is kept once.
        """
        values = column.combine_chunks()
        if not pa.types.is_dictionary(values.type):
            places = self._places(values)
            self._count(slice(None), *self._sums(places, len(self._counts), fates, times))
            return
        # Most often a few languages: they are looked up once, and not at every row.
        none = len(values.dictionary)
        found, totals = self._sums(np.asarray(values.indices.fill_null(none)), none + 1, fates, times)
        used = np.flatnonzero(found[:none].any(axis=1))
        places = self._places(values.dictionary.take(pa.array(used)))
        self._count(places, found[used], totals[used])
        self._count(np.array([_UNKNOWN]), found[none:], totals[none:])

    def _sums(
        self, numbers: npt.NDArray[np.integer], size: int, fates: Fates, times: Copies | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each number its rows by fate, shape (size, fates), and how often they are there."""
        kinds = self._counts.shape[1]
        keys = np.multiply(numbers, kinds, dtype=np.int64) + fates
        found = np.bincount(keys, minlength=size * kinds).reshape(size, kinds)
        return found, found[:, 0] if times is None else np.bincount(numbers, times, size).astype(np.int64)

    def _count(self, places: Any, found: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]) -> None:
        # Several values may have the place of those that are not counted one by one.
        np.add.at(self._counts, places, found)
        np.add.at(self._totals, places, totals)

    def _places(self, values: pa.Array) -> npt.NDArray[np.int64]:
        """The row of the counts for each value; new ones get one while there is room."""
        if self._values is None:
            self._values = pa.array([], values.type)
        index = pc.index_in(values, value_set=self._values)
        if index.null_count > values.null_count:
            new = values.filter(pc.and_(pc.is_null(index), pc.is_valid(values)))
            if self._learn(new):
                index = pc.index_in(values, value_set=self._values)
        if index.null_count == values.null_count:
            return np.asarray(index.fill_null(_UNKNOWN - _FIRST)).astype(np.int64) + _FIRST
        self._more = True
        places = np.asarray(index.fill_null(_OTHER - _FIRST)).astype(np.int64) + _FIRST
        places[np.asarray(values.is_null())] = _UNKNOWN
        return places

    def _learn(self, values: pa.Array) -> bool:
        """Whether there was room for any of these values."""
        room = KNOWN - (len(self._counts) - _FIRST)
        new = _short(pc.unique(values))[:room] if room else ()
        if not len(new):
            return False
        self._values = pa.concat_arrays([self._values, new])
        self._counts = _longer(self._counts, len(new))
        self._totals = _longer(self._totals, len(new))
        return True

    def facts(self, reasons: Sequence[str]) -> dict[str, Any]:
        """Plain JSON values, see ``docs/filters.md``.

        Args:
            reasons: of the fates from 1 on; several may have the same.
        """
        values: list[str] = [] if self._values is None else self._values.cast(pa.string()).to_pylist()
        rows = self._counts.sum(axis=1)
        order = sorted(range(len(values)), key=lambda i: (-rows[i + _FIRST], values[i]))
        listed = np.array(order[:LISTED], np.int64) + _FIRST
        rest = np.array([*order[LISTED:], _OTHER - _FIRST], np.int64) + _FIRST
        return {
            "values": [{"value": values[i - _FIRST], **self._entry([i], reasons)} for i in listed],
            "other": {"values": None if self._more else len(rest) - 1, **self._entry(rest, reasons)},
            "unknown": self._entry([_UNKNOWN], reasons),
        }

    def _entry(self, places: Any, reasons: Sequence[str]) -> dict[str, Any]:
        counts = self._counts[places].sum(axis=0)
        dropped: dict[str, int] = {}
        for reason, n in zip(reasons, counts[1:].tolist(), strict=True):
            if n:
                dropped[reason] = dropped.get(reason, 0) + n
        return {
            "rows_in": int(counts.sum()),
            "kept": int(counts[0]),
            "total": int(self._totals[places].sum()),
            "reasons": dict(sorted(dropped.items())),
        }


def _short(values: pa.Array) -> pa.Array:
    """Those that are not too long a text."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return values
    return values.filter(pc.less_equal(pc.utf8_length(values), LONGEST))


def _longer(counts: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    return np.concatenate([counts, np.zeros((rows, *counts.shape[1:]), np.int64)])


def account_columns(
    asked: Sequence[str] | None, read: Collection[str], columns: dict[str, Column]
) -> tuple[str, ...]:
    """The columns that the account of an experiment is broken down by.

    Args:
        asked: their names, in any case; None: those of languages and sources that the rules read anyway.
        read: names of the columns that the rules read.
        columns: all there are.

    Raises:
        UserError: there is no such column, or its values cannot be counted.
    """
    if asked is None:
        return tuple(c for c in sorted(read) if _is_usual(c) and countable(columns[c].type))
    found = dict.fromkeys(_stored(name, columns) for name in asked)
    spelled = {c.lower(): c for c in read}
    for name in found:
        if not countable(columns[name].type):
            raise UserError(
                f"{PLACE}: column '{name}' is {columns[name].type}; only text, numbers, dates and "
                "true or false can be counted"
            )
        twin = spelled.setdefault(name.lower(), name)
        if twin != name:
            raise UserError(
                f"{PLACE}: columns '{twin}' and '{name}' differ in case only, which SQL does not see; "
                "drop one of them at ingest"
            )
    return tuple(found)


def countable(kind: pa.DataType) -> bool:
    """Whether values of a type have a text to be told by."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_date,
        pa.types.is_timestamp,
    )
    return any(test(kind) for test in tests)


def _is_usual(name: str) -> bool:
    return name in ("lang", "source") or name.endswith("_lang")


def _stored(name: str, columns: dict[str, Column]) -> str:
    same = [c for c in columns if c.lower() == name.lower()]
    if name not in columns and len(same) == 1:
        return same[0]
    need(columns, name, PLACE)
    return name
