"""``curate demo``: the whole pipeline on the synthetic web, then what it got right.

The truth about every pair is planted in the world, so precision and recall of every filter can be
counted instead of guessed.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from curate.config.loading import check, preset_text
from curate.config.models import DownloadSettings
from curate.config.secrets import public_dump
from curate.dataset import layout
from curate.dataset.layout import CONFIG
from curate.dataset.workspace import Workspace, json_bytes
from curate.demo.answer_key import print_key, read_key
from curate.demo.config import WorldConfig
from curate.demo.server import serve
from curate.demo.wat import write_wats
from curate.demo.world import World
from curate.engine.engine import Engine
from curate.engine.progress import duration_text
from curate.errors import UserError
from curate.inspect.tables import print_hits
from curate.pipeline import build

WORLD = "web/world.json"
"""Which world the WAT files are of: the same one is not written again, so nothing is done again."""

QUERY = "two pink umbrellas on a sandy beach"


def demo_config(workspace: str, wats: Path, proxy: str, shard_size: int | None = None) -> dict[str, Any]:
    """The demo preset as plain data, for a world that is being served through ``proxy``."""
    facts: dict[str, Any] = yaml.safe_load(preset_text("demo"))
    facts["workspace"] = workspace
    facts["ingest"]["sources"][0]["paths"] = [str(wats / "*.wat.gz")]
    facts["download"]["proxy"] = proxy
    if shard_size is not None:
        facts["ingest"]["shard_size"] = shard_size
    return facts


def run_demo(workspace: str, *, images: int, seed: int, workers: int | None, console: Console) -> None:
    """Serve a world, run the pipeline on it, print the account of what it found.

    Raises:
        UserError: the workspace is not a local folder.
    """
    space = Workspace(workspace)
    if space.root is None:
        raise UserError(f"demo: the workspace must be a local folder, not '{workspace}'")
    started = time.monotonic()
    world = World(WorldConfig(seed=seed, images=images))
    web = space.root / "web"
    facts_of_world = json_bytes(asdict(world.config))
    if not (space.exists(WORLD) and space.read_bytes(WORLD) == facts_of_world):
        write_wats(world, web)
        space.write_bytes(WORLD, facts_of_world)
    console.print(f"synthetic web: {world.truth().num_rows:,} pairs in WAT files under {web}")
    patience = DownloadSettings.model_validate(demo_config(workspace, web, "")["download"])
    with serve(world, slow_s=2 * patience.timeout, drip_s=2 * patience.deadline) as server:
        facts = demo_config(workspace, web, server.proxy)
        if workers is not None:
            facts["run"] = {"workers": workers}
        config = check(facts, source="demo preset")
        engine = Engine(space, config.run, console)
        engine.run(build(config), config_text=public_dump(config))
    print_key(console, read_key(space, config, world))
    _search(console, space, config.embed.models["demo"])
    report = Path(space.location(layout.report_page("curated"))).resolve()
    sql = "SELECT reason, count(*) FROM images GROUP BY 1"
    console.print()
    for name, command in (
        ("report", str(report)),
        ("explain", f"curate explain UID -w {workspace}"),
        ("compare", f"curate diff curated top30 --html diff.html -w {workspace}"),
        ("compare", f"curate filter {space.location(CONFIG)} --grid"),
        ("query", f'curate query "{sql}" -w {workspace}'),
    ):
        # To be copied: not broken into lines.
        console.print(f"[bold]{name:<8}[/] {escape(command)}", highlight=False, soft_wrap=True)
    console.print(f"done in {duration_text(time.monotonic() - started)}")


def _search(console: Console, space: Workspace, model: Any) -> None:
    from curate.index.search import Searcher

    console.print(f'\n[bold]search[/]   curate search "{QUERY}" -w {space.url}')
    print_hits(console, Searcher(space, "curated", "demo", model).by_text(QUERY, 5, "image"))
