"""Aligned columns: what is known about the samples of a shard, without a join.

The samples of a shard are the rows of its base table, in uid order: those that have an image, or, in
a pool without images, all candidates. Every family behind the base has exactly these rows; reading
checks it, so a misaligned file is an error and never a wrong result.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset.family import IMAGES, Family, base_family
from curate.dataset.workspace import Workspace
from curate.errors import DataError, UserError

HIDDEN_IMAGE_COLUMNS = {"key", "status", "caption", "reason", "error_message"}
"""Columns of the image table that say nothing about a sample (``caption`` is exposed as ``text``)."""


@dataclass(frozen=True)
class Column:
    """Where a column of the samples is stored.

    Attributes:
        stored: its name in the family's tables.
    """

    family: Family
    stored: str
    type: pa.DataType


class PlannedColumns(dict[str, Column]):
    """The columns that the stages of a run will make, as far as can be told before any of them works.

    Attributes:
        untyped: names of columns that will be there, and whose types only their files tell. One that ends in
            ``_`` stands for all that begin with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.untyped: set[str] = set()

    def may_have(self, name: str) -> bool:
        """Whether there may be a column of that name, of whatever type."""
        prefixes = (known for known in self.untyped if known.endswith("_"))
        return name in self or name in self.untyped or name.startswith(tuple(prefixes))

    def add_embeddings(self, model: str) -> None:
        """The similarity of a model; that of the first one is ``similarity``."""
        column = Column(Family.embeddings(model), "similarity", pa.float32())
        self[f"{model}_similarity"] = column
        self.setdefault("similarity", column)


def columns_of(
    workspace: Workspace, shard: str, models: Sequence[str], scorers: Iterable[str]
) -> dict[str, Column]:
    """Name → column for everything that is stored about the samples of a shard.

    ``similarity`` is the first model's; every model's is also there as ``<model>_similarity``.

    Raises:
        UserError: two families have a column of one name.
    """
    found: dict[str, Column] = {}

    def add(name: str, column: Column) -> None:
        if name in found:
            raise UserError(
                f"column '{name}' is in {found[name].family} and in {column.family}; "
                "give the scorer another name"
            )
        found[name] = column

    base = base_family(workspace)
    for field in _schema(workspace, base, shard):
        if base != IMAGES or field.name not in HIDDEN_IMAGE_COLUMNS:
            add(field.name, Column(base, field.name, field.type))
        elif field.name == "caption":
            add("text", Column(base, "caption", field.type))
    for i, model in enumerate(models):
        schema = _schema(workspace, Family.embeddings(model), shard)
        if "similarity" not in schema.names:
            continue  # of one modality only
        column = Column(Family.embeddings(model), "similarity", schema.field("similarity").type)
        add(f"{model}_similarity", column)
        if i == 0:
            add("similarity", column)
    for scorer in scorers:
        for field in _schema(workspace, Family.scores(scorer), shard):
            if field.name != "uid":
                add(field.name, Column(Family.scores(scorer), field.name, field.type))
    return found


def need(columns: dict[str, Column], name: str, place: str) -> Column:
    """The column of that name.

    Raises:
        UserError: there is none; says where it was asked for and which names are near.
    """
    if name in columns:
        return columns[name]
    near = difflib.get_close_matches(name, columns, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"columns: {', '.join(sorted(columns))}"
    raise UserError(f"{place}: unknown column '{name}'; {hint}")


def read_samples(
    workspace: Workspace, shard: str, names: Sequence[str], columns: dict[str, Column]
) -> pa.Table:
    """The named columns of a shard's samples, ``uid`` first, in uid order.

    Raises:
        DataError: a family has other rows than the base has.
    """
    base = columns["uid"].family
    wanted: dict[Family, dict[str, str]] = {base: {}}
    for name in names:
        if name != "uid":
            column = columns[name]
            wanted.setdefault(column.family, {})[name] = column.stored
    uids: pa.ChunkedArray | None = None
    parts: dict[str, pa.ChunkedArray] = {}
    for family, stored in wanted.items():
        extra = ["status"] if family == IMAGES else []
        read = list(dict.fromkeys(["uid", *extra, *stored.values()]))
        table = workspace.read_table(family.path(shard), read)
        if family == base:
            if family == IMAGES:
                table = table.filter(pc.equal(table["status"], "success"))
            uids = table["uid"]
        elif uids is None or not table["uid"].equals(uids):
            raise DataError(
                f"{workspace.url}/{family.path(shard)}: its rows are not those of "
                f"{base.path(shard)}; run the stage again"
            )
        for name, column_name in stored.items():
            parts[name] = table[column_name]
    assert uids is not None
    return pa.table({"uid": uids, **{n: parts[n] for n in names if n != "uid"}})


def _schema(workspace: Workspace, family: Family, shard: str) -> pa.Schema:
    with workspace.parquet(family.path(shard)) as file:
        return file.schema_arrow
