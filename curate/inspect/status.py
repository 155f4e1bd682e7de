"""What each stage of a workspace has done, read from its records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.run.progress import duration_text

ORDER = ("parse", "ingest", "download", "embed", "score", "filter", "index", "export", "report")


@dataclass
class StageStatus:
    """Sums over the records of one stage."""

    stage: str
    units: int = 0
    failed: int = 0
    rows_in: int = 0
    rows_out: int = 0
    seconds: float = 0.0
    bytes: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    finished: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**self.__dict__, "drops": dict(self.drops.most_common())}


def stage_order(name: str) -> tuple[int, str]:
    """Sort key: data flow first, then name."""
    verb = name.partition("/")[0]
    return (ORDER.index(verb) if verb in ORDER else len(ORDER), name)


def read_status(workspace: Workspace) -> list[StageStatus]:
    """One entry per stage that has records, in order of the data flow.

    Raises:
        UserError: the folder holds no workspace.
    """
    store = RecordStore(workspace)
    if not workspace.exists(layout.CONFIG.split("/", maxsplit=1)[0]):
        raise UserError(f"{workspace.url}: no workspace here (no .curate folder); give one with --workspace")
    found = []
    for stage in sorted(store.stages(), key=stage_order):
        status = StageStatus(stage)
        for record in store.iterate(stage):
            if record.failed:
                status.failed += 1
                status.errors.append(f"{record.unit}: {record.error}")
                continue
            status.units += 1
            status.rows_in += record.rows_in
            status.rows_out += record.rows_out
            status.seconds += record.seconds
            status.bytes += sum(ref.size for ref in record.outputs)
            status.drops.update(record.drops)
            status.finished = max(status.finished, record.finished)
        found.append(status)
    return found


def print_status(console: Console, workspace: Workspace, statuses: list[StageStatus], reasons: int) -> None:
    """A table of stages, under it why rows were dropped and what is quarantined.

    Args:
        console: where to print.
        workspace: named in the title.
        statuses: of ``read_status``.
        reasons: how many drop reasons to name per stage.
    """
    table = Table(title=f"workspace {workspace.url}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("units", "rows in", "rows out", "kept", "work", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for s in statuses:
        failed = f" [red]+{s.failed:,} failed[/]" if s.failed else ""
        table.add_row(
            s.stage,
            f"{s.units:,}{failed}",
            f"{s.rows_in:,}",
            f"{s.rows_out:,}",
            f"{s.rows_out / s.rows_in:.1%}" if s.rows_in else "",
            duration_text(s.seconds),
            size_text(s.bytes),
        )
    console.print(table)
    for s in statuses:
        named = s.drops.most_common(reasons)
        words = [f"{reason} [bold]{n:,}[/]" for reason, n in named]
        if len(s.drops) > reasons:
            words.append(f"{len(s.drops) - reasons} more reasons (--reasons)")
        if words:
            console.print(f"{s.stage} dropped: {', '.join(words)}", highlight=False, soft_wrap=True)
        for error in s.errors[:5]:
            console.print(f"[red]✗[/] {s.stage} {error}", highlight=False, soft_wrap=True)


def size_text(size: int) -> str:
    """``1.4 GB``, decimal units."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
