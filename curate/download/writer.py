"""The tar, the table and the counters of a shard, in img2dataset's layout."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset.tars import TarWriter
from curate.download.reasons import status_of
from curate.download.resize import Picture
from curate.reasons import DownloadReason

ROWS_PER_GROUP = 8_192
"""Rows of a row group, and at most so many in memory."""

_RESULTS = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
        ("reason", pa.string()),
        ("bytes", pa.int64()),
    ]
)
"""What this stage adds to a candidate."""

_RESERVED = frozenset(_RESULTS.names) | {"caption"}


def stored_name(column: str) -> str:
    """Name in the image table of a candidate column.

    ``text`` is ``caption`` there. A source's own column that has the name of one of ours (DataComp
    carries a ``sha256``) becomes ``source_<name>``.
    """
    if column == "text":
        return "caption"
    return f"source_{column}" if column in _RESERVED else column


def table_schema(candidates: pa.Schema) -> pa.Schema:
    """Schema of the image table for candidates of a schema: their columns, then ours."""
    fields = [pa.field(stored_name(f.name), f.type, metadata=f.metadata) for f in candidates]
    return pa.schema([*fields, *_RESULTS])


class ShardWriter:
    """Writes rows in the order they come.

    Args:
        tar: path of the tar to write.
        table: path of the parquet to write.
        candidates: schema of the candidates.
        extension: of image members, without the dot.
    """

    def __init__(self, tar: Path, table: Path, candidates: pa.Schema, extension: str) -> None:
        self.schema = table_schema(candidates)
        self.extension = extension
        self.count = 0
        self.successes = 0
        self.stored_bytes = 0
        self.drops: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self._stream: IO[bytes] = tar.open("wb")
        self._tar = TarWriter(self._stream)
        self._table = pq.ParquetWriter(table, self.schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                self._tar.close()
        finally:
            self._table.close()
            self._stream.close()

    def write(
        self, candidate: Mapping[str, Any], picture: Picture | None, error: str, reason: DownloadReason | None
    ) -> None:
        """Append one candidate with its picture, or with the reason why it has none."""
        row = {stored_name(name): value for name, value in candidate.items()}
        uid = str(row["uid"])
        status = status_of(reason)
        row |= {
            "key": uid,
            "status": status,
            "error_message": error or None,
            "width": picture and picture.width,
            "height": picture and picture.height,
            "original_width": picture and picture.original_width,
            "original_height": picture and picture.original_height,
            "exif": picture and picture.exif,
            "sha256": picture and picture.sha256,
            "reason": reason and str(reason),
            "bytes": picture and len(picture.data),
        }
        self.count += 1
        self.statuses[status] += 1
        self.messages[error or status] += 1
        if reason is not None:
            self.drops[str(reason)] += 1
        if picture is not None:
            self.successes += 1
            self.stored_bytes += len(picture.data)
            self._tar.add(f"{uid}.{self.extension}", picture.data)
            self._tar.add(f"{uid}.json", json_line(row))
            self._tar.add(f"{uid}.txt", str(row.get("caption") or "").encode())
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def stats(self, started: float, ended: float) -> dict[str, Any]:
        """img2dataset's counters; times in seconds since the epoch."""
        return {
            "count": self.count,
            "successes": self.successes,
            "failed_to_download": self.statuses["failed_to_download"],
            "failed_to_resize": self.statuses["failed_to_resize"],
            "duration": ended - started,
            "start_time": started,
            "end_time": ended,
            "status_dict": dict(sorted(self.messages.items())),
        }

    def _flush(self) -> None:
        if self._rows:
            self._table.write_table(
                pa.Table.from_pylist(self._rows, self.schema), row_group_size=ROWS_PER_GROUP
            )
            self._rows.clear()


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as the JSON object beside its image; NaN and infinities are null, dates are text."""
    try:
        return json.dumps(row, default=str, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(row), default=str, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value
