"""What `curate status` prints."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from curate.dataset.account import Step
from curate.dataset.workspace import Workspace
from curate.inspect.status import print_status


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_figure_is_cut_short(tmp_path: Path, width: int) -> None:
    step = Step(
        stage="score/a_scorer_with_quite_a_name",
        units=1_280_000,
        failed=12,
        rows_in=12_800_000_000,
        rows_out=12_800_000_000,
        drops={"odd": 3},
        seconds=3_600_000.0,
        bytes_out=813_000,
        versions=("0.1.0",),
        digest="d",
        errors=(),
    )
    stream = io.StringIO()
    print_status(Console(file=stream, width=width), Workspace(str(tmp_path / "[w]")), [step], 6)
    shown = stream.getvalue()
    row = next(line for line in shown.splitlines() if line.startswith("score/"))
    assert row.split()[:8] == [
        "score/a_scorer_with_quite_a_name",
        "1,280,000",
        "+12",
        "failed",
        "12,800,000,000",
        "12,800,000,000",
        "100.0%",
        "1000",
    ]
    assert row.endswith("813.0 kB")
    assert f"workspace {tmp_path}/[w]\n" in shown
