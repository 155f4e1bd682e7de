"""A comparison of two experiments for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curate.inspect.diff import GROUPS, Difference
from curate.inspect.tables import cell


def print_diff(console: Console, found: Difference) -> None:
    """Counts, a table of means, languages, and examples of what only one keeps."""
    titles = dict(zip(GROUPS, (f"only {found.a}", f"only {found.b}", "both"), strict=True))
    console.print(
        f"{found.a} keeps {found.kept_a:,}, {found.b} keeps {found.kept_b:,} of {found.pool:,} samples; "
        f"of all that either keeps, both keep {found.jaccard:.1%}"
    )
    table = Table(title="means", title_justify="left")
    table.add_column("column")
    for name in GROUPS:
        table.add_column(titles[name], justify="right")
    table.add_row("samples", *(f"{found.groups[name].samples:,}" for name in GROUPS))
    columns = dict.fromkeys(column for name in GROUPS for column in found.groups[name].means)
    for column in columns:
        means = [found.groups[name].means.get(column) for name in GROUPS]
        table.add_row(column, *("" if mean is None else f"{mean:,.4g}" for mean in means))
    console.print(table)
    for name in GROUPS:
        group = found.groups[name]
        if group.languages:
            shares = ", ".join(f"{lang} {n / group.samples:.1%}" for lang, n in group.languages.items())
            console.print(f"[bold]{titles[name]}[/]  {escape(shares)}")
    for name in GROUPS[:2]:
        if found.groups[name].examples:
            console.print(f"\n[bold]{titles[name]}[/], for example")
        for row in found.groups[name].examples:
            console.print(f"  {row['uid']}  {escape(cell(row['text']))}", highlight=False)
