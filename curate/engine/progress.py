"""Progress with rate, success and time left: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console

from curate.engine.reporting import Report

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_SECONDS = 15.0
"""Between two lines where there is no terminal."""

REASONS = 3
"""Named at once."""


class StageProgress:
    """The progress of one stage, in units and rows, also of units that have not ended yet."""

    def __init__(self, console: Console, name: str, total: int, done: int) -> None:
        self.console, self.name, self.total, self.done = console, name, total, done
        self.first = done
        self.rows = self.kept = self.failed = self.bytes_lost = 0
        self.drops: Counter[str] = Counter()
        self.running: dict[str, Report] = {}
        self.start = self.said = time.monotonic()
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> StageProgress:
        if self.console.is_terminal:
            self.bar = _bar(self.console)
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=self.total, completed=self.done, said="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, unit: str, rows: int, kept: int, drops: Mapping[str, int]) -> None:
        """One more unit is done: rows that it read, rows that came out, why the others did not."""
        with self._lock:
            self.running.pop(unit, None)
            self.rows += rows
            self.kept += kept
            self.drops.update(drops)
            self._step()

    def fail(self, unit: str) -> None:
        """One more unit is given up."""
        with self._lock:
            self.running.pop(unit, None)
            self.failed += 1
            self._step()

    def hear(self, report: Report) -> None:
        """A unit tells how far it is. May be called by any thread."""
        if report.stage == self.name:
            with self._lock:
                self.running[report.unit] = report
                self._show()

    def account(self) -> str:
        """``2,605 rows → 781 (30.0%)``; when nothing is left, why."""
        rows = counted(self.rows, "row")
        if self.kept == self.rows:
            return rows
        if self.kept:
            return f"{rows} → {self.kept:,} ({self.kept / self.rows:.1%})"
        why = ", ".join(f"{reason} {n:,}" for reason, n in self.drops.most_common(REASONS))
        return f"{rows} → [yellow]none[/] ({why})"

    def _step(self) -> None:
        self.done += 1
        self._show()

    def _show(self) -> None:
        if self.bar is not None and self.task is not None:
            note = f"  [red]{self.failed} failed[/]" if self.failed else ""
            self.bar.update(self.task, completed=self.reached, said=f"{self.said_of_rows}{note}")
        elif time.monotonic() - self.said > QUIET_SECONDS:
            self.said = time.monotonic()
            left = duration_text(self.seconds_left)
            self.console.print(
                f"{self.name}: {self.done}/{self.total} units, {self.said_of_rows}, {left} left",
                highlight=False,
                soft_wrap=True,
            )

    @property
    def said_of_rows(self) -> str:
        """``24,310 rows, 812 rows/s, 71% kept, timeout 9%, http_404 8%``."""
        rows = self.rows + sum(r.rows for r in self.running.values())
        kept = self.kept + sum(r.kept for r in self.running.values())
        drops = self.drops.copy()
        for report in self.running.values():
            drops.update(report.drops)
        words = [counted(rows, "row"), rate_text(rows / max(self.seconds, 1e-9))]
        if rows and kept < rows:
            words.append(f"{kept / rows:.0%} kept")
            words += [f"{reason} {n / rows:.0%}" for reason, n in drops.most_common(REASONS)]
        return ", ".join(words)

    @property
    def reached(self) -> float:
        """Units that are done, and parts of those that run, by the rows that a unit had so far."""
        units = self.done - self.first - self.failed
        usual = self.rows / units if units > 0 else 0
        return self.done + sum(min(r.rows / usual, 1.0) for r in self.running.values() if usual)

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self.start

    @property
    def seconds_left(self) -> float:
        """By the pace so far."""
        reached = self.reached
        return self.seconds / max(reached - self.first, 1) * (self.total - reached)


def _bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description:<16}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def counted(number: int, noun: str) -> str:
    """``1 row``, ``1,234 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def rate_text(rate: float) -> str:
    """``12,345 rows/s``; one decimal below ten."""
    return f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:.1f} rows/s"


def duration_text(seconds: float) -> str:
    """``1 h 02 min``, ``3 min 05 s`` or ``4.2 s``."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{seconds:.1f} s"
