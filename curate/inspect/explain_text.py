"""The trail of a sample as text for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from curate.inspect.tables import VALUE, cell
from curate.terminal import escaped

MARKS = {"pass": "[green]✓[/]", "fail": "[red]✗[/]", "missing": "[yellow]?[/]"}


def print_trail(console: Console, trail: dict[str, Any]) -> None:
    """Print what ``explain`` found, stage by stage."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"[bold]{escaped(trail['uid'])}[/]  shard {escaped(trail['shard'])}")
    if trail["candidate"] is None:
        say(
            "not a candidate of this workspace, and no row of its tables. Rows that ingest drops are "
            "counted, not kept: `curate status` has the reasons"
        )
        return
    _facts(say, "candidate", trail["candidate"], skip={"uid"})
    if "image" in trail and not _says_image(say, trail["image"]):
        return
    for model, row in trail.get("embeddings", {}).items():
        why = f" ({escaped(row['reason'])})" if row.get("reason") else ""
        say(f"[bold]embedding {model}[/]  similarity {escape(cell(row.get('similarity')))}{why}")
    for scorer, row in trail.get("scores", {}).items():
        _facts(say, f"scores {scorer}", row, skip={"uid"})
    for name, result in trail.get("experiments", {}).items():
        if "error" in result:
            say(f"[bold]experiment {name}[/]  [yellow]?[/] {escaped(result['error'])}")
            continue
        kept = "[green]kept[/]" if result["kept"] else f"[red]dropped[/]: {escaped(result['reason'])}"
        say(f"[bold]experiment {name}[/]  {kept}")
        for rule in result["rules"]:
            facts = [f"{k} = {cell(v, VALUE)}" for k, v in rule["values"].items()]
            seen = escaped(", ".join([*facts, rule["note"]] if rule["note"] else facts))
            asked = f"{escaped(rule['rule'])}: {escaped(rule['expression'])}"
            say(f"  {MARKS[rule['result']]} {asked}  [dim]{seen}[/]")
        if name in trail.get("export", {}):
            exported = trail["export"][name]
            keys, tars = (escaped(", ".join(exported[what])) for what in ("keys", "tars"))
            say(f"  exported as {keys}" + (f" in {tars}" if tars else ", into tables only"))


def _says_image(say: Any, image: dict[str, Any] | None) -> bool:
    """Whether there is one."""
    if image is None:
        say("[yellow]not downloaded yet[/]")
        return False
    if image["status"] != "success":
        why = f"{image['reason']} ({image['error_message']})"
        say(f"[red]✗[/] [bold]no image:[/] {escaped(why)}")
        return False
    shown = ("width", "height", "original_width", "original_height", "sha256")
    _facts(say, "image", {k: image[k] for k in shown if k in image}, skip=set())
    return True


def _facts(say: Any, title: str, row: dict[str, Any], skip: set[str]) -> None:
    facts = "  ".join(
        f"[dim]{escaped(key)}[/] {escape(cell(value, VALUE))}"
        for key, value in row.items()
        if key not in skip and value is not None
    )
    say(f"[bold]{title}[/]  {facts}")
