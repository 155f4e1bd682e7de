"""A comparison of two experiments for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curate.engine.progress import counted
from curate.inspect.diff import GROUPS, Difference
from curate.inspect.tables import cell, print_whole
from curate.terminal import escaped

ROWS = 12
"""Columns whose means are shown."""


def print_diff(console: Console, found: Difference, examples: int = 5) -> None:
    """Counts, reasons, the means that differ most, languages, and examples of what only one keeps."""
    titles = {name: escaped(title) for name, title in found.titles().items()}
    console.print(
        f"{found.a} keeps {found.kept_a:,}, {found.b} keeps {found.kept_b:,} of "
        f"{counted(found.pool, 'sample')}; {_shared(found)}",
        markup=False,
        soft_wrap=True,
    )
    for name, other in (("only_a", found.b), ("only_b", found.a)):
        group = found.groups[name]
        if group.reasons:
            why = _shares(group.reasons, group.samples)
            console.print(
                f"[bold]{titles[name]}[/]  {escaped(other)} dropped them: {why}",
                highlight=False,
                soft_wrap=True,
            )
    print_whole(console, _means(found, titles))
    more = len(columns_of(found)) - ROWS
    if more > 0:
        less = f"{counted(more, 'column')} that {'differs' if more == 1 else 'differ'} less"
        console.print(f"[dim]{less}: --json or --html[/]", highlight=False, soft_wrap=True)
    for name in GROUPS:
        if languages := found.groups[name].languages:
            shares = _shares(languages, found.groups[name].samples)
            console.print(f"[bold]{titles[name]}[/]  {shares}", highlight=False, soft_wrap=True)
    for name in GROUPS[:2]:
        shown = found.groups[name].examples[:examples]
        if shown:
            console.print(f"\n[bold]{titles[name]}[/], for example", highlight=False, soft_wrap=True)
        for example in shown:
            why = f"  [dim]{escaped(example.reason)}[/]" if example.reason else ""
            console.print(f"  {escaped(example.uid)}{why}", highlight=False, soft_wrap=True)
            console.print(Text(f"    {cell(example.text)}"), soft_wrap=True)
    for note in found.notes:
        console.print(f"[yellow]{escaped(note)}[/]", highlight=False, soft_wrap=True)


def effect_text(value: float | None) -> str:
    """An effect with its sign."""
    if value is None:
        return ""
    return "0" if round(value, 2) == 0 else f"{value:+.2f}".replace("inf", "∞").replace("-", "−")


def mean_text(value: float) -> str:
    """A mean in four digits, or all of those before the point."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return text.replace("-", "−", 1) if value < 0 else text


def columns_of(found: Difference) -> list[str]:
    """The columns that have a mean, those that differ most first."""
    known = dict.fromkeys(name for group in GROUPS for name in found.groups[group].means)
    return list(dict.fromkeys([*found.effects, *known]))


def _shared(found: Difference) -> str:
    only_a, only_b, both = (found.groups[name].samples for name in GROUPS)
    if both and not (only_a or only_b):
        return "they keep the same"
    share = f"{found.jaccard:.1%}" if only_a or only_b else "–"
    return f"of all that either keeps, both keep {share}"


def _means(found: Difference, titles: Mapping[str, str]) -> Table:
    table = Table(title="means, largest difference first", title_justify="left")
    table.add_column("column")
    for name in GROUPS:
        table.add_column(titles[name], justify="right")
    table.add_column("effect", justify="right")
    table.add_row("samples", *(f"{found.groups[name].samples:,}" for name in GROUPS), "")
    for column in columns_of(found)[:ROWS]:
        means = [found.groups[name].means.get(column) for name in GROUPS]
        cells = ("" if mean is None else mean_text(mean) for mean in means)
        table.add_row(escaped(column), *cells, effect_text(found.effects.get(column)))
    if found.compared:
        first, second = (titles[name] for name in found.compared)
        table.caption = f"effect: ({first} − {second}) / pooled standard deviation"
        table.caption_justify = "left"
    return table


def _shares(counts: Mapping[str, int], samples: int) -> str:
    return ", ".join(f"{escaped(name)} {n / samples:.1%}" for name, n in counts.items())
