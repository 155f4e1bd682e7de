"""Building faiss indices: vectors in, index out, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.clip.vectors import Vectors
from curate.errors import UserError
from curate.index.recall import Exact, Rows

RECALL_AT = 10
RECALL_WANTED = 0.95
RECALL_SLACK = 0.01
"""An index that cannot reach the wanted recall takes the fewest lists that come so near to its best."""
MAX_NPROBE = 1024
OPQ_ITERATIONS = 12
OPQ_POINTS = 32_768
"""faiss would take 50 iterations over 65,536 points, on one thread most of the time of a build."""


@dataclass(frozen=True)
class Built:
    """An index and what was measured on it.

    Attributes:
        index: a faiss index, rows in the order they were added.
        nprobe: lists visited per query, None for an index without lists.
        recall: share of the ten best answers that text queries find.
    """

    index: Any
    nprobe: int | None
    recall: float


def faiss_module() -> Any:
    """faiss, or a word on how to get it."""
    try:
        import faiss
    except ImportError:
        raise UserError("index: faiss is not installed; pip install 'curate[cpu]'") from None
    return faiss


def new_index(kind: str, dim: int) -> Any:
    """An empty index for inner products.

    Raises:
        UserError: faiss does not know the factory string, or it asks for HNSW.
    """
    faiss = faiss_module()
    if "HNSW" in kind:
        raise UserError(
            f"index.type: '{kind}': an HNSW graph built in parallel is another one each time and cannot be "
            "memory-mapped; use `auto`, `Flat` or an IVF type such as `IVF4096,Flat`"
        )
    try:
        index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(
            f"index.type: faiss cannot make '{kind}' for {dim} dimensions: {_words(error)}"
        ) from None
    lists = lists_of(index)
    if lists is not None:
        lists.cp.min_points_per_centroid = 1  # ``index_type`` has seen to it; faiss would print warnings
    if kind.startswith("OPQ"):
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        rotation.niter, rotation.max_train_points = OPQ_ITERATIONS, OPQ_POINTS
    return index


def build(
    index: Any,
    kind: str,
    training: Vectors,
    blocks: Iterable[tuple[int, Vectors]],
    exact: Exact,
    report: Callable[[int], None] = lambda rows: None,
) -> Built:
    """Train an index, add all vectors, choose how many lists a query visits.

    Args:
        index: from ``new_index``.
        kind: its factory string, for errors.
        training: float32 (t, dim).
        blocks: (first row, float32 (n, dim)) in row order.
        exact: text queries; learns the exact answers while the vectors pass by.
        report: called with the number of rows added so far.
    """
    if not index.is_trained:
        _train(index, kind, training)
    for first, vectors in blocks:
        index.add(vectors)
        exact.add(first, vectors)
        report(index.ntotal)
    lists = lists_of(index)
    if lists is None:
        return Built(index, None, _recall(index, exact))
    measured: dict[int, float] = {}
    nprobe = 1
    while nprobe <= min(lists.nlist, MAX_NPROBE):
        lists.nprobe = nprobe
        measured[nprobe] = _recall(index, exact)
        if measured[nprobe] >= RECALL_WANTED:
            break
        nprobe *= 2
    wanted = min(RECALL_WANTED, max(measured.values()) - RECALL_SLACK)
    lists.nprobe = min(n for n, recall in measured.items() if recall >= wanted)
    return Built(index, int(lists.nprobe), measured[int(lists.nprobe)])


def _train(index: Any, kind: str, training: Vectors) -> None:
    """Train; with a product quantiser on one thread, whose sums alone come out the same everywhere.

    Coarse k-means gives the same bytes on any number of threads (each centroid is summed by one).
    """
    faiss = faiss_module()
    threads = faiss.omp_get_max_threads()
    if "PQ" in kind:
        faiss.omp_set_num_threads(1)
    try:
        index.train(training)
    except RuntimeError as error:
        raise UserError(
            f"index.type: '{kind}' cannot be trained on {len(training)} vectors: {_words(error)}"
        ) from None
    finally:
        faiss.omp_set_num_threads(threads)


def lists_of(index: Any) -> Any:
    """The inverted file inside an index, or None."""
    faiss = faiss_module()
    return faiss.try_extract_index_ivf(index)


def save(index: Any, path: Path) -> None:
    """Write an index file."""
    faiss_module().write_index(index, str(path))


def search(index: Any, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
    """Similarities and rows, (q, k) each, best first; row -1 where there are fewer than k."""
    if index.ntotal == 0:
        shape = (len(queries), k)
        return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
    return index.search(queries, k)  # type: ignore[no-any-return]


def _recall(index: Any, exact: Exact) -> float:
    if not len(exact.queries):
        return 1.0
    return exact.recall(search(index, exact.queries, RECALL_AT + 1)[1], RECALL_AT)


def _words(error: RuntimeError) -> str:
    """The sentence in a faiss error, without its C++ function and file."""
    text = str(error).strip()
    if "could not parse index string" in text:
        return "no such factory string"
    return text.rpartition("Error: ")[2].splitlines()[-1][:200]
