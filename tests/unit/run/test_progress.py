from __future__ import annotations

import io

from rich.console import Console

from curate.run.progress import StageProgress


def test_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with StageProgress(console, "filter/e", 3, 1) as progress:
        progress.advance(1_000)
        progress.advance(0, failed=True)
    assert "filter/e" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "1 failed" in stream.getvalue()


def test_nothing_elsewhere_when_it_is_quick() -> None:
    stream = io.StringIO()
    with StageProgress(Console(file=stream), "filter/e", 2, 0) as progress:
        progress.advance(1_000)
    assert stream.getvalue() == ""
    assert (progress.rows, progress.done) == (1_000, 1)
