"""Scores that were made elsewhere: parquet files keyed by uid, joined shard by shard.

A shard is a range of uids, so only rows in that range are read. In files sorted by uid row groups
outside it are skipped by their statistics; in others the uid column is scanned for every shard, batch
by batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.config.base import fingerprint
from curate.config.scorers import TableScorer
from curate.dataset import external
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, Shard

BATCH = 65_536
"""Rows read of a file at once."""


@dataclass(frozen=True)
class TableFile:
    """A parquet file and the digest of its bytes when the driver saw it."""

    url: str
    digest: str


class Table(ColumnScorer):
    """``type: table``."""

    def __init__(self, name: str, settings: TableScorer) -> None:
        self.settings = settings
        self.place = f"score.scorers.{name}"
        self.files = tuple(
            TableFile(url, external.digest(url, f"{self.place}.paths"))
            for path in settings.paths
            for url in find_tables(path, f"{self.place}.paths")
        )
        for file in self.files:
            _check_schema(file.url, settings, self.place)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the digest of all files in place of their paths."""
        return {**self.settings.facts(), "paths": fingerprint(sorted(file.digest for file in self.files))}

    def score(self, shard: Shard) -> Columns:
        """The rows' values; null for uids that no file has."""
        uids = shard.samples["uid"]
        for file in self.files:
            if _digest_now(file.url, self.place) != file.digest:
                raise UserError(
                    f"{self.place}.paths: {file.url} has changed, or is another on this worker; run again"
                )
        table = read_range([file.url for file in self.files], self.settings, self.place, uids)
        return join(table, uids, self.settings, self.place)


def find_tables(path: str, place: str) -> list[str]:
    """Parquet files that a file name, folder or glob stands for, in order of their names.

    Raises:
        UserError: none.
    """
    try:
        fs, inner = fsspec.core.url_to_fs(path)
        if fs.isdir(inner):
            found = [p for p in fs.find(inner) if p.endswith(".parquet")]
        elif fs.isfile(inner):
            found = [inner]
        else:
            found = [p for p in fs.glob(inner) if fs.isfile(p)]
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(f"{place}: cannot open '{path}': {error}") from None
    if not found:
        raise UserError(f"{place}: {path}: no parquet file there")
    local = isinstance(fs, LocalFileSystem)
    return [str(p) if local else str(fs.unstrip_protocol(p)) for p in sorted(found)]


def read_range(
    urls: list[str], settings: TableScorer, place: str, uids: pa.Array | pa.ChunkedArray
) -> pa.Table:
    """The rows of the files whose uid lies between the first and the last of a shard's (sorted) uids.

    Memory: a batch of 65,536 rows (or a row group's pages), and the rows of that range.

    Raises:
        UserError: a file that cannot be read.
    """
    names = [settings.uid_column, *(c for c in settings.columns if c != settings.uid_column)]
    ends = (uids[0].as_py(), uids[len(uids) - 1].as_py()) if len(uids) else ("", "")
    parts: list[pa.Table] = []
    for url in urls:
        try:
            parts.append(_scanned(url, names, ends))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{place}.paths: {url}: cannot be read as parquet ({error})") from None
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{place}.columns: the files have a column in different types ({error})") from None


def join(
    table: pa.Table, uids: pa.Array | pa.ChunkedArray, settings: TableScorer, place: str
) -> dict[str, pa.ChunkedArray]:
    """Columns of a table in the order of uids (n,); null where the table lacks one.

    Floats become float32, their NaN and infinities null.

    Raises:
        UserError: a uid is there twice.
    """
    keys = table[settings.uid_column].cast(pa.string()).combine_chunks()
    if len(pc.unique(keys)) < len(keys):
        counts = pc.value_counts(keys)
        twice = next(c["values"].as_py() for c in counts if c["counts"].as_py() > 1)
        raise UserError(
            f"{place}.paths: uid {twice} is there more than once; give each uid one row "
            "(e.g. `SELECT DISTINCT ON (uid) …` in DuckDB)"
        )
    rows = pc.index_in(uids.cast(pa.string()), value_set=keys)
    return {name: _plain(table[name], f"{place}.columns: {name}").take(rows) for name in settings.columns}


def _scanned(url: str, names: list[str], ends: tuple[str, str]) -> pa.Table:
    """Columns, the first of them the uid, of the rows whose uid is between the ends."""
    fs, path = fsspec.core.url_to_fs(url)
    source = ds.dataset(path, format="parquet", filesystem=None if isinstance(fs, LocalFileSystem) else fs)
    kind = source.schema.field(names[0]).type
    uid = pc.field(names[0])
    if pa.types.is_dictionary(kind):
        uid, kind = uid.cast(pa.string()), pa.string()  # a cast column cannot be judged by its statistics
    low, high = (pa.scalar(end, kind) for end in ends)
    scanner = source.scanner(
        columns=names,
        filter=(uid >= low) & (uid <= high),
        batch_size=BATCH,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
        cache_metadata=False,
    )
    return scanner.to_table()


def _check_schema(url: str, settings: TableScorer, place: str) -> None:
    try:
        with fsspec.open(url, "rb") as stream:
            schema = pq.read_schema(stream)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{place}.paths: {url}: cannot be read as parquet ({error})") from None
    for key, name in (("uid_column", settings.uid_column), *(("columns", n) for n in settings.columns)):
        if name not in schema.names:
            have = ", ".join(schema.names[:20])
            raise UserError(f"{place}.{key}: {url} has no column '{name}'; it has {have}")
    kind = _value_type(schema.field(settings.uid_column).type)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise UserError(
            f"{place}.uid_column: {url}: '{settings.uid_column}' is {kind}; uids are 32 hex digits"
        )
    for name in settings.columns:
        kind = _value_type(schema.field(name).type)
        if pa.types.is_nested(kind):
            raise UserError(f"{place}.columns: {url}: '{name}' is {kind}; take columns of single values")


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _plain(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    """A stored column without dictionaries; floats as float32 without NaN or infinities."""
    kind = _value_type(column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(kind)
    if pa.types.is_floating(kind):
        column = column.cast(pa.float32())
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float32()))
    return column


def _digest_now(url: str, place: str) -> str:
    fs, path = fsspec.core.url_to_fs(url)
    info = fs.info(path)
    return _digest_of(url, place, int(info["size"] or 0), str(info.get("mtime") or info.get("LastModified")))


@functools.cache
def _digest_of(url: str, place: str, size: int, changed: str) -> str:
    """Once per process and file, however many files there are."""
    return external.digest(url, f"{place}.paths")
