"""One pass over a scorer's columns, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset.family import Family
from curate.dataset.workspace import Workspace
from curate.errors import DataError
from curate.pages.words import ENDLESS
from curate.samples.columns import columns_of, read_samples
from curate.score.sheet.sample import LIMIT, Floats, RowSampler, SampledRows
from curate.score.sheet.tally import Tally

Kind = Literal["number", "category", "other"]
NO_REASON = "no reason stored"


@dataclass(frozen=True)
class Column:
    """A column of a scorer: its name, its type, and how it is shown.

    Attributes:
        cosine: its values are cosines.
    """

    name: str
    type: pa.DataType
    cosine: bool = False

    @property
    def kind(self) -> Kind:
        """Numbers get quantiles, texts and booleans their values, all else only its name."""
        kind = self.type.value_type if pa.types.is_dictionary(self.type) else self.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return "number"
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
        return "category" if texts else "other"

    def shown(self, value: float) -> float:
        """A value as it is shown: not beyond what a cosine can be, where rounding has put it."""
        return min(1.0, max(-1.0, value)) if self.cosine else value


@dataclass(frozen=True)
class Scanned:
    """What the pass found.

    Attributes:
        sampled: rows that stand for the pool; categories as the numbers of their values.
        missing: column → reason → rows without a value; exact, of the whole pool.
        tallies: category column → its values; exact, of the whole pool.
    """

    sampled: SampledRows
    missing: Mapping[str, Counter[str]]
    tallies: Mapping[str, Tally]

    def without(self, column: str) -> int:
        """Rows that have no value in a column."""
        return sum(self.missing[column].values())


def columns(workspace: Workspace, scorer: str, shard: str, cosines: Collection[str] = ()) -> list[Column]:
    """A scorer's columns, in the order in which they are stored; ``cosines`` are the names of some."""
    with workspace.parquet(Family.scores(scorer).path(shard)) as file:
        schema = file.schema_arrow
    return [Column(f.name, f.type, f.name in cosines) for f in schema if f.name != "uid"]


def scan(
    workspace: Workspace,
    scorer: str,
    shards: Sequence[str],
    shown: Sequence[Column],
    models: Sequence[str],
    reads_text: bool = False,
    limit: int = LIMIT,
) -> Scanned:
    """Read every shard's columns once.

    Args:
        workspace: where they are.
        scorer: its name.
        shards: in ascending order.
        shown: columns of kind number or category.
        models: aliases of the embeddings that the scorer reads; their reasons explain a missing score.
        reads_text: a missing caption explains a missing score.
        limit: rows that stand for the pool.

    Raises:
        DataError: a shard lacks a column or holds another type.
    """
    sample = RowSampler([c.name for c in shown], limit)
    tallies = {c.name: Tally() for c in shown if c.kind == "category"}
    missing: dict[str, Counter[str]] = {c.name: Counter() for c in shown}
    for number, shard in enumerate(shards):
        path = Family.scores(scorer).path(shard)
        table = workspace.read_table(path)
        try:
            values = {
                c.name: tallies[c.name].add(table[c.name]) if c.name in tallies else doubles(table[c.name])
                for c in shown
            }
        except (KeyError, pa.ArrowException) as error:
            raise DataError(f"{workspace.url}/{path}: not the columns of {shards[0]} ({error})") from None
        gone = {name: np.isnan(found) for name, found in values.items()}
        if any(rows.any() for rows in gone.values()):
            reasons = _reasons(workspace, shard, table, models, reads_text)
            for name, rows in gone.items():
                for entry in pc.value_counts(reasons.filter(pa.array(rows))).to_pylist():
                    missing[name][entry["values"]] += entry["counts"]
        sample.add(number, table["uid"], values)
    return Scanned(sample.sampled_rows(), missing, tallies)


def doubles(values: pa.ChunkedArray) -> Floats:
    """A numeric column as float64 (n,), NaN for null; infinities, and what is as good as that, are ±1e300."""
    found = np.asarray(pc.cast(values, pa.float64(), safe=False).fill_null(float("nan")), np.float64)
    return np.asarray(np.clip(found, -ENDLESS, ENDLESS), np.float64)


def _reasons(
    workspace: Workspace, shard: str, table: pa.Table, models: Sequence[str], reads_text: bool
) -> pa.ChunkedArray:
    """Why a row has no score, as far as anything says so, string (n,): the scorer's own
    ``…_reason``, the reason for which there is no embedding, a caption that is missing."""
    known = [table[n] for n in table.column_names if n.endswith("_reason") and _is_text(table[n].type)]
    for alias in models:
        path = Family.embeddings(alias).path(shard)
        if workspace.exists(path):
            known.append(workspace.read_table(path, ["reason"])["reason"])
    if reads_text and "text" in (have := columns_of(workspace, shard, (), ())):
        texts = read_samples(workspace, shard, ["text"], have)["text"]
        known.append(pc.if_else(pc.is_null(texts), "no_text", pa.scalar(None, pa.string())))
    aligned = [pc.cast(reasons, pa.string()) for reasons in known if len(reasons) == table.num_rows]
    unsaid = pa.chunked_array([pa.array([NO_REASON] * table.num_rows, pa.string())])
    return pc.coalesce(*aligned, unsaid)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
