"""Sorting candidates by uid, and exact dedup. Pure: Arrow in, Arrow out."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

SURVIVOR_ORDER = ("uid", "page_url", "source", "url", "text", "title", "licence")
"""Among rows of one uid the first in this order survives, so that no input order matters."""


def sort_by_uid(table: pa.Table) -> pa.Table:
    """Rows in uid order; within a uid in ``SURVIVOR_ORDER``, NULL last."""
    keys = [(name, "ascending") for name in SURVIVOR_ORDER if name in table.column_names]
    return table.take(pc.sort_indices(table, sort_keys=keys))


def drop_duplicates(table: pa.Table) -> tuple[pa.Table, int, int]:
    """The first row of each uid of a sorted table.

    Returns:
        The rows kept, how many had the same text and URL as the row kept, and how many only the
        same uid: ``md5(text + url)`` has no separator, so ("a", "bhttp…") and ("ab", "http…") meet.
    """
    rows = table.num_rows
    if rows < 2:
        return table, 0, 0
    uid = table["uid"].combine_chunks()
    same = pc.equal(uid[1:], uid[:-1])
    first = pa.concat_arrays([pa.array([True]), pc.invert(same)])
    if pc.sum(same).as_py() in (0, None):
        return table, 0, 0
    kept = table.filter(first)
    survivor = pc.subtract(pc.cumulative_sum(pc.cast(first, pa.int64())), 1)
    like = pc.and_(
        pc.equal(table["url"], kept["url"].take(survivor)),
        pc.equal(table["text"], kept["text"].take(survivor)),
    )
    collisions = rows - int(pc.sum(pc.cast(like, pa.int64())).as_py())
    return kept, rows - kept.num_rows - collisions, collisions
