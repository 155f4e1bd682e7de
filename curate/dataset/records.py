"""Commit records: what was done to a unit, with what, and what came of it.

A unit's outputs count only when its record exists; the record is written last. Records of a
finished stage are folded into one parquet file; a single record beside it is newer and wins.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.errors import DataError

FOLD_AT = 64
"""A finished stage with fewer single records than this is left as it is."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one unit of one stage."""

    stage: str
    unit: str
    key: str
    """Fingerprint of all that decides the outputs: settings, inputs, code version."""
    settings: dict[str, Any]
    code_version: int
    inputs_digest: str
    inputs: list[FileRef]
    """The first few inputs, for reading; ``inputs_digest`` covers all."""
    outputs: list[FileRef]
    rows_in: int
    rows_out: int
    drops: dict[str, int]
    """Reason → rows. ``rows_in == rows_out + sum(drops)``."""
    stats: dict[str, Any] = {}
    seconds: float = 0.0
    finished: str = ""
    """UTC, ISO 8601."""
    version: str = ""
    failed: bool = False
    error: str = ""


class _Made(msgspec.Struct):
    """Of a record only what it made: the quicker to read."""

    unit: str
    outputs: list[FileRef]
    failed: bool = False


_Kind = TypeVar("_Kind", Record, _Made)


class RecordStore:
    """The records of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def write(self, record: Record) -> None:
        """Commit a unit."""
        path = layout.record(record.stage, record.unit)
        self.workspace.write_bytes(path, msgspec.json.encode(record, enc_hook=str) + b"\n")

    def read(self, stage: str, unit: str) -> Record | None:
        """One record, or None."""
        path = layout.record(stage, unit)
        if self.workspace.exists(path):
            return self._read(path, Record)
        return next(self._folded(stage, Record, unit), None)

    def iterate(self, stage: str) -> Iterator[Record]:
        """All records of a stage, in order of unit names; memory is that of the unit names."""
        return self._iterate(stage, Record)

    def _iterate(self, stage: str, kind: type[_Kind]) -> Iterator[_Kind]:
        names = {p.rpartition("/")[2].removesuffix(".json"): p for p in self._single(stage)}
        pending = deque(sorted(names))
        for record in self._folded(stage, kind):
            while pending and pending[0] < record.unit:
                yield self._read(names[pending.popleft()], kind)
            if pending and pending[0] == record.unit:
                yield self._read(names[pending.popleft()], kind)
            else:
                yield record
        for unit in pending:
            yield self._read(names[unit], kind)

    def _single(self, stage: str) -> list[str]:
        """Paths of the records that are not folded."""
        folder = layout.record(stage, "x").rpartition("/")[0]
        return [path for path in self.workspace.sizes(folder) if path.endswith(".json")]

    def _read(self, path: str, kind: type[_Kind]) -> _Kind:
        return self._decode(self.workspace.read_bytes(path), path, kind)

    def _decode(self, text: bytes, path: str, kind: type[_Kind]) -> _Kind:
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.workspace.url}/{path}: not a commit record ({error}); remove it, and what it was the "
                "record of is done again"
            ) from None

    def outputs(self, stage: str) -> dict[str, FileRef]:
        """Path → ref of everything a stage has committed; about 300 bytes of memory a file."""
        return {ref.path: ref for made in self._iterate(stage, _Made) for ref in made.outputs}

    def has_outputs(self, stage: str) -> bool:
        """Whether a stage has committed any file."""
        return any(made.outputs for made in self._iterate(stage, _Made))

    def failed(self, stage: str) -> set[str]:
        """Units that are quarantined."""
        return {made.unit for made in self._iterate(stage, _Made) if made.failed}

    def units(self, stage: str) -> set[str]:
        """Units that have a record, whatever it says; no record is read for it."""
        names = {path.rpartition("/")[2].removesuffix(".json") for path in self._single(stage)}
        path = layout.folded_records(stage)
        if self.workspace.exists(path):
            names.update(self.workspace.read_table(path, ["unit"])["unit"].to_pylist())
        return names

    def remove(self, stage: str, unit: str) -> None:
        """Forget a single record (a folded one must be unfolded first)."""
        self.workspace.remove(layout.record(stage, unit))

    def fold(self, stage: str) -> None:
        """Put all records of a stage into one file. A kill at any point loses none."""
        single = self._single(stage)
        if len(single) < FOLD_AT:
            return
        self._write_folded(stage, self.iterate(stage))
        for path in single:
            self.workspace.remove(path)

    def drop(self, stage: str, units: set[str]) -> None:
        """Forget units, folded or not."""
        path = layout.folded_records(stage)
        if self.workspace.exists(path):
            self._write_folded(stage, (r for r in self._folded(stage, Record) if r.unit not in units))
        for unit in units:
            self.remove(stage, unit)

    def stages(self) -> list[str]:
        """Names of the stages that have records, in no order that matters."""
        root = layout.record("", "").split("//")[0]
        return sorted({path.rsplit("/", 1)[0] for path in self.workspace.below(root)})

    def _folded(self, stage: str, kind: type[_Kind], unit: str | None = None) -> Iterator[_Kind]:
        path = layout.folded_records(stage)
        if not self.workspace.exists(path):
            return
        with self.workspace.parquet(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=["unit", "record"], use_threads=False):
                for name, text in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                    if unit is None or name == unit:
                        yield self._decode(text, path, kind)

    def _write_folded(self, stage: str, records: Iterator[Record]) -> FileRef:
        path = layout.folded_records(stage)
        schema = pa.schema([("unit", pa.string()), ("key", pa.string()), ("record", pa.binary())])
        with self.workspace.writing(path) as temporary:
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                rows: list[dict[str, Any]] = []
                for record in records:
                    text = msgspec.json.encode(record, enc_hook=str)
                    rows.append({"unit": record.unit, "key": record.key, "record": text})
                    if len(rows) == 1024:
                        writer.write_table(pa.Table.from_pylist(rows, schema))
                        rows.clear()
                writer.write_table(pa.Table.from_pylist(rows, schema))
            return ref_of(temporary, path)


def inputs_digest(inputs: tuple[FileRef, ...]) -> str:
    """128-bit digest over paths, sizes and digests, in order."""
    hasher = hashlib.blake2b(digest_size=16)
    for ref in inputs:
        hasher.update(f"{ref.path}\0{ref.size}\0{ref.digest}\n".encode())
    return hasher.hexdigest()
