"""The samples of a dataset, or some of them, in the forms that people work with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.api.html import gallery_html
from curate.dataset.selections import Selection
from curate.dataset.workspace import Workspace
from curate.pages.pictures import thumbnails
from curate.samples.columns import Column, need
from curate.samples.database import open_database, reading_folder, select
from curate.samples.pool import Pool

if TYPE_CHECKING:
    import datasets
    import duckdb
    import pandas as pd
    import polars as pl

    from curate.api.torch_samples import TorchSamples

REPEATS = "repeats"
SHOWN = 12
"""Pictures in a notebook."""

ROWS_SHOWN = 5


class Samples:
    """Columns of the samples of a workspace, in uid order; made by ``Dataset.samples``.

    NaN is NULL, as everywhere in filters. Memory of ``batches`` is that of a few shards; ``arrow``, and what
    is made of it, holds all that was asked for.
    """

    def __init__(
        self,
        workspace: Workspace,
        known: dict[str, Column],
        shards: tuple[str, ...],
        experiment: str,
        columns: Sequence[str] | None,
        where: str | None,
    ) -> None:
        for name in columns or ():
            need(known, name, "samples")
        self.workspace, self.shards, self.experiment, self.where = workspace, shards, experiment, where
        self.columns = tuple(dict.fromkeys(["uid", *(known if columns is None else columns)]))
        self._pool = Pool(workspace, shards, known)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, read while they are used; with ``repeats`` (int32) where an experiment was named.

        Raises:
            UserError: the condition cannot be used.
            DataError: a shard is broken or misaligned.
        """
        for _, table in self.by_shard():
            yield from table.combine_chunks().to_batches()

    def by_shard(self) -> Iterator[tuple[str, pa.Table]]:
        """Shard and its rows, those without any left out."""
        return self._tables(self.columns)

    def part(self, number: int, of: int) -> Samples:
        """The samples of every ``of``-th shard, from the ``number``-th on: what one worker of many reads."""
        return Samples(
            self.workspace,
            self._pool.columns,
            self.shards[number::of],
            self.experiment,
            self.columns,
            self.where,
        )

    def _tables(self, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        with contextlib.ExitStack() as stack:
            condition = self._condition(stack)
            read = {*columns, *(condition.columns if condition else ())} - {"uid"}
            selection = Selection(self.workspace, self.experiment) if self.experiment else None
            for batch in self._pool.scan(sorted(read)):
                for shard, rows in batch.slices():
                    table = batch.table[rows]
                    if condition is not None:
                        table = table.filter(condition.holds(table))
                    if selection is not None:
                        table = _kept(table, selection.read(shard))
                    if table.num_rows:
                        yield shard, table.select([*columns, *([REPEATS] if selection is not None else [])])

    def _condition(self, stack: contextlib.ExitStack) -> _Condition | None:
        if self.where is None:
            return None
        scratch = stack.enter_context(reading_folder())
        connection = stack.enter_context(open_database(scratch, threads=1))
        return _Condition(self.where, connection, self._pool.columns)

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        tables = [table for _, table in self.by_shard()]
        return pa.concat_tables(tables, promote_options="permissive") if tables else self._empty()

    def _empty(self) -> pa.Table:
        types = {name: self._pool.columns[name].type for name in self.columns}
        if self.experiment:
            types[REPEATS] = pa.int32()
        return pa.table({name: pa.array([], kind) for name, kind in types.items()})

    def reader(self) -> pa.RecordBatchReader:
        """All rows as a stream of Arrow batches, which most tools take in constant memory."""
        batches = self.batches()
        first = next(batches, None)
        if first is None:
            return self._empty().to_reader()

        def all_batches() -> Iterator[pa.RecordBatch]:
            yield first
            yield from batches

        return pa.RecordBatchReader.from_batches(first.schema, all_batches())

    def duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """All rows as a relation of DuckDB's."""
        import duckdb

        return duckdb.from_arrow(self.arrow(), connection=connection or duckdb.default_connection())

    def pandas(self) -> pd.DataFrame:
        """All rows as a frame of pandas, whose index is the uid."""
        frame: pd.DataFrame = self.arrow().to_pandas()
        return frame.set_index("uid")

    def polars(self) -> pl.DataFrame:
        """All rows as a frame of polars. Needs the package ``polars``."""
        import polars as pl

        frame = pl.from_arrow(self.arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def huggingface(self, images: bool = False) -> datasets.Dataset | datasets.IterableDataset:
        """All rows as a Hugging Face dataset. Needs the package ``datasets``.

        Args:
            images: with the column ``image``; a stream then, read tar by tar.
        """
        import datasets

        if not images:
            return datasets.Dataset(self.arrow())
        features = datasets.Features.from_arrow_schema(self._empty().schema)
        features["image"] = datasets.Image()
        return datasets.IterableDataset.from_generator(self.torch().rows, features=features)

    def torch(self, repeat: bool = True) -> TorchSamples:
        """The rows with their pictures as an iterable dataset of torch, read shard by shard; see there.

        Args:
            repeat: give a sample as often as the experiment keeps it.
        """
        from curate.api.torch_samples import TorchSamples

        return TorchSamples(self, repeat)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as plain values."""
        for batch in self.batches():
            yield from batch.to_pylist()

    def __len__(self) -> int:
        """How many rows there are; of a condition they have to be looked at."""
        if self.experiment and self.where is None:
            return sum(Selection(self.workspace, self.experiment).kept.values())
        return sum(table.num_rows for _, table in self._tables(("uid",)))

    def __repr__(self) -> str:
        of = f" of {self.experiment}" if self.experiment else ""
        where = f" where {self.where}" if self.where else ""
        return f"Samples({self.workspace.url!r}{of}{where}: {len(self):,} rows, {', '.join(self.columns)})"

    def _repr_html_(self) -> str:
        return self.pictures_html()

    def pictures_html(self) -> str:
        """Some of the samples as cards with their pictures, for a notebook."""
        rows: list[Mapping[str, Any]] = []
        pictures: dict[str, str] = {}
        for shard, table in self.by_shard():
            some = table.slice(0, SHOWN - len(rows)).to_pylist()
            pictures |= thumbnails(self.workspace, shard, [row["uid"] for row in some])
            rows += some
            if len(rows) == SHOWN:
                break
        return gallery_html(rows, pictures)


class _Condition:
    """A SQL condition, checked against the columns."""

    def __init__(self, text: str, connection: Any, columns: dict[str, Column]) -> None:
        from curate.rules.sql.expressions import Checker

        self._expression = Checker(connection, columns).check(text, "where", "condition")
        self._connection = connection
        self.columns = self._expression.columns

    def holds(self, table: pa.Table) -> pa.ChunkedArray:
        """Which rows pass; NULL does not."""
        return select(self._connection, table, [self._expression.sql])["0"].fill_null(False)


def _kept(table: pa.Table, selected: pa.Table) -> pa.Table:
    """The rows of a shard that are selected, with their repeats; both are in uid order."""
    kept = table.filter(pc.is_in(table["uid"], selected["uid"].combine_chunks()))
    if kept.num_rows == selected.num_rows:
        return kept.append_column(REPEATS, selected["repeats"])
    places = pc.index_in(kept["uid"], selected["uid"].combine_chunks())
    repeats = np.asarray(selected["repeats"])[np.asarray(places)]
    return kept.append_column(REPEATS, pa.array(repeats, pa.int32()))
