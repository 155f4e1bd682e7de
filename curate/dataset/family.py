"""Column families: what a stage knows about the samples of a shard, one parquet table per shard.

A family is a value: it knows where its tables lie, which stage makes them, and what they are called on a
page and in SQL. No other module puts such a path together or takes one apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import UserError

_SHARD = "\0"
"""Stands for the shard in a path; no name has it."""


class _Kind(NamedTuple):
    """Where the tables of a kind lie, and the verb that makes them. ``{}`` is the name of the family."""

    prefix: str
    verb: str
    title: str
    view: str


_KINDS = {
    "candidates": _Kind("candidates/", "ingest", "candidates", "candidates"),
    "images": _Kind("images/", "download", "images", "images"),
    "embeddings": _Kind("embeddings/{}/metadata/metadata_", "embed", "embeddings of {}", "embeddings_{}"),
    "scores": _Kind("scores/{}/", "score", "scores of {}", "scores_{}"),
}


@dataclass(frozen=True, order=True, slots=True)
class Family:
    """A column family, such as ``images``, ``embeddings/b32`` or ``scores/nsfw``.

    Attributes:
        kind: ``candidates``, ``images``, ``embeddings``, ``scores``; or ``tables``, the columns of published
            tables that are filtered as they are, which no stage has made.
        name: alias of the model or name of the scorer; empty for a family there is one of.
    """

    kind: str
    name: str = ""

    @classmethod
    def embeddings(cls, model: str) -> Family:
        """The rows beside a model's vectors: uid, caption, url, similarity."""
        return cls("embeddings", model)

    @classmethod
    def scores(cls, scorer: str) -> Family:
        """uid and the columns of one scorer."""
        return cls("scores", scorer)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" if self.name else self.kind

    @property
    def stage(self) -> str:
        """The stage whose records list this family's files: ``download``, ``embed/b32``."""
        return f"{self.verb}/{self.name}" if self.name else self.verb

    @property
    def verb(self) -> str:
        """The command that makes it."""
        return _KINDS[self.kind].verb

    @property
    def title(self) -> str:
        """For people: ``scores of nsfw``."""
        return _KINDS[self.kind].title.format(self.name)

    @property
    def view(self) -> str:
        """Its name as a table of ``curate query``: ``scores_nsfw``."""
        return _KINDS[self.kind].view.format(self.name)

    @property
    def folder(self) -> str:
        """The folder that holds its tables, and nothing but what belongs to it."""
        return self.path(_SHARD).rpartition("/")[0]

    def path(self, shard: str) -> str:
        """The table of one shard."""
        return f"{_KINDS[self.kind].prefix.format(self.name)}{shard}.parquet"

    def shard_of(self, path: str) -> str | None:
        """The shard whose table lies at a path; None for a path of anything else."""
        prefix, _, suffix = self.path(_SHARD).partition(_SHARD)
        shard = path.removeprefix(prefix).removesuffix(suffix)
        return shard if "/" not in shard and path == self.path(shard) else None

    def by_shard(self, committed: Mapping[str, FileRef]) -> dict[str, FileRef]:
        """Shard → table, of all files that the family's stage has committed; in order of the shards."""
        found = {shard: ref for path, ref in committed.items() if (shard := self.shard_of(path)) is not None}
        return dict(sorted(found.items()))


CANDIDATES = Family("candidates")
IMAGES = Family("images")
TABLES = Family("tables")
"""Columns of published tables, which are filtered without a workspace."""


def stored_families(workspace: Workspace) -> list[Family]:
    """The families that have a table in a workspace, committed or not; in the order of the data flow."""
    named = [Family(kind, name) for kind in ("embeddings", "scores") for name in workspace.folders(kind)]
    return [family for family in (CANDIDATES, IMAGES, *named) if stored_shards(workspace, family)]


def stored_shards(workspace: Workspace, family: Family) -> list[str]:
    """Names of the shards whose table of a family lies in a workspace, committed or not; in order."""
    found = (family.shard_of(path) for path in workspace.sizes(family.folder))
    return sorted(shard for shard in found if shard is not None)


def base_family(workspace: Workspace) -> Family:
    """The family that says which samples there are.

    ``images``; ``candidates`` when ingest was told that this pool has no images (``download: null``).
    """
    if not workspace.exists(layout.DATASET):
        return IMAGES
    facts = workspace.read_json(layout.DATASET)
    return CANDIDATES if isinstance(facts, dict) and facts.get("images") is False else IMAGES


def base_files(workspace: Workspace) -> dict[str, FileRef]:
    """Shard → its committed base table, in order of the shards.

    Raises:
        UserError: some shards of the pool are there, and others are neither there nor quarantined.
    """
    base = base_family(workspace)
    found = base.by_shard(RecordStore(workspace).outputs(base.stage))
    need_all_shards(workspace, base, found)
    return found


def need_all_shards(workspace: Workspace, base: Family, found: Collection[str]) -> None:
    """Refuse to work on a part of a pool as if it were all of it.

    How many shards there are was written down when they were cut. A pool of which there is nothing yet is no
    part of it: there is nothing to work on.

    Raises:
        UserError: some shards are there, and others are neither there nor quarantined.
    """
    facts = workspace.read_json(layout.DATASET) if found and workspace.exists(layout.DATASET) else {}
    shards = int(facts.get("shards", 0))
    if len(found) >= shards:
        return
    failed = RecordStore(workspace).failed(base.stage)
    names = (layout.shard_name(number, shards) for number in range(shards))
    missing = [name for name in names if name not in found and not any(_is_of(name, unit) for unit in failed)]
    if missing:
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise UserError(
            f"{workspace.url}: {base.verb} has made {len(found):,} of {shards:,} shards (not {some}); "
            f"what comes behind it would be of a part of the pool: run `curate {base.verb}` to its end first"
        )


def _is_of(shard: str, unit: str) -> bool:
    """Whether a shard is one of a unit's: of the same name, or in a range of ingest's, ``00000-00049``."""
    first, _, last = unit.partition("-")
    return first <= shard <= (last or first)
