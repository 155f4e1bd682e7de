"""A sorted copy of a pool, for rules that need its rows in uid order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from curate.samples.database import Database, registered
from curate.samples.pool import Pool, Uids
from curate.samples.tables import NO_UID
from curate.samples.types import plain_type

_SHARD_ROWS = 65_536


@dataclass(frozen=True)
class SortedPool(Pool):
    """Rows in uid order, in one local file that is mapped; each of its batches is a shard.

    Attributes:
        path: the file, an Arrow stream of record batches.
        without_uid, repeated: rows that are not in it: nothing says who they are, or another row has
            their uid (the first in the order of the files stays).
    """

    path: Path
    without_uid: int
    repeated: int

    def read(self, shard: str, names: Sequence[str], uids: Uids = Uids.TEXT) -> pa.Table:
        """The named columns of one batch, ``uid`` first."""
        with pa.memory_map(str(self.path)) as source:
            batch = pa.ipc.open_file(source).get_batch(int(shard))
            return pa.table(batch).select(list(dict.fromkeys(["uid", *names])))

    def _parts(self, names: Sequence[str], uids: Uids) -> Iterator[tuple[str, pa.Table]]:
        return ((shard, self.read(shard, names)) for shard in self.shards)


def in_uid_order(pool: Pool, needed: bool, names: Iterable[str], connection: Database, scratch: Path) -> Pool:
    """The pool itself when it is in uid order or nobody needs that; otherwise a sorted copy.

    Args:
        needed: whether a rule can only look at rows in uid order.
        names: the columns that are read.
    """
    if pool.ordered or not needed:
        return pool
    return sorted_copy(pool, sorted(set(names)), connection, scratch)


def sorted_copy(pool: Pool, names: Sequence[str], connection: Database, scratch: Path) -> SortedPool:
    """The pool with these columns in uid order.

    Memory is DuckDB's limit; the rows are on scratch disk twice.
    """
    rows = 0
    number = "row number"
    while any(number == name.lower() for name in names):
        number += "_"
    verb = "CREATE TEMP TABLE unsorted AS"
    for table in itertools.chain([_empty(pool, names)], (batch.table for batch in pool.scan(names))):
        numbers = pa.array(range(rows, rows + table.num_rows), pa.int64())
        with registered(connection, "samples", table.append_column(number, numbers)):
            connection.execute(f"{verb} SELECT * FROM samples")
        verb = "INSERT INTO unsorted"
        rows += table.num_rows
    path = scratch / "sorted.arrow"
    reader = connection.sql(f'SELECT * FROM unsorted ORDER BY uid, "{number}"').to_arrow_reader(_SHARD_ROWS)
    wanted = [name for name in reader.schema.names if name != number]
    last, shards, kept, without = "", 0, 0, 0
    with pa.OSFile(str(path), "wb") as stream:
        schema = pa.schema([reader.schema.field(name) for name in wanted])
        with pa.ipc.new_file(stream, schema) as writer:
            for part in reader:
                table = pa.Table.from_batches([part]).select(wanted)
                without += pc.sum(pc.equal(table["uid"], NO_UID)).as_py() or 0
                table = _first_of_each(table, last)
                if table.num_rows:
                    last = table["uid"][-1].as_py()
                    writer.write_batch(table.combine_chunks().to_batches()[0])
                    shards, kept = shards + 1, kept + table.num_rows
    connection.execute("DROP TABLE unsorted")
    columns = {n: replace(pool.columns[n], type=schema.field(n).type) for n in wanted}
    names_of = tuple(str(i) for i in range(shards))
    return SortedPool(pool.workspace, names_of, columns, path, without, rows - kept - without)


def _empty(pool: Pool, names: Sequence[str]) -> pa.Table:
    """No rows of these columns: there may be no others."""
    types = {"uid": pa.string()} | {n: plain_type(pool.columns[n].type) for n in names if n != "uid"}
    return pa.table({name: pa.array([], kind) for name, kind in types.items()})


def _first_of_each(table: pa.Table, last: str) -> pa.Table:
    """Without rows that have no uid, or that of the row before."""
    uids = table["uid"].combine_chunks()
    before = pa.concat_arrays([pa.array([last], uids.type), uids[:-1]])
    return table.filter(pc.and_(pc.not_equal(uids, before), pc.not_equal(uids, NO_UID)))
