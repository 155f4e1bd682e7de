"""The files of an embedded shard, in clip-retrieval's layout."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from curate.clip.vectors import Vectors, write_vectors
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.workspace import FileRef, Workspace


def write_embeddings(
    workspace: Workspace,
    alias: str,
    shard: str,
    samples: pa.Table,
    vectors: Mapping[str, Vectors],
    similarity: pa.Array,
    reason: pa.Array,
) -> tuple[FileRef, ...]:
    """Commit the vectors of a shard and the table beside them.

    Args:
        workspace: where to.
        alias: of the model.
        shard: name.
        samples: ``uid``, ``text`` and ``url`` of n samples.
        vectors: modality → float32 (n, dim), NaN where there is none.
        similarity: float32 (n,); left out when there is but one modality.
        reason: why a sample has no embedding, string (n,).
    """
    columns = {
        "uid": samples["uid"],
        "image_path": samples["uid"],
        "caption": samples["text"],
        "url": samples["url"],
        "similarity": similarity,
        "reason": reason,
    }
    if len(vectors) == 1:
        del columns["similarity"]
    files = [
        write_vectors(workspace, layout.embedding(alias, modality, shard), found)
        for modality, found in vectors.items()
    ]
    return *files, workspace.write_table(Family.embeddings(alias).path(shard), pa.table(columns))
