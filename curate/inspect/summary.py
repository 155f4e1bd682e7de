"""What a run has come to, and what one does next."""

from __future__ import annotations

from rich.console import Console

from curate.config.models import PipelineConfig
from curate.dataset import layout
from curate.dataset.account import step_of
from curate.dataset.workspace import Workspace
from curate.terminal import escaped


def print_summary(console: Console, workspace: Workspace, config: PipelineConfig) -> None:
    """Every experiment with what it keeps and where its report is; then commands that can be copied."""

    def say(text: str = "") -> None:
        console.print(text, highlight=False, soft_wrap=True)

    names = list(config.filter.experiments)
    width = max(map(len, names), default=0)
    say()
    for name in names:
        step = step_of(workspace, f"filter/{name}")
        if step is None:
            continue
        page = layout.report_page(name)
        report = workspace.location(page) if workspace.exists(page) else ""
        kept = f"kept [bold]{step.rows_out:,}[/] of {step.rows_in:,}"
        say(f"{name:<{width}}  {kept}  [dim]{escaped(report)}[/]")
    for title, command in _next_commands(workspace, config, names):
        say(f"[bold]{title:<8}[/] {escaped(command)}")


def _next_commands(workspace: Workspace, config: PipelineConfig, names: list[str]) -> list[tuple[str, str]]:
    at = f"-w {workspace.url}"
    found = [("account", f"curate status {at}"), ("explain", f"curate explain UID {at}")]
    if config.embed.models and any(workspace.folders(layout.INDICES)):
        found.append(("search", f'curate search "a red bicycle" {at}'))
    if len(names) > 1:
        found.append(("compare", f"curate diff {names[0]} {names[1]} --html diff.html {at}"))
    tars = f"{layout.EXPORTS}/{names[0]}" if names else ""
    if names and workspace.exists(layout.export_file(names[0], "sizes.json")):
        found.append(("train", f"open_clip: --train-data '{workspace.location(tars)}/{{00000..N}}.tar'"))
    return found
