from __future__ import annotations

import io

import pytest
from rich.console import Console

from curate.run.progress import StageProgress


def test_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with StageProgress(console, "filter/e", 3, 1) as progress:
        progress.advance(1_000, 900, {"small": 100})
        progress.fail()
    assert "filter/e" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "1 failed" in stream.getvalue()


def test_nothing_elsewhere_when_it_is_quick() -> None:
    stream = io.StringIO()
    with StageProgress(Console(file=stream), "filter/e", 2, 0) as progress:
        progress.advance(1_000, 1_000, {})
    assert stream.getvalue() == ""
    assert (progress.rows, progress.done) == (1_000, 1)


@pytest.mark.parametrize(
    ("units", "text"),
    [
        ([], "0 rows"),
        ([(1, 1, {})], "1 row"),
        ([(2_000, 500, {"a": 1_500}), (605, 281, {"b": 324})], "2,605 rows → 781 (30.0%)"),
        (
            [(9, 0, {"a": 2, "b": 7}), (1, 0, {"c": 1}), (1, 0, {"d": 1})],
            "11 rows → [yellow]none[/] (b 7, a 2, c 1)",
        ),
    ],
)
def test_the_account_says_what_is_left(units: list[tuple[int, int, dict[str, int]]], text: str) -> None:
    progress = StageProgress(Console(file=io.StringIO()), "filter/e", 3, 0)
    for rows, kept, drops in units:
        progress.advance(rows, kept, drops)
    assert progress.account() == text
