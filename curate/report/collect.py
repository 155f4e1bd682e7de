"""One pass over the samples of an experiment: histograms, groups, sizes, and who is in which gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.dataset.workspace import Workspace
from curate.report.picking import Gallery, draws, ranks
from curate.report.statistics import (
    Floats,
    Groups,
    Histogram,
    Mask,
    edges_for,
    hosts,
)
from curate.report.verdicts import KEPT, JudgedShard, Replay, RuleCut
from curate.samples.columns import Column, read_samples
from curate.samples.pool import doubles

PROBED = 16
"""Shards that are looked at to choose the bins of histograms."""

FORGET_AT = 10_000
"""Fates held before those of samples that are no longer picked are dropped."""

ASPECTS = np.geomspace(1 / 4, 4, 34)
SIZES = np.geomspace(16, 8192, 37)


@dataclass
class PoolStatistics:
    """What one pass over the samples found.

    Attributes:
        histograms: column → histogram.
        aspects: original width over height.
        sizes: int64, shape (36, 36): samples by original width and height.
        galleries: reason → samples dropped for it, and ``kept``.
        near: cut → samples just below and just above it.
        fates: shard and row of a picked sample → its reason (or ``kept``), and whether it did not pass a
            rule about unsafe pictures.
    """

    samples: int = 0
    kept: int = 0
    histograms: dict[str, Histogram] = field(default_factory=dict)
    aspects: Histogram | None = None
    sizes: npt.NDArray[np.int64] | None = None
    hosts: Groups | None = None
    languages: Groups | None = None
    galleries: dict[str, Gallery] = field(default_factory=dict)
    near: dict[RuleCut, tuple[Gallery, Gallery]] = field(default_factory=dict)
    fates: dict[tuple[str, int], tuple[str, bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportPlan:
    """What a report shows of the samples.

    Attributes:
        numeric: columns to draw histograms of.
        cuts: where the rules cut these columns.
        language: the column with the language, if there is one.
        samples: pictures per gallery.
        seed: of the galleries.
    """

    numeric: tuple[str, ...]
    cuts: tuple[RuleCut, ...]
    language: str | None
    samples: int
    seed: int = 0


def collect(
    workspace: Workspace, replay: Replay, shards: Sequence[str], columns: dict[str, Column], plan: ReportPlan
) -> PoolStatistics:
    """Read every shard once (and up to ``PROBED`` of them twice); memory is that of one shard."""
    found = PoolStatistics()
    names = _names(columns, plan)
    for name, values in _probe(workspace, shards, columns, plan).items():
        cuts = [each.value for each in plan.cuts if each.cut.column == name]
        edges, log = edges_for(values, cuts, pa.types.is_integer(columns[name].type))
        found.histograms[name] = Histogram(edges, log)
    if {"original_width", "original_height"} <= set(columns):
        found.aspects = Histogram(ASPECTS, log=True)
        found.sizes = np.zeros((len(SIZES) - 1, len(SIZES) - 1), np.int64)
    if "url" in columns:
        found.hosts = Groups()
    if plan.language:
        found.languages = Groups()
    half = (plan.samples + 1) // 2
    found.galleries = {reason: Gallery(plan.samples) for reason in replay.reasons}
    found.near = {each: (Gallery(half), Gallery(half)) for each in plan.cuts}
    order = ranks(len(shards), plan.seed)
    for rank, part in zip(order.tolist(), replay.shards(shards, names), strict=True):
        kept = part.reason == KEPT
        found.samples += len(kept)
        found.kept += int(kept.sum())
        _describe(found, part, kept, plan)
        _offer(found, part, replay.reasons, rank, plan)
        if len(found.fates) > FORGET_AT:
            _forget(found)
    return found


def _names(columns: dict[str, Column], plan: ReportPlan) -> list[str]:
    extra = [n for n in ("url", "original_width", "original_height") if n in columns]
    return [*plan.numeric, *extra, *([plan.language] if plan.language else [])]


def _probe(
    workspace: Workspace, shards: Sequence[str], columns: dict[str, Column], plan: ReportPlan
) -> dict[str, Floats]:
    """Values of the numeric columns in a few shards, evenly spread."""
    if not shards or not plan.numeric:
        return {}
    places = np.unique(np.linspace(0, len(shards) - 1, min(PROBED, len(shards))).astype(int))
    tables = [read_samples(workspace, shards[i], plan.numeric, columns) for i in places]
    return {name: np.concatenate([doubles(t[name]) for t in tables]) for name in plan.numeric}


def _describe(found: PoolStatistics, part: JudgedShard, kept: Mask, plan: ReportPlan) -> None:
    for name, histogram in found.histograms.items():
        histogram.add(doubles(part.samples[name]), kept)
    if found.aspects is not None and found.sizes is not None:
        width, height = (doubles(part.samples[f"original_{side}"]) for side in ("width", "height"))
        there = (width > 0) & (height > 0)
        found.aspects.add(np.divide(width, height, out=np.full_like(width, np.nan), where=there), kept)
        bins = len(SIZES) - 1
        across, down = (_bin(v[there]) for v in (width, height))
        found.sizes += np.bincount(across * bins + down, minlength=bins * bins).reshape(bins, bins)
    if found.hosts is not None:
        found.hosts.add(hosts(part.samples["url"]), kept)
    if found.languages is not None and plan.language:
        found.languages.add(part.samples[plan.language], kept)


def _bin(pixels: Floats) -> npt.NDArray[np.int64]:
    """The bin of ``SIZES`` of each length; shorter and longer ones are in the outer bins."""
    return np.clip(np.searchsorted(SIZES, pixels, side="right") - 1, 0, len(SIZES) - 2)


def _offer(
    found: PoolStatistics, part: JudgedShard, reasons: Sequence[str], rank: int, plan: ReportPlan
) -> None:
    drawn = draws(len(part.reason), plan.seed, rank)
    offered = []
    for i, reason in enumerate(reasons):
        rows = np.flatnonzero(part.reason == i)
        found.galleries[reason].offer(part.shard, rank, rows, drawn[rows])
        offered.append(found.galleries[reason])
    for each, (below, above) in found.near.items():
        values = doubles(part.samples[each.cut.column])
        distance = np.abs(values - each.value)
        low = values < each.value if each.cut.op in ("<", ">=") else values <= each.value
        for gallery, rows in (
            (below, np.flatnonzero(low)),
            (above, np.flatnonzero(~low & ~np.isnan(values))),
        ):
            gallery.offer(part.shard, rank, rows, distance[rows])
            offered.append(gallery)
    picked = {(p.shard, p.row) for g in offered for p in g.picks if p.shard == part.shard}
    for shard, row in picked:
        found.fates[shard, row] = (reasons[part.reason[row]], bool(part.unsafe[row]))


def _forget(found: PoolStatistics) -> None:
    """Drop the fates of samples that others have since taken the place of."""
    galleries = [*found.galleries.values(), *(g for pair in found.near.values() for g in pair)]
    picked = {(p.shard, p.row) for g in galleries for p in g.picks}
    found.fates = {place: fate for place, fate in found.fates.items() if place in picked}
