"""Building faiss indices: vectors in, index out, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.clip.vectors import Vectors
from curate.errors import UserError
from curate.index.queries import KINDS, QueryKind
from curate.index.recall import Exact, Rows

RECALL_AT = 10
RECALL_SLACK = 0.01
"""An index that misses the recall it should have visits the fewest lists that come so near to its best."""
MAX_NPROBE = 4096
"""Lists that a query visits at most: all lists of an index below a million vectors."""
OPQ_ITERATIONS = 12
OPQ_POINTS = 32_768
"""faiss would take 50 iterations over 65,536 points, on one thread most of the time of a build."""


@dataclass(frozen=True)
class Built:
    """An index and what was measured on it.

    Attributes:
        index: a faiss index, rows in the order they were added. Its own ``nprobe``, which holds for whoever
            opens the file without ``index.json``, is the largest of ``nprobe``.
        lists: how many it has, None for an index without lists.
        nprobe: lists that each kind of queries should visit, None for an index without lists; of a kind that
            was not measured as many as may be.
        recall: of every kind of queries that there were, the share of the ten best answers that it finds so.
    """

    index: Any
    lists: int | None
    nprobe: Mapping[QueryKind, int] | None
    recall: Mapping[QueryKind, float]


def faiss_module() -> Any:
    """faiss, or a word on how to get it."""
    try:
        import faiss
    except ImportError:
        raise UserError("index: faiss is not installed; pip install 'curate[cpu]'") from None
    return faiss


def new_index(factory: str, dim: int) -> Any:
    """An empty index for inner products.

    Raises:
        UserError: faiss does not know the factory string, or it asks for HNSW.
    """
    faiss = faiss_module()
    if "HNSW" in factory:
        raise UserError(
            f"index.type: '{factory}': an HNSW graph built in parallel is another one each time and cannot "
            "be memory-mapped; use `auto`, `Flat` or an IVF type such as `IVF4096,Flat`"
        )
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(
            f"index.type: faiss cannot make '{factory}' for {dim} dimensions: {_words(error)}"
        ) from None
    lists = lists_of(index)
    if lists is not None:
        lists.cp.min_points_per_centroid = 1  # ``index_type`` has seen to it; faiss would print warnings
    if factory.startswith("OPQ"):
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        rotation.niter, rotation.max_train_points = OPQ_ITERATIONS, OPQ_POINTS
    return index


def build(
    index: Any,
    factory: str,
    training: Vectors,
    blocks: Iterable[tuple[int, Vectors]],
    asked: Mapping[QueryKind, Exact],
    target: float,
    report: Callable[[int], None] = lambda rows: None,
) -> Built:
    """Train an index, add all vectors, choose for every kind of queries how many lists they visit.

    Queries by text need many more lists than queries by image: they lie beside the cloud of the images, so
    that their neighbours are spread over all of it.

    Args:
        index: from ``new_index``.
        factory: its factory string, for errors.
        training: float32 (t, dim).
        blocks: (first row, float32 (n, dim)) in row order.
        asked: queries of each kind; they learn their exact answers while the vectors pass by.
        target: recall that each kind should have, with as few lists as that takes.
        report: called with the number of rows added so far.
    """
    if not index.is_trained:
        _train(index, factory, training)
    for first, vectors in blocks:
        index.add(vectors)
        for exact in asked.values():
            exact.add(first, vectors)
        report(index.ntotal)
    lists = lists_of(index)
    if lists is None:
        return Built(index, None, None, {kind: _recall(index, exact) for kind, exact in asked.items()})
    tuned = {kind: _tuned(index, lists, exact, target) for kind, exact in asked.items()}
    nprobe = dict.fromkeys(KINDS, min(lists.nlist, MAX_NPROBE)) | {kind: n for kind, (n, _) in tuned.items()}
    lists.nprobe = max(nprobe.values())
    return Built(index, int(lists.nlist), nprobe, {kind: recall for kind, (_, recall) in tuned.items()})


def _tuned(index: Any, lists: Any, exact: Exact, target: float) -> tuple[int, float]:
    """The fewest lists with the wanted recall, or of those that all miss it with nearly the best, and what
    they have."""
    measured: dict[int, float] = {}
    for nprobe in _numbers(min(lists.nlist, MAX_NPROBE)):
        lists.nprobe = nprobe
        measured[nprobe] = _recall(index, exact)
        if measured[nprobe] >= target:
            return nprobe, measured[nprobe]
    enough = max(measured.values()) - RECALL_SLACK
    nprobe = min(n for n, recall in measured.items() if recall >= enough)
    return nprobe, measured[nprobe]


def _numbers(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, … and the most."""
    number = 1
    while number < most:
        yield number
        if number >= 2 and number + number // 2 < most:
            yield number + number // 2
        number *= 2
    yield most


def _train(index: Any, factory: str, training: Vectors) -> None:
    """Train; with a product quantiser on one thread, whose sums alone come out the same everywhere.

    Coarse k-means gives the same bytes on any number of threads (each centroid is summed by one).
    """
    faiss = faiss_module()
    threads = faiss.omp_get_max_threads()
    if "PQ" in factory:
        faiss.omp_set_num_threads(1)
    try:
        index.train(training)
    except RuntimeError as error:
        raise UserError(
            f"index.type: '{factory}' cannot be trained on {len(training)} vectors: {_words(error)}"
        ) from None
    finally:
        faiss.omp_set_num_threads(threads)


def lists_of(index: Any) -> Any:
    """The inverted file inside an index, or None."""
    faiss = faiss_module()
    return faiss.try_extract_index_ivf(index)


def is_exact(index: Any) -> bool:
    """Whether an index compares a query with every vector as it is."""
    return isinstance(index, faiss_module().IndexFlat)


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
