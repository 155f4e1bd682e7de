"""What comes from data is shown and steers no terminal, wherever it is printed."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live
from rich.text import Text

from curate.cli import _fail
from curate.dataset.account import Step
from curate.dataset.workspace import Workspace
from curate.filter.grid_files import Comparison
from curate.inspect.diff import Difference, Example, Group
from curate.inspect.diff_text import print_diff
from curate.inspect.explain_text import print_trail
from curate.inspect.grid_text import print_comparison
from curate.inspect.status import print_status
from curate.inspect.tables import print_hits, print_table
from curate.terminal import SafeConsole, json_text, one_line, printable

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
CLEAR = "\x1b[2J\x1b[H"
TITLE = "\x1b]0;owned\x07"
LINK = "\x1b]8;;http://evil.example/\x1b\\good.example\x1b]8;;\x1b\\"
C1 = "\x9b31m\x9d0;x\x9c\x85"
OVERRIDE = "\u202egpj.exe\u202c\u2066x\u2069\u200f\u200e\u061c"
EVIL = f"[/]{CLEAR}{TITLE}{LINK}{C1}{OVERRIDE}\u2028\r\x08\x7f"


def steers(text: str) -> set[str]:
    """Characters that a terminal acts on, by the Unicode database."""
    return {
        c
        for c in text
        if (unicodedata.category(c) in ("Cc", "Zl", "Zp") and c not in "\n\t")
        or unicodedata.bidirectional(c) in BIDI
        or c in "\u200e\u200f\u061c"
    }


@given(st.text(st.characters() | st.sampled_from(EVIL)))
def test_nothing_steers_and_nothing_else_changes(text: str) -> None:
    shown = printable(text)
    assert not steers(shown)
    assert len(shown) == len(text)
    bad = steers(text)
    for before, after in zip(text, shown, strict=True):
        if before not in bad and before not in map(chr, range(0x206A, 0x2070)):
            assert before == after
    assert printable(shown) == shown
    assert "\n" not in one_line(text)
    assert not steers(one_line(text))


def test_letters_of_all_scripts_stay() -> None:
    text = "é \u200d👩\u200d👩\u200d👧 क्ष می\u200cخواهم עברית 漢字\tx\ny"
    assert printable(text) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters() | st.sampled_from(EVIL)),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_means_the_same_and_steers_nothing(value: Any) -> None:
    text = json_text(value)
    assert not steers(text)
    assert json.loads(text) == value
    text.encode()


def test_a_console_shows_what_it_is_given_and_keeps_its_own_codes() -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=True, color_system="standard", width=60)
    console.print(f"[red]red[/] {OVERRIDE}", Text(EVIL))
    console.print({"a": EVIL})
    out = stream.getvalue()
    assert "\x1b[31mred\x1b[0m" in out
    assert not steers(out.replace("\x1b", "")) - {"\x1b"}
    assert all(code not in out for code in (CLEAR, TITLE, "\x1b]8"))
    with Live(Text("bar"), console=console, auto_refresh=False) as live:
        live.update(Text(f"bar {TITLE}"), refresh=True)
    assert "\x1b[?25l" in stream.getvalue(), "rich's own: the cursor is hidden"
    assert TITLE not in stream.getvalue()


def hits(console: Console) -> None:
    hit = SimpleNamespace(similarity=0.5, text=EVIL, uid=EVIL, url=f"http://h/{EVIL}\nfake line")
    print_hits(console, [hit])


def table(console: Console) -> None:
    for limit in (0, 9):
        print_table(console, pa.table({EVIL: [EVIL], "n": [{"a": EVIL}]}).slice(0, limit), limit)


def trail(console: Console) -> None:
    rule = {"result": "pass", "rule": EVIL, "expression": EVIL, "values": {EVIL: EVIL}, "note": EVIL}
    row = {"status": "success", EVIL: EVIL, "sha256": EVIL}
    found = {
        "uid": EVIL,
        "shard": EVIL,
        "candidate": row,
        "image": row,
        "embeddings": {"b32": {"similarity": EVIL, "reason": EVIL}},
        "scores": {"x": row},
        "experiments": {"a": {"kept": False, "reason": EVIL, "rules": [rule]}, "b": {"error": EVIL}},
        "export": {"a": {"keys": [EVIL], "tars": [EVIL]}},
    }
    print_trail(console, found)
    print_trail(console, {**found, "image": {"status": "x", "reason": EVIL, "error_message": EVIL}})


def difference(console: Console) -> None:
    example = Example(EVIL, EVIL, EVIL, EVIL, EVIL, {EVIL: 1.0}, EVIL, [], False)
    group = Group(1, {EVIL: 1.0}, {EVIL: 1}, {EVIL: 1}, [], [example])
    groups = {"only_a": group, "only_b": group, "both": group}
    effects = {EVIL: 1.0}
    compared = ("only_a", "only_b")
    print_diff(
        console,
        Difference("a", "b", 3, 2, 2, 1 / 3, compared, effects, EVIL, groups, [EVIL], False),
    )


def status(console: Console) -> None:
    step = Step("filter/a", 1, 1, 2, 1, {EVIL: 1}, 1, 1.0, (), "d", (EVIL,))
    print_status(console, Workspace("/nowhere"), [step], 3)


def grid(console: Console) -> None:
    columns = {"point": [EVIL, "b"], "kept": [1, 1], "total": [1, 1], "share": [0.5, 0.5]}
    found = Comparison(
        "g",
        EVIL,
        2,
        2,
        (),
        (EVIL,),
        (),
        pa.table({**columns, f"mean_{EVIL}": [1.0, None]}),
        np.eye(2, dtype=np.int64),
        ({EVIL: 1}, {}),
    )
    print_comparison(console, Workspace("/nowhere"), found)


@pytest.mark.parametrize("show", [hits, table, trail, difference, status, grid])
@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_data(show: Any, terminal: bool) -> None:
    stream = io.StringIO()
    show(Console(file=stream, width=100, force_terminal=terminal, color_system=None))
    out = stream.getvalue()
    assert not steers(out)
    assert "[/]" in out
    assert "\nfake line" not in out


def test_errors_that_quote_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _fail(f"[b]{EVIL}\n  more {EVIL}\nsecond", 2)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert not steers(said)
    first, more, second = said.splitlines()
    assert first.startswith("error: [b][/]\N{REPLACEMENT CHARACTER}[2J")
    assert more.startswith("  more")
    assert second == "error: second"


def test_a_command_that_quotes_a_hostile_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from curate.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["query", "SELECT 1", "-w", str(tmp_path / EVIL.replace("/", ""))])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert not steers(said)
