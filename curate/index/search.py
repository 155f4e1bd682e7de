"""Search an index by text, by image file or by uid."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.clip.vectors import Vectors, map_npy, open_vectors, read_model
from curate.config.models import ModelSettings
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.uid import SUBSET_DTYPE, complete_uid, from_halves, shard_of
from curate.dataset.workspace import Workspace
from curate.errors import DataError, UserError
from curate.index.about import caveat, nprobe_of, read_about
from curate.index.build import faiss_module, lists_of, search
from curate.index.model import load_fitting, settings_from
from curate.index.queries import QueryKind
from curate.index.recall import Rows

TABLES_KEPT = 32
"""Tables of shards that a searcher remembers, about 2 MB each."""


@dataclass(frozen=True)
class Hit:
    """One answer.

    Attributes:
        uid: of the sample.
        similarity: cosine of query and sample, in [-1, 1], as exact as the index has its vectors.
        url: of the image.
        text: the alt text.
        shard: that holds the sample.
        row: in the index.
    """

    uid: str
    similarity: float
    url: str
    text: str
    shard: str
    row: int


class Searcher:
    """The indices of one experiment and model, memory-mapped. A context manager.

    Args:
        workspace: where the index is.
        experiment: whose selection.
        alias: whose embeddings.
        model: how to load the model for queries by text and by image, when it lies elsewhere now
            than when the images were embedded. It must be the same checkpoint.

    Raises:
        UserError: there is no such index, an earlier version built it, or the embeddings were made anew with
            another model.
    """

    def __init__(
        self, workspace: Workspace, experiment: str, alias: str, model: ModelSettings | None = None
    ) -> None:
        self.workspace = workspace
        self.experiment = experiment
        self.alias = alias
        self._files = contextlib.ExitStack()
        self._indices: dict[tuple[str, int | None], Any] = {}
        self._tables: dict[str, pa.Table] = {}
        about = layout.index_file(experiment, alias, "index.json")
        if not workspace.exists(about):
            raise UserError(
                f"{workspace.url}: no index of experiment '{experiment}' and model '{alias}'"
                f"{_others(workspace)}; run `curate index`"
            )
        self.facts: dict[str, Any] = read_about(workspace, experiment, alias)
        embedded = read_model(workspace, alias)
        if any(self.facts[name] != embedded.get(name) for name in ("weights", "text_weights")):
            raise UserError(
                f"{workspace.url}/{about}: the index was built with another model than embeddings/{alias} "
                "are made with now; run `curate index` again"
            )
        self.embedded: tuple[str, ...] = tuple(embedded.get("modalities", ("image", "text")))
        self.model = model or settings_from(embedded)
        self.shards = int(workspace.read_json(layout.DATASET)["shards"])
        self.dim = int(self.facts["dim"])
        self.uids = self._map_uids()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._indices.clear()
        self._files.close()

    @property
    def modalities(self) -> tuple[str, ...]:
        """``image``, ``text``, or both."""
        return tuple(self.facts["indices"])

    def by_text(self, text: str, k: int = 10, modality: str = "image") -> list[Hit]:
        """The samples nearest to a text."""
        return self.by_vector(self.text_vector(text), k, modality, "text")

    def by_image(self, image: str | Path | bytes, k: int = 10, modality: str = "image") -> list[Hit]:
        """The samples nearest to an image: a path, or the bytes of a file."""
        return self.by_vector(self.image_vector(image), k, modality, "image")

    def by_uid(self, uid: str, k: int = 10, modality: str = "image") -> list[Hit]:
        """The samples nearest to the image of a sample, itself first when it is in the index.

        Args:
            uid: of the sample, or its first digits, as many as no other sample has.
        """
        return self.by_vector(self.stored_vector(uid), k, modality, "image")

    def by_vector(
        self, vector: Vectors, k: int = 10, modality: str = "image", kind: QueryKind | None = None
    ) -> list[Hit]:
        """The samples nearest to a vector (dim,) of any length but 0; ``kind`` as in ``search``."""
        similarities, rows = self.search(vector[None], k, modality, kind)
        return self.hits(rows[0], similarities[0])

    def caveat(self, kind: QueryKind, modality: str = "image") -> str | None:
        """What to know of the answers to such queries: their recall was not measured, or is low."""
        return caveat(self.facts, self._known(modality), kind)

    def search(
        self, vectors: Vectors, k: int, modality: str = "image", kind: QueryKind | None = None
    ) -> tuple[Vectors, Rows]:
        """Cosines float32 and rows int64 of the index, (n, k), best first; row -1 for no answer.

        Args:
            vectors: float32 (n, dim) of any length but 0.
            k: answers to each.
            modality: whose vectors are searched.
            kind: what the vectors are of, which decides how many lists they visit; None: as many as the
                harder kind.
        """
        if k < 1:
            raise UserError(f"search: at least one answer, got {k}")
        norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if vectors.shape[-1] != self.dim or not np.isfinite(norm).all() or not norm.all():
            raise UserError(f"search: a query needs {self.dim} finite numbers, not all of them 0")
        queries = np.ascontiguousarray(vectors / norm, np.float32)
        similarities, rows = search(self._index(modality, kind), queries, min(k, max(1, len(self.uids))))
        # Rounding, and what a compressed index makes of its vectors, can go beyond.
        return np.clip(similarities, -1, 1), rows

    def hits(self, rows: Rows, similarities: Vectors) -> list[Hit]:
        """What is known of rows (k,) of the index, in their order; rows of -1 are left out."""
        known = rows >= 0
        uids = from_halves(np.asarray(self.uids[rows[known]])).to_pylist()
        places = zip(uids, rows[known].tolist(), similarities[known].tolist(), strict=True)
        return [self._hit(uid, row, similarity) for uid, row, similarity in places]

    def text_vector(self, text: str) -> Vectors:
        """A text in the model's space, float32 (dim,)."""
        if not text.strip():
            raise UserError("search: the text is empty")
        vector: Vectors = self._clip().encode_texts([text])[0]
        return vector

    def image_vector(self, image: str | Path | bytes) -> Vectors:
        """An image in the model's space, float32 (dim,)."""
        from curate.clip.images import ImageError, decode

        name = "image" if isinstance(image, bytes) else str(image)
        try:
            data = image if isinstance(image, bytes) else Path(image).read_bytes()
        except OSError as error:
            raise UserError(f"search: cannot read {name}: {error.strerror or error}") from None
        clip = self._clip()
        try:
            pixels = clip.prepare(decode(data))
        except ImageError as error:
            raise UserError(f"search: {name} is not an image that can be decoded ({error})") from None
        vector: Vectors = clip.encode_images(pixels[None])[0]
        return vector

    def stored_vector(self, uid: str) -> Vectors:
        """The image vector of a sample of the dataset, in the index or not, float32 (dim,).

        Args:
            uid: of the sample, or its first digits, as many as no other sample has.
        """
        if "image" not in self.embedded:
            raise UserError(f"search: '{self.alias}' embeds no images, so none can be looked for by uid")
        uid = complete_uid(uid, self.shards, self._uids_of, "search")
        shard = layout.shard_name(shard_of(uid, self.shards), self.shards)
        path = Family.embeddings(self.alias).path(shard)
        table = self._table(shard) if self.workspace.exists(path) else None
        row = -1 if table is None else pc.index(table["uid"], uid).as_py()
        if table is None or row < 0:
            raise UserError(f"search: {uid} is not embedded by '{self.alias}' (see `curate explain {uid}`)")
        vectors_path = layout.embedding(self.alias, "image", shard)
        with open_vectors(self.workspace, vectors_path, table.num_rows, self.dim) as vectors:
            vector: Vectors = np.asarray(vectors[row], np.float32)
        if not np.isfinite(vector).all():
            raise UserError(f"search: {uid} has no embedding: {table['reason'][row].as_py()}")
        return vector

    def _uids_of(self, number: int) -> pa.ChunkedArray | None:
        """The uids of a shard, None when it is not embedded."""
        shard = layout.shard_name(number, self.shards)
        there = self.workspace.exists(Family.embeddings(self.alias).path(shard))
        return self._table(shard)["uid"] if there else None

    def _hit(self, uid: str, row: int, similarity: float) -> Hit:
        shard = layout.shard_name(shard_of(uid, self.shards), self.shards)
        table = self._table(shard)
        place = pc.index(table["uid"], uid).as_py()
        if place < 0:
            raise DataError(
                f"{self.workspace.url}: {uid} is in the index but not in shard {shard} of "
                f"embeddings/{self.alias}; run `curate index` again"
            )
        url, text = (table[name][place].as_py() or "" for name in ("url", "caption"))
        return Hit(uid, similarity, url, text, shard, row)

    def _table(self, shard: str) -> pa.Table:
        table = self._tables.pop(shard, None)
        if table is None:
            path = Family.embeddings(self.alias).path(shard)
            table = self.workspace.read_table(path, ["uid", "url", "caption", "reason"])
        self._tables[shard] = table  # at the end: the first is the one not asked for the longest
        while len(self._tables) > TABLES_KEPT:
            self._tables.pop(next(iter(self._tables)))
        return table

    def _clip(self) -> Any:
        try:
            return load_fitting(self.model, self.facts, "the index was built")
        except UserError as error:
            raise UserError(f"search: {error}") from None

    def _known(self, modality: str) -> str:
        if modality not in self.modalities:
            raise UserError(
                f"search: the index of '{self.experiment}' has no modality '{modality}' "
                f"(it has {', '.join(self.modalities)})"
            )
        return modality

    def _index(self, modality: str, kind: QueryKind | None) -> Any:
        """The index as queries of a kind use it; mapped once for each number of lists that they visit."""
        nprobe = nprobe_of(self.facts, self._known(modality), kind)
        if (modality, nprobe) not in self._indices:
            index = self._map_index(modality)
            if nprobe is not None:
                lists_of(index).nprobe = nprobe
            self._indices[modality, nprobe] = index
        return self._indices[modality, nprobe]

    def _map_index(self, modality: str) -> Any:
        faiss = faiss_module()
        path = layout.index_file(self.experiment, self.alias, f"{modality}.index")
        local = str(self._files.enter_context(self.workspace.local(path)))
        try:
            # The newer flag maps every part of an index, the older one only inverted lists.
            index = faiss.read_index(local, getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP))
        except RuntimeError:
            raise DataError(
                f"{self.workspace.url}/{path}: not a whole faiss index; run `curate index` again"
            ) from None
        if index.ntotal != len(self.uids) or index.d != self.dim:
            raise DataError(
                f"{self.workspace.url}/{path}: {index.ntotal} vectors of {index.d} dimensions, but "
                f"{len(self.uids)} uids and {self.dim} dimensions are said; run `curate index` again"
            )
        return index

    def _map_uids(self) -> npt.NDArray[Any]:
        path = layout.index_file(self.experiment, self.alias, "uids.npy")
        uids = map_npy(self._files.enter_context(self.workspace.local(path)), f"{self.workspace.url}/{path}")
        if uids.dtype != SUBSET_DTYPE or uids.shape != (self.facts["rows"],):
            raise DataError(
                f"{self.workspace.url}/{path}: expected {self.facts['rows']} uids, "
                f"got {uids.dtype} {uids.shape}"
            )
        return uids


def indices(workspace: Workspace) -> list[tuple[str, str]]:
    """(experiment, model) of every index of a workspace."""
    return [
        (experiment, alias)
        for experiment in workspace.folders(layout.INDICES)
        for alias in workspace.folders(f"{layout.INDICES}/{experiment}")
        if workspace.exists(layout.index_file(experiment, alias, "index.json"))
    ]


def _others(workspace: Workspace) -> str:
    names: Sequence[str] = [f"{experiment}/{alias}" for experiment, alias in indices(workspace)]
    return f" (there are: {', '.join(names)})" if names else ""
