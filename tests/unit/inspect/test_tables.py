"""Small results on a terminal and in files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from rich.console import Console

from curate.engine.progress import counted
from curate.errors import UserError
from curate.inspect.tables import cell, print_hits, print_table, write_table

UID = "0123456789abcdef0123456789abcdef"
WIDE = pa.table(
    {
        "uid": [UID, UID[::-1], "0" * 32],
        "url": [f"http://a.example/{i}/{'long/' * 30}x.jpg" for i in range(3)],
        "[/]caption": ["[red]one :dog: [/]", None, "two\n lines"],
        **{f"column_{i}": [1.5, None, 3.0] for i in range(12)},
    }
)


def printed(table: pa.Table, width: int, limit: int = 40, terminal: bool = True) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    print_table(console, table, limit)
    return stream.getvalue()


def test_a_table_that_fits_is_one() -> None:
    table = pa.table({"[b]reason": ["timeout", "[/]"], "n": [1234, 5]})
    lines = printed(table, 40).splitlines()
    assert "[b]reason" in lines[1]
    assert "timeout" in lines[3]
    assert "1234" in lines[3]
    assert "[/]" in lines[4]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_table_that_does_not_fit_is_printed_record_by_record(width: int) -> None:
    lines = printed(WIDE, width).splitlines()
    rules = [i for i, line in enumerate(lines) if line.strip() and set(line.strip()) <= {"─", "-"}]
    assert len(rules) == 2
    assert len(lines) == 3 * len(WIDE.column_names) + 2
    assert lines[0].split() == ["uid", UID]
    assert lines[1].split() == ["url", WIDE["url"][0].as_py()]
    assert lines[2] == "[/]caption  [red]one :dog: [/]"
    assert lines[3].split() == ["column_0", "1.5"]
    second = rules[0] + 1
    assert lines[second + 2].split() == ["[/]caption", "NULL"]
    assert lines[rules[1] + 3].split() == ["[/]caption", "two", "lines"]


def test_what_is_no_terminal_gets_the_table_whole() -> None:
    lines = printed(WIDE, 80, terminal=False).splitlines()
    (row,) = (line for line in lines if UID in line)
    assert len(lines) == 4 + 3
    assert row.count("1.5") == 12
    assert WIDE["url"][0].as_py() in row
    assert "[red]one :dog: [/]" in row


@pytest.mark.parametrize("table", [WIDE, WIDE.select(["uid"])])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_rows(table: pa.Table, terminal: bool) -> None:
    said = printed(table.slice(0, 0), 40, terminal=terminal)
    assert said == f"no rows ({', '.join(table.column_names)})\n"


@pytest.mark.parametrize("width", [20, 200])
def test_how_many_are_not_shown(width: int) -> None:
    assert "\n2 of 3 rows; --limit or --output for more\n" in printed(WIDE, width, limit=2)
    assert printed(WIDE.slice(0, 1), width, limit=0) == "0 of 1 row; --limit or --output for more\n"
    assert " of " not in printed(WIDE, width, limit=3)


def test_columns_of_one_name_are_all_shown() -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert printed(table, 40).splitlines()[3].split("│")[1:3] == [" 1 ", " 2 "]


def test_cells_have_no_control_characters() -> None:
    assert cell("a\x1b[2Jb\x9bc\td") == "a�[2Jb�c d"
    assert cell("a\u200db é") == "a\u200db é"
    assert cell("x" * 65) == "x" * 63 + "…"
    assert cell("x" * 65, 100) == "x" * 65
    assert [cell(v) for v in (None, 0.123456789, 7, True)] == ["NULL", "0.123457", "7", "True"]


def test_counted() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]


def test_hits_are_what_they_are() -> None:
    stream = io.StringIO()
    hit = SimpleNamespace(similarity=0.5, text="[b]a :dog:", uid=UID, url=f"http://h/[x]/{'y' * 90}:cat:")
    print_hits(Console(file=stream, width=40), [hit])
    assert stream.getvalue() == f"0.5000  [b]a :dog:\n        {UID}  {hit.url}\n"


def test_rows_as_lines_of_json(tmp_path: Path) -> None:
    write_table(pa.table({"a": ["é", None]}), tmp_path / "x.jsonl")
    lines = (tmp_path / "x.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"a": "é"}, {"a": None}]


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_column_that_a_file_cannot_hold(tmp_path: Path, name: str) -> None:
    kind = pa.list_(pa.int64()) if name == "x.csv" else pa.month_day_nano_interval()
    with pytest.raises(UserError, match=rf"{name}: a column cannot be written to such a file \("):
        write_table(pa.table({"a": pa.array([None], kind)}), tmp_path / name)
