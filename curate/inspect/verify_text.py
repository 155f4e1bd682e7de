"""The account of ``curate verify`` for the terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.text import Text

from curate.dataset.workspace import Workspace
from curate.engine.progress import counted
from curate.inspect.status import size_text
from curate.inspect.tables import cell
from curate.inspect.verify import Verified

SHOWN = 50
"""Damaged files that are named."""


@contextlib.contextmanager
def watched(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A status line on a terminal: files and bytes so far, and the pace."""
    started = time.monotonic()
    with console.status("reading the records") as status:

        def tell(files: int, size: int) -> None:
            pace = size_text(int(size / max(time.monotonic() - started, 0.1)))
            status.update(f"{counted(files, 'file')}, {size_text(size)}, {pace}/s")

        yield tell


def print_verified(console: Console, workspace: Workspace, found: Verified, deep: bool) -> None:
    """One line when all is well; otherwise what is wrong with which file, and what to do."""
    how = "bytes and digests" if deep else "names and sizes; --deep compares the bytes"
    what = f"{counted(found.files, 'file')} of {workspace.url}, {size_text(found.size)} ({how})"
    if not found.damages:
        console.print(Text.assemble(("✓ ", "green"), what), soft_wrap=True)
        return
    for damage in found.damages[:SHOWN]:
        said = f"{cell(damage.path, 300)}: {damage.what}; {damage.fix}"
        console.print(Text.assemble(("✗ ", "red"), said), soft_wrap=True)
    more = len(found.damages) - SHOWN
    if more > 0:
        console.print(f"and {more:,} more (--json has all)", highlight=False)
    console.print(
        f"{counted(len(found.damages), 'damaged file')} among {what}", highlight=False, soft_wrap=True
    )
