from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset.workspace import Workspace
from curate.rules.kinds.dedup import KeyTable
from curate.rules.sql.expressions import Checker
from curate.rules.uidfiles import UidFile
from curate.samples.columns import Column
from curate.samples.database import open_database
from tests.unit.filter.filter_pool import uid_from

ROWS = 400_000
COLUMNS = {
    "key": Column("images", "key", pa.string()),
    "rank": Column("scores/s", "rank", pa.float64()),
}


def test_many_duplicates_in_little_memory(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    numbers = draw.integers(0, ROWS // 4, ROWS)
    ranks = draw.integers(0, 3, ROWS).astype(np.float64)
    uids = [uid_from(i * 3) for i in range(ROWS)]
    table = pa.table({"uid": uids, "key": [f"{n:060d}" for n in numbers.tolist()], "rank": ranks})
    workspace = Workspace(str(tmp_path))
    # The keys alone are 24 MB, with uid and hash table several times the limit.
    with workspace.scratch() as scratch, open_database(scratch, 2, "64MB") as connection:
        checker = Checker(connection, COLUMNS)
        keys = KeyTable(
            connection,
            "keys_00",
            [checker.check("key", "place", "key")],
            checker.check("rank", "place", "number"),
        )
        for start in range(0, ROWS, 50_000):
            keys.add(table.slice(start, 50_000))
        ref, rows = keys.write_losers(workspace, "losers.parquet")

    order = np.lexsort((np.arange(ROWS), -ranks, numbers))
    first = np.ones(ROWS, bool)
    first[1:] = numbers[order][1:] != numbers[order][:-1]
    survivor = np.empty(ROWS, np.int64)
    survivor[order] = np.repeat(order[first], np.diff(np.append(np.flatnonzero(first), ROWS)))
    lost = np.flatnonzero(survivor != np.arange(ROWS))
    written = pq.read_table(tmp_path / ref.path)
    assert rows == len(lost) == written.num_rows
    assert written["uid"].to_pylist() == [uids[i] for i in lost]
    assert written["survivor"].to_pylist() == [uids[survivor[i]] for i in lost]

    file = UidFile(workspace, ref.path)
    for first_row, last_row in [(0, 0), (0, ROWS - 1), (lost[65_535], lost[65_536]), (150_000, 220_000)]:
        inside = [uids[i] for i in lost if first_row <= i <= last_row]
        assert file.between(uids[first_row], uids[last_row])["uid"].to_pylist() == inside
    assert file.between("f" * 32, "f" * 32).num_rows == 0
    file.close()


def test_no_rows_give_an_empty_file(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    with workspace.scratch() as scratch, open_database(scratch) as connection:
        keys = KeyTable(connection, "keys_00", [Checker(connection, COLUMNS).check("key", "p", "key")], None)
        ref, rows = keys.write_losers(workspace, "losers.parquet")
    assert rows == 0
    file = UidFile(workspace, ref.path)
    assert file.between("0", "f").num_rows == 0
    file.close()
