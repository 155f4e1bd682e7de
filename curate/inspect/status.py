"""What each stage of a workspace has done, read from its records."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curate.dataset import layout
from curate.dataset.account import Step, step_of
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.progress import counted, duration_text
from curate.errors import UserError
from curate.inspect.tables import print_whole
from curate.terminal import escaped
from curate.verbs import stage_order


def need_workspace(workspace: Workspace) -> None:
    """Raises UserError when the folder holds no workspace."""
    if not workspace.exists(layout.CONFIG.split("/", maxsplit=1)[0]):
        raise UserError(f"{workspace.url}: no workspace here (no .curate folder); give one with --workspace")


def read_status(workspace: Workspace) -> list[Step]:
    """One entry per stage that has records, in order of the data flow.

    Raises:
        UserError: the folder holds no workspace.
    """
    need_workspace(workspace)
    names = sorted(RecordStore(workspace).stages(), key=stage_order)
    return [step for name in names if (step := step_of(workspace, name)) is not None]


def print_status(console: Console, workspace: Workspace, statuses: list[Step], reasons: int) -> None:
    """A table of stages, under it why rows were dropped and what is quarantined.

    Args:
        console: where to print.
        workspace: named in the title.
        statuses: of ``read_status``.
        reasons: how many drop reasons to name per stage.
    """
    console.print(f"[italic]workspace {escape(workspace.url)}[/]\n", highlight=False, soft_wrap=True)
    # A figure is never cut short to fit a line.
    print_whole(console, status_table(statuses))
    console.print()
    for s in statuses:
        named = list(s.drops.items())[:reasons]
        words = [f"{escaped(reason)} [bold]{n:,}[/]" for reason, n in named]
        if len(s.drops) > reasons:
            words.append(f"{counted(len(s.drops) - reasons, 'more reason')} (--reasons)")
        if words:
            console.print(f"{s.stage} dropped: {', '.join(words)}", highlight=False, soft_wrap=True)
        for error in s.errors:
            console.print(f"[red]✗[/] {s.stage} {escaped(error)}", highlight=False, soft_wrap=True)


def status_table(statuses: list[Step]) -> Table:
    """A row for every stage."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
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
            size_text(s.bytes_out),
        )
    return table


def size_text(size: int) -> str:
    """``1.4 GB``, decimal units."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
