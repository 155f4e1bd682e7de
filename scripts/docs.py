"""Writes the reference pages of the docs from the code: config keys, commands, reasons, columns, Python API.

python scripts/docs.py            # into docs/reference, which git ignores; `make docs` calls it
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import curate
from curate.cli import app
from curate.config.keys import describe
from curate.config.models import PipelineConfig
from curate.reasons import REASONS

ROOT = Path(__file__).parents[1] / "docs" / "reference"
WRITTEN = "<!-- Written by scripts/docs.py: change the code, not this page. -->\n"


def config_page() -> Iterator[str]:
    """Every key with its type, default and meaning, a table for each section."""
    yield "# Config keys\n\nEvery key of a config; `curate config keys` prints the same.\n"
    for section in PipelineConfig.model_fields:
        lines = [
            line for line in describe(section) if line.split(":")[0].split(".")[0].split(" ")[0] == section
        ]
        if not lines:
            continue
        yield f"\n## {section}\n\n| key | type and default | meaning |\n|---|---|---|"
        for line in lines:
            head, _, meaning = line.partition("  # ")
            key, _, kind = head.partition(":")
            yield f"| `{key}` | {_code(kind.strip())} | {_cell(meaning)} |"


def commands_page() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "# Commands\n\n`curate COMMAND --help` prints the same."
    for name, command in _commands(typer.main.get_command(app)):
        yield f"\n## curate {name}\n\n{_prose(command.help or '')}\n"
        shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        if shown:
            yield "| argument or option | meaning |\n|---|---|"
        for parameter in shown:
            names = ", ".join(f"`{n}`" for n in (*parameter.opts, *parameter.secondary_opts))
            label = names if parameter.param_type_name == "option" else f"`{parameter.name}`"
            yield f"| {label} | {_cell(_prose(getattr(parameter, 'help', '') or ''))} |"


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def reasons_page() -> Iterator[str]:
    """Every reason with its meaning and what helps."""
    yield "# Reasons\n\nWhy a row leaves the pipeline. A filter's other reasons are the names of its rules."
    for verb, reasons in REASONS.items():
        yield f"\n## {verb}\n\n| reason | means | what helps |\n|---|---|---|"
        for reason in reasons:
            yield f"| `{reason.value}` | {_cell(reason.meaning)} | {_cell(reason.fix)} |"


def api_page() -> Iterator[str]:
    """What ``import curate`` gives."""
    yield "# Python API\n\nWhat `import curate` gives; the [notebook](../notebook.ipynb) shows it at work.\n"
    for name in curate.__all__:
        if name.startswith("__"):
            continue
        target = getattr(curate, name)
        yield f"::: {target.__module__}.{target.__qualname__}\n"


def _prose(text: str) -> str:
    """Help texts without the console's markup."""
    return text.replace("[bold]", "`").replace("[/bold]", "`").replace("[/]", "`").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def main() -> None:
    """Write all pages."""
    ROOT.mkdir(parents=True, exist_ok=True)
    pages = {"config": config_page, "commands": commands_page, "reasons": reasons_page, "api": api_page}
    for name, page in pages.items():
        (ROOT / f"{name}.md").write_text(WRITTEN + "\n".join(page()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
