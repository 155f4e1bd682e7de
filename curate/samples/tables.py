"""A pool that is nothing but parquet files, as they were published: no workspace has seen their rows.

Rows come as they lie in the files, so that a filter of columns reads these columns and nothing else. Rules
that need the rows in uid order get a sorted copy (``curate.samples.sorting``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.config.scorers.base import ScorerSettings
from curate.config.tables import TableSettings
from curate.dataset.external import open_parquet
from curate.dataset.family import TABLES, Family
from curate.dataset.listing import listed
from curate.dataset.uid import HALVES, from_halves, uid_of, usable_halves
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError, UserError
from curate.samples.columns import Column, need
from curate.samples.derived import Derived, compute, derived_facts, derived_of
from curate.samples.pool import Pool, Uids, cast_whole, nan_to_null
from curate.samples.types import plain_type, scan_type

PLACE = "filter.tables"
NO_UID = "0" * 32
"""Stands for whatever is no uid; such a row is never kept."""

_READERS = min(os.cpu_count() or 1, 8)
_ENDINGS = (".parquet",)
_FOOTERS_AT_ONCE = 16


def table_files(settings: TableSettings) -> list[FileRef]:
    """The files of a pool, in order of their paths; a digest tells when one was replaced.

    Raises:
        UserError: a path names no parquet file.
    """
    found: dict[str, FileRef] = {}
    for pattern in settings.paths:
        refs = {r.path: r for r in listed(pattern, settings.storage_options, f"{PLACE}.paths", _ENDINGS)}
        if not refs:
            raise UserError(f"{PLACE}.paths: '{pattern}' has no .parquet file")
        found |= refs
    return [found[path] for path in sorted(found)]


@dataclass(frozen=True)
class Part:
    """One row group of a file."""

    url: str
    group: int
    rows: int
    metadata: pq.FileMetaData


class Place(NamedTuple):
    """A row of a shard, from 0."""

    shard: str
    row: int


@dataclass(frozen=True)
class TablesPool(Pool):
    """The rows of published tables, in the order of files and row groups, which are the shards.

    Memory: two row groups for each reading thread, and some 10 kB a file for its footer.

    Attributes:
        settings: which columns are meant.
        parts: shard → where it is.
        digest: another one when a file, the settings or the scorers are others.
        derived: scorer → what computes its columns when they are read.
    """

    settings: TableSettings
    parts: Mapping[str, Part]
    derived: Mapping[str, Derived]
    digest: str

    ordered: ClassVar[bool] = False
    readers: ClassVar[int] = _READERS

    def read(self, shard: str, names: Sequence[str], uids: Uids = Uids.TEXT) -> pa.Table:
        """The named columns of one row group, in its order; ``uid`` first, unless nobody asks for it.

        Raw uids are as they stand in the file.

        Raises:
            DataError: a file lacks a column, or has another type there than the first file.
        """
        part = self.parts[shard]
        wanted = [name for name in names if name != "uid"]
        inputs = {n for name in wanted for n in self._inputs(name)}
        if "uid" in names:
            uids = Uids.TEXT
        uid = () if wanted and uids is Uids.NONE else self._uid_columns()
        table = self._stored(part, {*inputs, *uid})
        found: dict[str, Any] = {}
        if uid:
            stored = _uids(table, uid)
            found["uid"] = _usable(stored) if uids is Uids.TEXT else stored
        for scorer, asked in self._asked(wanted).items():
            derived = self.derived[scorer]
            given = pa.table({n: table[self.columns[n].stored] for n in derived.columns})
            computed = compute(scorer, derived, given, [self.columns[name].stored for name in asked])
            found |= {name: nan_to_null(computed[self.columns[name].stored]) for name in asked}
        for name in wanted:
            if self.columns[name].family == TABLES:
                found[name] = nan_to_null(self._cast(part, name, table[self.columns[name].stored]))
        return pa.table({n: found[n] for n in (("uid", *wanted) if uid else wanted)})

    def places(self, uid: str) -> Iterator[Place]:
        """Where the rows of a uid are, in order; reads all uids up to the last one that is asked for."""
        for batch in self.scan([]):
            found = np.flatnonzero(np.asarray(pc.equal(batch.table["uid"], uid).fill_null(False)))
            for shard, rows in batch.slices() if len(found) else ():
                for row in found[(found >= rows.start) & (found < rows.stop)].tolist():
                    yield Place(shard, row - rows.start)

    def uids_that_begin_with(self, prefix: str) -> pa.ChunkedArray:
        """The uids that begin with these digits, each as often as it is there; reads all uids."""
        found = (b.table["uid"].filter(pc.starts_with(b.table["uid"], prefix)) for b in self.scan([]))
        return pa.chunked_array([chunk for part in found for chunk in part.chunks], pa.string())

    def _parts(self, names: Sequence[str], uids: Uids) -> Iterator[tuple[str, pa.Table]]:
        return self._ahead(names, uids)

    def _asked(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Scorer → its columns among these."""
        asked: dict[str, list[str]] = {}
        for name in names:
            family = self.columns[name].family
            if family != TABLES:
                asked.setdefault(family.name, []).append(name)
        return asked

    def _inputs(self, name: str) -> tuple[str, ...]:
        """Columns of the files that a column is made of."""
        column = self.columns[name]
        if column.family == TABLES:
            return (column.stored,)
        return tuple(self.columns[n].stored for n in self.derived[column.family.name].columns)

    def _uid_columns(self) -> tuple[str, ...]:
        column = self.columns["uid"].stored
        return (column,) if column else tuple(self.columns[n].stored for n in ("text", "url"))

    def _stored(self, part: Part, names: set[str]) -> pa.Table:
        try:
            with open_parquet(part.url, self.settings.storage_options, part.metadata) as file:
                missing = names.difference(file.schema_arrow.names)
                if missing:
                    raise DataError(
                        f"{part.url}: has no column '{min(missing)}', which the first file has; "
                        f"files of one kind only below {PLACE}.paths"
                    )
                return file.read_row_group(part.group, sorted(names), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{part.url}: cannot be read as parquet ({error})") from None

    def _cast(self, part: Part, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
        kind = scan_type(self.columns[name].type)
        try:
            return cast_whole(values, kind)
        except pa.ArrowException as error:
            raise DataError(
                f"{part.url}: column '{name}' is {values.type}, in the first file it is {kind} ({error})"
            ) from None


def open_tables(
    workspace: Workspace,
    settings: TableSettings,
    files: Sequence[FileRef],
    scorers: Mapping[str, ScorerSettings],
) -> TablesPool:
    """The pool of these files; reads their footers.

    Args:
        workspace: where scratch goes.
        files: at least one.
        scorers: name → settings of the config's scorers; those that are ``row_local`` give columns where
            the files have what they read.

    Raises:
        UserError: a column that the settings name is not there, or nothing says what the uid is.
        DataError: a file cannot be read.
    """
    footers = _footers(files, settings.storage_options)
    parts = {
        f"{ref.path}#{group}": Part(ref.path, group, metadata.row_group(group).num_rows, metadata)
        for ref, metadata in zip(files, footers, strict=True)
        for group in range(metadata.num_row_groups)
    }
    derived = derived_of(scorers)
    columns = columns_of_tables(footers[0].schema.to_arrow_schema(), settings, files[0].path, derived)
    kinds = {**{name: one.kind for name, one in scorers.items()}, **derived_facts(derived)}
    facts = [settings.facts(), sorted(kinds.items()), [(ref.path, ref.size, ref.digest) for ref in files]]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()
    return TablesPool(workspace, tuple(parts), columns, settings, parts, derived, digest)


def columns_of_tables(
    schema: pa.Schema, settings: TableSettings, url: str, derived: Mapping[str, Derived]
) -> dict[str, Column]:
    """Name → column: those of the files under their public names, and those that are computed.

    The uid's ``stored`` is empty where it is md5(text + url). Raises UserError, see ``open_tables``.
    """
    twice = [name for name, n in Counter(schema.names).items() if n > 1]
    if twice:
        raise UserError(f"{PLACE}: {url} has two columns named '{twice[0]}'")
    there = {name: Column(TABLES, name, schema.field(name).type) for name in schema.names}
    renamed = {
        name: need(there, stored, f"{PLACE}.columns.{name}") for name, stored in settings.columns.items()
    }
    used = {column.stored for column in renamed.values()}
    found = {n: c for n, c in there.items() if n not in used} | renamed
    found.pop("uid", None)
    if settings.uid_column is not None:
        uid = need(there, settings.uid_column, f"{PLACE}.uid_column").stored
    else:
        uid = "uid" if "uid" in there else ""
    if not uid and not {"text", "url"} <= found.keys():
        raise UserError(
            f"{PLACE}: {url} has no column 'uid', and no 'text' and 'url' to make it of; name one by "
            f"`uid_column`, or both by `columns: {{text: …, url: …}}` (there: {', '.join(schema.names)})"
        )
    found["uid"] = Column(TABLES, uid, pa.string())
    stored = {name for name, column in found.items() if column.stored}
    for scorer, computed in derived.items():
        if not stored.issuperset(computed.columns):
            continue
        for field in computed.outputs:
            column = f"{scorer}_{field.name}"
            if column in found:
                raise UserError(f"column '{column}' is in {url} and in scorer '{scorer}'; rename the scorer")
            found[column] = Column(Family.scores(scorer), field.name, field.type)
    return found


_FOOTERS: dict[FileRef, pq.FileMetaData] = {}
"""Of files that were opened before: each experiment is planned and then run."""


def _footers(files: Sequence[FileRef], options: Mapping[str, Any]) -> list[pq.FileMetaData]:
    """Some at a time for each thread: to hand each one over costs as much as to read it."""
    some = [files[i : i + _FOOTERS_AT_ONCE] for i in range(0, len(files), _FOOTERS_AT_ONCE)]
    with ThreadPoolExecutor(2 * _READERS) as executor:
        return [
            m for found in executor.map(lambda refs: [_footer(r, options) for r in refs], some) for m in found
        ]


def _footer(ref: FileRef, options: Mapping[str, Any]) -> pq.FileMetaData:
    try:
        if ref not in _FOOTERS:
            with open_parquet(ref.path, options) as file:
                _FOOTERS[ref] = file.metadata
        return _FOOTERS[ref]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{ref.path}: cannot be read as parquet ({error})") from None


def _uids(table: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    if len(names) == 1:
        stored = table[names[0]]
        # As 16 bytes: in the order of their digits, which is not that of ours.
        return _hex(stored) if stored.type == HALVES else stored.cast(plain_type(stored.type))
    pairs = zip(*(table[name].to_pylist() for name in names), strict=True)
    made = (None if text is None or url is None else uid_of(text, url) for text, url in pairs)
    return pa.chunked_array([pa.array(made, pa.string())])


def _hex(uids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array(
        [pa.array((None if u is None else u.hex() for u in uids.to_pylist()), pa.string())]
    )


def _usable(uids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same as strings, with ``NO_UID`` in place of whatever is no uid."""
    records = usable_halves(uids)
    none = (records["f0"] == 0) & (records["f1"] == 0)
    return pa.chunked_array([from_halves(records)]) if none.any() else uids.cast(pa.string())
