"""k-means on unit vectors, the same bytes every time.

Written out rather than taken from faiss, which is an optional dependency of ours: it runs on a GPU as
it stands, and its sums are exact (stored vectors are multiples of 2**-24, so the float64 sum of a
billion of them loses nothing), which makes them independent of order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from curate.clip.vectors import Stored, Vectors
from curate.score.vectors.compute import COLS, Chunk, best_match, row_blocks


def kmeans(
    points: Stored, clusters: int, iterations: int, spherical: bool, device: torch.device
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Lloyd's algorithm from the first ``clusters`` points.

    A cluster that loses all its points starts anew at the point that is farthest from its centroid.

    Args:
        points: float16 (m, dim), unit length, in random order, m >= clusters.
        clusters: k.
        iterations: at most so many; fewer when no point changes its cluster.
        spherical: centroids are brought to unit length after every round.
        device: where to compute.

    Returns:
        Centroids, float32 (k, dim), and how many points each had in the last round, int64 (k,).
    """
    centroids = torch.from_numpy(np.array(points[:clusters])).to(device).double()
    before = np.full(len(points), -1, np.int64)
    for _ in range(iterations):
        if spherical:
            centroids = _unit(centroids)
        nearest, similarity, sums = _assigned(points, centroids.float(), spherical, device)
        sizes = np.bincount(nearest, minlength=clusters)
        if np.array_equal(nearest, before):
            break
        before = nearest
        counts = torch.from_numpy(sizes).to(device).double()
        centroids = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        empty = np.flatnonzero(sizes == 0)
        farthest = np.argsort(similarity, kind="stable")[: len(empty)]
        centroids[torch.from_numpy(empty).to(device)] = (
            torch.from_numpy(np.array(points[farthest])).to(device).double()
        )
    return (_unit(centroids) if spherical else centroids).float().cpu().numpy(), sizes


def assign(
    stored: npt.NDArray[np.floating],
    centroids: Vectors,
    spherical: bool,
    device: torch.device,
    as_stored: bool = False,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Nearest centroid of vectors (n, dim) and the cosine with it.

    Nearest by inner product with centroids of unit length when spherical, else by Euclidean distance.
    ``as_stored`` leaves the centroids of an inner product as long as they are.
    int64 (n,), -1 without an embedding; float64 (n,), NaN there.
    """
    numbers = np.full(len(stored), -1, np.int64)
    cosines = np.full(len(stored), np.nan)
    table = torch.from_numpy(np.array(centroids, np.float32)).to(device)
    if spherical and not as_stored:
        table = _unit(table.double()).float()
    for part, rows, known in row_blocks(stored, device):
        _, number = best_match(rows, _chunks(table, spherical))
        numbers[part] = number.masked_fill(~known, -1).cpu().numpy()
        cosines[part] = _cosine(rows, table[number]).masked_fill(~known, torch.nan).cpu().numpy()
    return numbers, cosines


def _assigned(
    points: Stored, centroids: torch.Tensor, spherical: bool, device: torch.device
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], torch.Tensor]:
    """Cluster and cosine of each point, and the sum of each cluster's points, float64 (k, dim)."""
    numbers = np.empty(len(points), np.int64)
    cosines = np.empty(len(points))
    sums = torch.zeros(centroids.shape, dtype=torch.float64, device=device)
    for part, rows, _ in row_blocks(points, device):
        _, number = best_match(rows, _chunks(centroids, spherical))
        numbers[part] = number.cpu().numpy()
        cosines[part] = _cosine(rows, centroids[number]).cpu().numpy()
        sums.index_add_(0, number, rows.double())
    return numbers, cosines, sums


def _chunks(centroids: torch.Tensor, spherical: bool) -> Iterator[Chunk]:
    """Centroids in blocks; |x - c|² is least where x·c - |c|²/2 is largest."""
    offset = None if spherical else -(centroids.double() ** 2).sum(dim=1).float() / 2
    for first in range(0, len(centroids), COLS):
        part = slice(first, first + COLS)
        yield Chunk(first, centroids[part], None, None if offset is None else offset[part])


def _cosine(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    wide = centroids.double()
    length = torch.linalg.vector_norm(wide, dim=1)
    product = (rows.double() * wide).sum(dim=1)
    return torch.where(length > 0, product / length.clamp(min=1e-300), 0.0)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Unit length, float64 (k, dim); a mean of zero stays zero."""
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return torch.where(length > 0, vectors / length.clamp(min=1e-300), vectors)
