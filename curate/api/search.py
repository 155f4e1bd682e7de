"""What a search found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import pyarrow as pa

from curate.api.html import gallery_html
from curate.dataset import layout
from curate.dataset.uid import shard_of
from curate.dataset.workspace import Workspace
from curate.pages.pictures import thumbnails

if TYPE_CHECKING:
    from curate.index.search import Hit


class Hits(Sequence["Hit"]):
    """Hits, best first: uid, similarity, text, url of each. In a notebook they show their pictures."""

    def __init__(self, hits: Sequence[Hit], workspace: Workspace, shards: int) -> None:
        self._hits, self._workspace, self._shards = list(hits), workspace, shards

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    def arrow(self) -> pa.Table:
        """As an Arrow table."""
        return pa.Table.from_pylist([vars(hit) for hit in self._hits])

    def __repr__(self) -> str:
        lines = (f"{hit.similarity:.4f}  {hit.uid}  {hit.text}" for hit in self._hits)
        return "\n".join(lines) or "no hits"

    def _repr_html_(self) -> str:
        by_shard: dict[str, list[str]] = {}
        for hit in self._hits:
            shard = layout.shard_name(shard_of(hit.uid, self._shards), self._shards)
            by_shard.setdefault(shard, []).append(hit.uid)
        pictures: dict[str, str] = {}
        for shard, uids in by_shard.items():
            pictures |= thumbnails(self._workspace, shard, uids)
        return gallery_html([vars(hit) for hit in self._hits], pictures)
