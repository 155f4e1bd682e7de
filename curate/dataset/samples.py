"""Aligned columns: what is known about the samples of a shard, without a join.

The samples of a shard are the rows of its base table, in uid order: those that have an image, or, in
a pool without images, all candidates. Every family behind the base has exactly these rows; reading
checks it, so a misaligned file is an error and never a wrong result.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError, UserError

IMAGES_HIDDEN = {"key", "status", "caption", "reason", "error_message"}
"""Columns of the image table that say nothing about a sample (``caption`` is exposed as ``text``)."""


BASES = {"images": "download", "candidates": "ingest"}
"""The families that say which samples there are → the stage that makes them."""


@dataclass(frozen=True)
class Column:
    """Where a column of the samples is stored."""

    family: str
    """``images`` or ``candidates``, ``embeddings/<model>``, ``scores/<scorer>``."""
    stored: str
    type: pa.DataType

    @property
    def stage(self) -> str:
        """The stage whose records list this column's files."""
        return stage_of(self.family)


def stage_of(family: str) -> str:
    """The stage that makes the files of a column family."""
    kind, _, name = family.partition("/")
    return BASES.get(kind) or {"embeddings": f"embed/{name}", "scores": f"score/{name}"}[kind]


def family_path(family: str, shard: str) -> str:
    """The parquet file of a column family."""
    kind, _, name = family.partition("/")
    if kind == "images":
        return layout.image_table(shard)
    if kind == "candidates":
        return layout.candidates(shard)
    if kind == "embeddings":
        return layout.embedding_table(name, shard)
    return layout.scores(name, shard)


def base_family(workspace: Workspace) -> str:
    """``images``; ``candidates`` when ingest was told that this pool has none (``download: null``)."""
    if not workspace.exists(layout.DATASET):
        return "images"
    facts = workspace.read_json(layout.DATASET)
    return "candidates" if isinstance(facts, dict) and facts.get("images") is False else "images"


def base_files(workspace: Workspace) -> dict[str, FileRef]:
    """Shard → its committed base table, in order of the shards."""
    family = base_family(workspace)
    return files_by_shard(family, RecordStore(workspace).outputs(BASES[family]))


def files_by_shard(family: str, committed: Mapping[str, FileRef]) -> dict[str, FileRef]:
    """Shard → the table of a family, of all files that its stage has committed; in order of the shards."""
    prefix, suffix = family_path(family, "*").split("*")
    found = {
        path.removeprefix(prefix).removesuffix(suffix): ref
        for path, ref in committed.items()
        if path.startswith(prefix) and path.endswith(suffix)
    }
    return dict(sorted(found.items()))


def image_shards(workspace: Workspace) -> list[str]:
    """Names of the shards that have an image table, in order."""
    paths = workspace.sizes("images")
    return sorted(p.split("/")[-1].removesuffix(".parquet") for p in paths if p.endswith(".parquet"))


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
        if base == "candidates" or field.name not in IMAGES_HIDDEN:
            add(field.name, Column(base, field.name, field.type))
        elif field.name == "caption":
            add("text", Column(base, "caption", field.type))
    for i, model in enumerate(models):
        family = f"embeddings/{model}"
        schema = _schema(workspace, family, shard)
        if "similarity" not in schema.names:
            continue  # of one modality only
        column = Column(family, "similarity", schema.field("similarity").type)
        add(f"{model}_similarity", column)
        if i == 0:
            add("similarity", column)
    for scorer in scorers:
        for field in _schema(workspace, f"scores/{scorer}", shard):
            if field.name != "uid":
                add(field.name, Column(f"scores/{scorer}", field.name, field.type))
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
    wanted: dict[str, dict[str, str]] = {base: {}}
    for name in names:
        if name != "uid":
            column = columns[name]
            wanted.setdefault(column.family, {})[name] = column.stored
    uids: pa.ChunkedArray | None = None
    parts: dict[str, pa.ChunkedArray] = {}
    for family, stored in wanted.items():
        extra = ["status"] if family == "images" else []
        read = list(dict.fromkeys(["uid", *extra, *stored.values()]))
        table = workspace.read_table(family_path(family, shard), read)
        if family == base:
            if family == "images":
                table = table.filter(pc.equal(table["status"], "success"))
            uids = table["uid"]
        elif uids is None or not table["uid"].equals(uids):
            raise DataError(
                f"{workspace.url}/{family_path(family, shard)}: its rows are not those of "
                f"{family_path(base, shard)}; run the stage again"
            )
        for name, column_name in stored.items():
            parts[name] = table[column_name]
    assert uids is not None
    return pa.table({"uid": uids, **{n: parts[n] for n in names if n != "uid"}})


def _schema(workspace: Workspace, family: str, shard: str) -> pa.Schema:
    with workspace.parquet(family_path(family, shard)) as file:
        return file.schema_arrow
