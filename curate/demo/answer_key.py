"""What the pipeline decided about the demo world, held against what was planted there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from curate.config.models import PipelineConfig
from curate.dataset.family import IMAGES, stored_shards
from curate.dataset.selections import Selection
from curate.dataset.workspace import Workspace
from curate.demo.world import World
from curate.reasons import DownloadReason as Reason
from curate.rules.account.explain import open_judge

EXPERIMENT = "curated"

EXPECTED = {
    "ok": None,
    "redirect": None,
    "wrong_type": None,
    "not_found": Reason.HTTP_404,
    "forbidden": Reason.HTTP_403,
    "server_error": Reason.HTTP_5XX,
    "slow": Reason.TIMEOUT,
    "drip": Reason.TIMEOUT,
    "redirect_loop": Reason.REDIRECT,
    "opt_out": Reason.OPT_OUT,
    "tiny": Reason.TOO_SMALL,
    "oversized": Reason.TOO_MANY_PIXELS,
    "extreme_aspect": Reason.ASPECT_RATIO,
    "truncated": Reason.DECODE_ERROR,
    "html": Reason.DECODE_ERROR,
    "empty": Reason.EMPTY_BODY,
    "huge": Reason.TOO_LARGE,
    "private_address": Reason.PRIVATE_ADDRESS,
}
"""What the downloader should say to each kind of answer of the demo web; None is a picture."""

Row = dict[str, Any]


@dataclass
class Score:
    """How well decisions met the truth, among the rows for which there is a truth."""

    should: int = 0
    did: int = 0
    right: int = 0

    def add(self, should: bool, did: bool) -> None:
        """Count one row."""
        self.should += should
        self.did += did
        self.right += should and did

    @property
    def precision(self) -> float:
        """Of what was done, the share that should have been. 1 when nothing was done."""
        return self.right / self.did if self.did else 1.0

    @property
    def recall(self) -> float:
        """Of what should have been done, the share that was. 1 when there was nothing to do."""
        return self.right / self.should if self.should else 1.0


@dataclass
class Key:
    """The comparison: download reasons, every rule of ``curated``, and what each experiment keeps."""

    fetched: dict[str, Counter[str]] = field(default_factory=dict)
    rules: dict[str, Score] = field(default_factory=dict)
    experiments: dict[str, Score] = field(default_factory=dict)
    missing: int = 0
    """Planted pairs that are not candidates, and candidates that were not planted."""


def read_key(workspace: Workspace, config: PipelineConfig, world: World) -> Key:
    """Compare a finished workspace with its world."""
    truth = {row["uid"]: row for row in world.truth().to_pylist()}
    key = Key()
    for shard in stored_shards(workspace, IMAGES):
        for uid, reason in _fetched(workspace, shard):
            row = truth.get(uid)
            if row is None:
                key.missing += 1
                continue
            row["candidate"] = True
            key.fetched.setdefault(row["http_kind"], Counter())[reason or "image"] += 1
    for row in truth.values():
        if "candidate" not in row:
            # Pages that opt out are dropped at ingest, before anybody asks for their pictures.
            if row["http_kind"] == "opt_out":
                key.fetched.setdefault("opt_out", Counter())[Reason.OPT_OUT] += 1
            else:
                key.missing += 1
    groups: Counter[str] = Counter()
    judged: list[tuple[Row, dict[str, bool]]] = []
    for uid, passed in _verdicts(workspace, config):
        row = truth[uid]
        row["group"] = row["duplicate_of"] or row["url"]
        groups[row["group"]] += 1
        judged.append((row, passed))
    for row, passed in judged:
        for rule, did_pass in passed.items():
            score = key.rules.setdefault(rule, Score())
            if rule == "unique":
                # Of a group of equal files all but one should go, whichever they are.
                score.add(groups[row["group"]] > 1 and not did_pass, not did_pass)
            else:
                should_drop = _should_drop(rule, row)
                if should_drop is not None:
                    score.add(should_drop, not did_pass)
    key.rules["unique"].should = sum(n - 1 for n in groups.values())
    wanted = {row["group"] for row, _ in judged if _ideal(row)}
    for name in config.filter.experiments:
        rows = [truth[uid] for uid in _kept(workspace, name)]
        # Of a group of equal files one is wanted; every further copy is one too many.
        right = {row["group"] for row in rows if _ideal(row)}
        key.experiments[name] = Score(len(wanted), len(rows), len(right))
    return key


def print_key(console: Console, key: Key) -> None:
    """Three tables: the downloader's reasons, every rule of ``curated``, and all experiments."""
    fetched = Table(title="download: what was planted, and what was found", title_justify="left")
    for name in ("the web answers with", "expected", "found"):
        fetched.add_column(name)
    for kind, found in sorted(key.fetched.items(), key=lambda item: -sum(item[1].values())):
        expected = EXPECTED[kind] or "image"
        right = found.get(str(expected), 0) == sum(found.values())
        words = ", ".join(f"{reason} {n:,}" for reason, n in found.most_common())
        fetched.add_row(kind, str(expected), words if right else f"[yellow]{words}[/]")
    console.print(fetched)
    if key.missing:
        console.print(f"[red]{key.missing} planted pairs and candidates do not match[/]")
    table = Table(title="filters: drops against the planted truth", title_justify="left")
    table.add_column("rule")
    for name in ("should go", "went", "precision", "recall"):
        table.add_column(name, justify="right")
    for rule, score in key.rules.items():
        table.add_row(
            rule, f"{score.should:,}", f"{score.did:,}", f"{score.precision:.3f}", f"{score.recall:.3f}"
        )
    console.print(table)
    wanted = key.experiments[EXPERIMENT].should
    title = f"experiments, against {wanted:,} wanted pictures"
    table = Table(title=title, title_justify="left")
    table.add_column("experiment")
    for name in ("kept", "wanted ones", "precision", "recall"):
        table.add_column(name, justify="right")
    for experiment, kept in key.experiments.items():
        table.add_row(
            f"[bold]{experiment}[/]" if experiment == EXPERIMENT else experiment,
            f"{kept.did:,}",
            f"{kept.right:,}",
            f"{kept.precision:.3f}",
            f"{kept.recall:.3f}",
        )
    console.print(table)


def _should_drop(rule: str, row: Row) -> bool | None:
    """Whether a rule should drop a row; None where the world has no opinion."""
    if rule == "length":
        return bool(row["alt_kind"] == "too_short")
    if rule == "language":
        return None if row["lang"] is None else bool(row["lang"] != "en")
    if rule == "similarity":
        # The demo CLIP knows English only: what it makes of other languages says nothing.
        return None if row["lang"] not in (None, "en") else not row["match"]
    return bool({"watermark": row["watermark"], "unsafe": row["unsafe"]}[rule])


def _ideal(row: Row) -> bool:
    return bool(row["match"] and row["lang"] == "en" and not row["watermark"] and not row["unsafe"])


def _fetched(workspace: Workspace, shard: str) -> Iterator[tuple[str, str | None]]:
    table = workspace.read_table(IMAGES.path(shard), ["uid", "reason"])
    yield from zip(table["uid"].to_pylist(), table["reason"].to_pylist(), strict=True)


def _kept(workspace: Workspace, experiment: str) -> Iterator[str]:
    selection = Selection(workspace, experiment)
    for shard in selection.kept:
        yield from selection.read(shard)["uid"].to_pylist()


def _verdicts(workspace: Workspace, config: PipelineConfig) -> Iterator[tuple[str, dict[str, bool]]]:
    """uid, and rule → passed, for every sample."""
    experiment = config.filter.experiments[EXPERIMENT]
    models, scorers = tuple(config.embed.models), tuple(config.score.scorers)
    with open_judge(workspace, EXPERIMENT, experiment, models, scorers) as judge:
        for judged in judge.all_shards():
            for i, uid in enumerate(judged.samples["uid"].to_pylist()):
                yield uid, {name: bool(t.passed[i]) for name, t in judged.verdicts.items()}
