"""Second half of ingest: the spills of all inputs to shards, each a range of the uid space.

Sorting by uid removes exact duplicates over any number of files and shuffles hosts in one move.
Memory of a worker: the rows of one range, about ``RANGE_ROWS`` (0.5 kB each) and their sorted copy.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from curate.config.models import IngestSettings
from curate.dataset import layout
from curate.dataset.family import CANDIDATES
from curate.dataset.records import RecordStore, inputs_digest
from curate.dataset.uid import lower_bound
from curate.dataset.workspace import FileRef, Workspace, json_bytes
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import DataError, UserError
from curate.ingest.sorting import drop_duplicates, sort_by_uid
from curate.reasons import IngestReason

RANGE_ROWS = 500_000
"""Rows sorted at once, about; the shards of such a range are one unit."""

COUNTED_UIDS = 1_000_000
"""Distinct uids are counted on at most about so many rows and extrapolated beyond (MD5 is even)."""


class IngestStage(Stage):
    """Cuts what was parsed into shards of about ``shard_size`` unique candidates."""

    code_version = 1
    guarded = True

    def __init__(self, settings: IngestSettings, images: bool = True) -> None:
        self.name = "ingest"
        self.images = images
        self.shard_size = settings.shard_size
        self.settings = {"shard_size": settings.shard_size}

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """Ranges of shards. How many shards there are follows from the rows, not from their order."""
        spills, rows = self._spills(workspace)
        if rows == 0:
            raise UserError(
                "ingest: no candidates are left after parsing; see `curate status` for the reasons, "
                "and check ingest.sources and the rules of ingest"
            )
        shards = self._shard_count(workspace, spills, rows)
        per_range = max(1, RANGE_ROWS * shards // rows)
        for first in range(0, shards, per_range):
            last = min(first + per_range, shards)
            name = f"{layout.shard_name(first, shards)}-{layout.shard_name(last - 1, shards)}"
            yield Unit(name, spills, {"first": first, "last": last, "shards": shards})

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Read one uid range from every spill, sort, drop duplicates, write its shards."""
        first, last, shards = (int(unit.payload[k]) for k in ("first", "last", "shards"))
        low, high = lower_bound(first, shards), lower_bound(last, shards)
        parts = [_read_range(workspace, ref.path, low, high) for ref in unit.inputs]
        table = pa.concat_tables(parts, promote_options="permissive")
        rows_in = table.num_rows
        table, duplicates, collisions = drop_duplicates(sort_by_uid(table))
        uid = table["uid"]
        outputs = []
        for shard in range(first, last):
            inside = _between(uid, lower_bound(shard, shards), lower_bound(shard + 1, shards))
            path = CANDIDATES.path(layout.shard_name(shard, shards))
            outputs.append(workspace.write_table(path, table.filter(inside)))
        drops = {IngestReason.DUPLICATE: duplicates, IngestReason.UID_COLLISION: collisions}
        return Outcome(
            outputs=tuple(outputs),
            rows_in=rows_in,
            rows_out=table.num_rows,
            drops={reason.value: n for reason, n in drops.items() if n},
        )

    def finish(self, workspace: Workspace) -> None:
        """Write what turns a uid into a shard."""
        spills, rows = self._spills(workspace)
        shards = self._shard_count(workspace, spills, rows)
        facts = {"shards": shards, "shard_size": self.shard_size, "spills": inputs_digest(spills)}
        if not self.images:  # the candidates themselves are the samples
            facts["images"] = False
        total = sum(r.rows_out for r in RecordStore(workspace).iterate(self.name) if not r.failed)
        workspace.write_if_changed(layout.DATASET, json_bytes({**facts, "candidates": total}))

    def _spills(self, workspace: Workspace) -> tuple[tuple[FileRef, ...], int]:
        records = [r for r in RecordStore(workspace).iterate("parse") if not r.failed]
        refs = sorted((ref for r in records for ref in r.outputs), key=lambda ref: ref.path)
        return tuple(refs), sum(r.rows_out for r in records)

    def _shard_count(self, workspace: Workspace, spills: tuple[FileRef, ...], rows: int) -> int:
        """Distinct candidates over ``shard_size``, rounded; known again from the last run."""
        if workspace.exists(layout.DATASET):
            known = workspace.read_json(layout.DATASET)
            if known["spills"] == inputs_digest(spills) and known["shard_size"] == self.shard_size:
                return int(known["shards"])
        parts = max(1, -(-rows // COUNTED_UIDS))
        high = lower_bound(1, parts)
        seen = [
            _read_range(workspace, ref.path, lower_bound(0, parts), high, ["uid"])["uid"] for ref in spills
        ]
        distinct = pc.count_distinct(
            pa.chunked_array([c for s in seen for c in s.chunks], pa.string())
        ).as_py()
        return max(1, round(int(distinct) * parts / self.shard_size))


def _read_range(
    workspace: Workspace, path: str, low: str, high: str, columns: list[str] | None = None
) -> pa.Table:
    """Rows of a spill with ``low <= uid < high``, reading only the row groups that hold them."""
    try:
        with workspace.parquet(path) as file:
            position = file.schema_arrow.get_field_index("uid")
            groups = []
            for group in range(file.metadata.num_row_groups):
                limits = file.metadata.row_group(group).column(position).statistics
                if limits.min < high and limits.max >= low:
                    groups.append(group)
            table = file.read_row_groups(groups, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{workspace.url}/{path}: cannot be read ({error})") from error
    return table.filter(_between(table["uid"], low, high))


def _between(uid: pa.ChunkedArray, low: str, high: str) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(uid, low), pc.less(uid, high))
