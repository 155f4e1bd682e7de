"""``type: table``: scores that were made elsewhere, parquet files keyed by uid, joined shard by shard.

A shard is a range of uids, so only rows in that range are read. In files sorted by uid row groups
outside it are skipped by their statistics; in others the uid column is scanned for every shard, batch
by batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.config.base import fingerprint
from curate.config.scorers.table import TableScorer
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


class Table(ColumnScorer[TableScorer]):
    """The columns that were named; null for uids that no file has."""

    def __init__(self, name: str, settings: TableScorer) -> None:
        super().__init__(name, settings)
        place = f"{self.place}.paths"
        self.files = tuple(
            TableFile(url, external.digest(url, place))
            for path in settings.paths
            for url in find_tables(path, place)
        )
        schemas = [_read_schema(file.url, settings, self.place) for file in self.files]
        self.outputs = _output_types(schemas, settings, self.place)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the digest of all files in place of their paths."""
        return {**self.settings.facts(), "paths": fingerprint(sorted(file.digest for file in self.files))}

    def score(self, shard: Shard) -> Columns:
        """Only rows between the shard's first and last uid are held."""
        for file in self.files:
            external.check_digest(file.url, f"{self.place}.paths", file.digest)
        uids = shard.samples["uid"]
        table = read_range([file.url for file in self.files], self.settings, self.place, uids)
        return join(table, uids, self.settings, self.place)


def find_tables(path: str, place: str) -> list[str]:
    """Parquet files that a file name, folder or glob stands for, in order of their names.

    Raises:
        UserError: none.
    """
    found = external.find_files(path, place, ".parquet")
    if not found:
        raise UserError(f"{place}: {path}: no parquet file there")
    return found


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
    return pa.concat_tables(parts, promote_options="permissive")


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
    return {name: _plain(table[name]).take(rows) for name in settings.columns}


def _scanned(url: str, names: list[str], ends: tuple[str, str]) -> pa.Table:
    """Columns, the first of them the uid, of the rows whose uid is between the ends."""
    source = external.parquet_dataset(url)
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


def _read_schema(url: str, settings: TableScorer, place: str) -> pa.Schema:
    """The schema of a file that has all that the settings name. Raises UserError for any other."""
    try:
        with external.open_parquet(url) as file:
            schema = file.schema_arrow
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
    return schema


def _output_types(schemas: Iterable[pa.Schema], settings: TableScorer, place: str) -> pa.Schema:
    """The columns that are stored. Raises UserError when files have one in types that do not mix."""
    named = [pa.schema([schema.field(name) for name in settings.columns]) for schema in schemas]
    try:
        common = pa.unify_schemas(named, promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{place}.columns: the files have a column in different types ({error})") from None
    return pa.schema([(name, _stored_type(common.field(name).type)) for name in settings.columns])


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _stored_type(kind: pa.DataType) -> pa.DataType:
    """No dictionaries, and floats as float32."""
    kind = _value_type(kind)
    return pa.float32() if pa.types.is_floating(kind) else kind


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as it is stored: floats without NaN or infinities."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = _stored_type(column.type)
    if column.type != kind:
        column = column.cast(kind)
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind)) if kind == pa.float32() else column
