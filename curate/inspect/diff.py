"""Two selections side by side: what both keep, what only one keeps, and how their columns differ."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.models import PipelineConfig
from curate.dataset.records import RecordStore
from curate.dataset.selections import Selection, selection_refs
from curate.dataset.workspace import Workspace
from curate.errors import UserError

GROUPS = ("only_a", "only_b", "both")
LANGUAGES = 8


@dataclass
class Group:
    """Samples of one kind.

    Attributes:
        samples: how many.
        means: column → mean of its values; absent where there is none.
        languages: language → samples, the most frequent ones.
        examples: uid, text and url of some samples, drawn by uid.
    """

    samples: int = 0
    means: dict[str, float] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """The comparison of two experiments; ``jaccard`` is the share of ``both`` in all that either keeps."""

    a: str
    b: str
    pool: int
    kept_a: int
    kept_b: int
    jaccard: float
    groups: dict[str, Group]


class _Gathering:
    """Sums over the shards of one group. Memory: a few numbers per column and language."""

    def __init__(self, examples: int) -> None:
        self.samples = 0
        self.sums: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.most = examples
        self.drawn: list[tuple[str, dict[str, Any]]] = []

    def add(self, table: pa.Table, numbers: Sequence[str], language: str | None) -> None:
        self.samples += table.num_rows
        for name in numbers:
            values = np.asarray(table[name].cast(pa.float64()).drop_null())
            self.sums[name] += float(values.sum())  # type: ignore[assignment]
            self.counts[name] += len(values)
        if language is not None:
            for entry in pc.value_counts(table[language].combine_chunks()).to_pylist():
                self.languages[entry["values"] or "unknown"] += entry["counts"]
        # The last digits of a uid are as good as a draw, and no shard's own.
        order = np.argsort([uid[::-1] for uid in table["uid"].to_pylist()], kind="stable")[: self.most]
        for row in table.select(["uid", "text", "url"]).take(pa.array(order)).to_pylist():
            self.drawn.append((row["uid"][::-1], row))
        self.drawn = heapq.nsmallest(self.most, self.drawn, key=lambda item: item[0])

    def group(self) -> Group:
        means = {name: self.sums[name] / count for name, count in self.counts.items() if count}
        languages = dict(self.languages.most_common(LANGUAGES))
        return Group(self.samples, means, languages, [row for _, row in self.drawn])


def diff(workspace: Workspace, config: PipelineConfig, a: str, b: str, examples: int = 5) -> Difference:
    """Compare what two experiments keep.

    Raises:
        UserError: an experiment is not there, or has not been run.
    """
    from curate.rules.families import Families
    from curate.rules.pool import Pool

    for name in (a, b):
        if name not in config.filter.experiments:
            known = ", ".join(config.filter.experiments)
            raise UserError(f"diff: no experiment named '{name}' (experiments: {known})")
        if not selection_refs(workspace, name):
            raise UserError(
                f"diff: '{name}' has no selection in {workspace.url} yet; run `curate filter` first"
            )
    families = Families(RecordStore(workspace))
    shards = tuple(families.shards())
    columns = families.columns(workspace, shards[0], tuple(config.embed.models), tuple(config.score.scorers))
    numbers = [n for n, c in columns.items() if pa.types.is_integer(c.type) or pa.types.is_floating(c.type)]
    languages = [n for n in columns if n == "lang" or n.endswith("_lang")]
    language = languages[0] if languages else None
    wanted = list(dict.fromkeys(["text", "url", *numbers, *languages[:1]]))
    gathered = {name: _Gathering(examples) for name in GROUPS}
    chosen = Selection(workspace, a), Selection(workspace, b)
    pool = 0
    for batch in Pool(workspace, shards, columns).scan(wanted):
        for shard, rows in batch.slices():
            table = batch.table[rows]
            pool += table.num_rows
            in_a, in_b = (_among(table["uid"], selection.read(shard)["uid"]) for selection in chosen)
            for name, mask in (("only_a", in_a & ~in_b), ("only_b", in_b & ~in_a), ("both", in_a & in_b)):
                gathered[name].add(table.filter(pa.array(mask)), numbers, language)
    groups = {name: one.group() for name, one in gathered.items()}
    only_a, only_b, both = (groups[name].samples for name in GROUPS)
    either = only_a + only_b + both
    return Difference(a, b, pool, only_a + both, only_b + both, both / either if either else 1.0, groups)


def _among(uids: pa.ChunkedArray, kept: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.is_in(uids, kept.combine_chunks())).astype(bool)
