from __future__ import annotations

import io

import pytest
from rich.console import Console

from curate.engine.progress import StageProgress
from curate.engine.reporting import Report, received, report, reporting


def test_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with StageProgress(console, "filter/e", 3, 1) as progress:
        progress.advance("a", 1_000, 900, {"small": 100})
        progress.fail("b")
    assert "filter/e" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "1 failed" in stream.getvalue()


def test_nothing_elsewhere_when_it_is_quick() -> None:
    stream = io.StringIO()
    with StageProgress(Console(file=stream), "filter/e", 2, 0) as progress:
        progress.advance("a", 1_000, 1_000, {})
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
        progress.advance("u", rows, kept, drops)
    assert progress.account() == text


def test_units_that_run_are_seen() -> None:
    """Rows, success and reasons move within a unit, and nothing is counted twice when it ends."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200)
    with StageProgress(console, "download", 4, 0) as progress:
        progress.advance("a", 1_000, 800, {"timeout": 200})
        progress.hear(Report("download", "b", 500, 100, {"http_404": 400}))
        progress.hear(Report("embed/b32", "b", 9, 9, {}))  # of a stage that is done in the same pass
        assert progress.said_of_rows.startswith("1,500 rows, ")
        assert progress.said_of_rows.endswith("60% kept, http_404 27%, timeout 13%")
        assert progress.reached == pytest.approx(1.5)
        progress.advance("b", 1_000, 500, {"http_404": 500})
        assert progress.reached == 2
        assert progress.said_of_rows.startswith("2,000 rows")
        assert progress.account() == "2,000 rows → 1,300 (65.0%)"
    assert "http_404 25%" in stream.getvalue()


def test_reports_are_few_and_only_of_who_runs() -> None:
    heard: list[Report] = []
    report(1, 1, {})
    with reporting("download", "a", heard.append):
        for rows in range(1_000):
            report(rows, 0, {"timeout": rows})
    report(2, 2, {})
    assert heard == []  # a unit that is over within a second says nothing


def test_a_report_says_what_a_unit_said(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Report] = []
    monkeypatch.setattr("curate.engine.reporting.SECONDS", 0.0)
    with reporting("download", "a", heard.append):
        report(5, 3, {"timeout": 2})
    assert heard == [Report("download", "a", 5, 3, {"timeout": 2})]
    assert received((0.0, vars(heard[0]))) == heard[0]
    assert received((0.0, {"of": "another version"})) is None
