"""The verbs of ``curate``. Each does one piece of work on one YAML file; the work is elsewhere."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from curate import __version__, extras
from curate.dataset import layout
from curate.engine.logs import LEVELS, set_level
from curate.errors import (
    BudgetExceededError,
    ClusterLostError,
    CurateError,
    IncompleteError,
    UserError,
    is_of_storage,
    reaching,
    storage_text,
)
from curate.startup import end_without_collecting, leave_pandas_out, starting
from curate.terminal import SafeConsole, json_text, printable
from curate.verbs import VERBS

# What a command needs is imported when it runs: `--help` needs neither settings nor Arrow.
if TYPE_CHECKING:
    from curate.config.models import PipelineConfig
    from curate.dataset.workspace import Workspace
    from curate.engine.stage import Stage

app = typer.Typer(
    name="curate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""From Common Crawl metadata to a curated image-text dataset.

One YAML file describes a dataset; [bold]curate run[/] makes it, stage by stage, and goes on where it
stopped. Every row that was dropped has a reason.

Start with [bold]curate demo[/] (offline, minutes) or [bold]curate init my.yaml[/].

Exit codes: 0 done, 1 not found or damaged, 2 something for you to fix (one line says what), 3 stopped or
incomplete because too much failed, 130 interrupted. What was committed is kept in every case.""",
)
config_app = typer.Typer(no_args_is_help=True, help="Presets, keys, and what is really in force.")
app.add_typer(config_app, name="config")

# Captions and file names are shown as they are: `:dog:` is no picture of a dog.
out = SafeConsole(emoji=False)
err = SafeConsole(stderr=True, emoji=False)

ConfigArg = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a preset (`curate config presets`).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override one key, e.g. -s download.threads=128."),
]
WorkspaceOption = Annotated[
    str | None, typer.Option("--workspace", "-w", help="Workspace URL; overrides the config's.")
]
RedoOption = Annotated[
    list[str] | None,
    typer.Option("--redo", help="Allow finished shards of ingest, download (or all) to be done again."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why; do nothing.")]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="local, synchronous, slurm or tcp://host:port; overrides run.cluster."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Local worker processes; overrides run.workers.")
]
AtOption = Annotated[str, typer.Option("--workspace", "-w", help="URL of the workspace.")]


def _workspace(url: str, options: dict[str, Any] | None = None) -> Workspace:
    from curate.dataset.workspace import Workspace

    return Workspace(url, options)


def _load(
    config: str,
    sets: list[str] | None,
    workspace: str | None,
    cluster: str | None = None,
    workers: int | None = None,
) -> PipelineConfig:
    overrides = list(sets or ())
    for key, value in (("workspace", workspace), ("run.cluster", cluster), ("run.workers", workers)):
        if value is not None:
            overrides.append(f"{key}={json.dumps(value)}")
    with starting():
        from curate.config.loading import load_config

        return load_config(config, overrides)


def _run(
    config: PipelineConfig,
    verbs: tuple[str, ...],
    redo: list[str] | None,
    dry_run: bool,
    change: Callable[[list[Stage]], list[Stage]] | None = None,
) -> None:
    with starting():
        from curate.config.secrets import public_dump
        from curate.engine.engine import Engine
        from curate.pipeline import build

        for name in redo or ():
            if name not in {*VERBS, "all"}:
                raise UserError(f"--redo {name}: no such verb (verbs: {', '.join(VERBS)}, or all)")
        engine = Engine(
            _workspace(config.workspace, config.storage_options), config.run, err, redo=frozenset(redo or ())
        )
        stages = build(config, verbs)
    if change is not None:
        stages = change(stages)
    if not stages:
        err.print(f"nothing to do: {_missing(config, verbs)}", highlight=False, soft_wrap=True)
        return
    try:
        with reaching(f"workspace {config.workspace}"):
            if dry_run:
                engine.preview(stages)
            else:
                engine.run(stages, config_text=public_dump(_for_any_folder(config)))
    except KeyboardInterrupt:
        err.print("[red]interrupted[/]; what was committed is kept, the same command goes on from there")
        raise typer.Exit(130) from None


def _for_any_folder(config: PipelineConfig) -> PipelineConfig:
    """With tables that are found from wherever `explain` and `diff` are called."""
    tables = config.filter.tables
    if tables is None:
        return config
    paths = tuple(p if ":" in p or p.startswith("~") else str(Path(p).absolute()) for p in tables.paths)
    settings = config.filter.model_copy(update={"tables": tables.model_copy(update={"paths": paths})})
    return config.model_copy(update={"filter": settings})


def _missing(config: PipelineConfig, verbs: tuple[str, ...]) -> str:
    """What a config would need for a verb that has no stage."""
    if verbs == ("filter",):
        grids = ", and `--grid` compares the points of its filter.grids" if config.filter.grids else ""
        return f"there are no filter.experiments{grids}"
    return "; ".join(VERBS[verb].needs for verb in verbs)


@app.command()
def run(
    config: ConfigArg,
    sets: SetOption = None,
    workspace: WorkspaceOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    redo: RedoOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Run the whole pipeline: ingest, download, embed, score, filter, index, export, report.

    What is done is skipped; what changed is said and done again; a killed run goes on where it stopped.
    """
    loaded = _load(config, sets, workspace, cluster, workers)
    _run(loaded, tuple(VERBS), redo, dry_run)
    if not dry_run:
        from curate.inspect.summary import print_summary

        print_summary(err, _workspace(loaded.workspace, loaded.storage_options), loaded)


def _score(
    config: ConfigArg,
    sets: SetOption = None,
    workspace: WorkspaceOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    redo: RedoOption = None,
    dry_run: DryRunOption = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Only this scorer; give it several times for more."),
    ] = None,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Then write sheets/NAME.html: samples from low to high scores.")
    ] = False,
    per_band: Annotated[
        int, typer.Option("--per-band", help="Samples per quantile band of a sheet.", min=1, max=50)
    ] = 6,
    blur: Annotated[
        bool | None,
        typer.Option(
            "--blur/--no-blur",
            help="Blur the pictures of all sheets, or of none. Default: of scorers that sound like nsfw.",
            show_default=False,
        ),
    ] = None,
) -> None:
    from curate.score.selection import select_stages
    from curate.score.sheet.stage import sheet_stages

    loaded = _load(config, sets, workspace, cluster, workers)

    def change(stages: list[Stage]) -> list[Stage]:
        chosen = select_stages(stages, only or ())
        return (
            [*chosen, *sheet_stages(chosen, loaded.score, per_band=per_band, blur=blur)] if sheet else chosen
        )

    _run(loaded, ("score",), redo, dry_run, change)
    if sheet and not dry_run:
        space = _workspace(loaded.workspace, loaded.storage_options)
        for name in loaded.score.scorers:
            if not only or name in only:
                err.print(f"sheet  {space.location(layout.sheet(name))}", highlight=False, soft_wrap=True)


def _filter(
    config: ConfigArg,
    sets: SetOption = None,
    workspace: WorkspaceOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    redo: RedoOption = None,
    dry_run: DryRunOption = False,
    frozen: Annotated[
        str | None,
        typer.Option(
            "--frozen",
            metavar="OTHER",
            help="URL of another workspace: judge by what the same experiments learned there.",
        ),
    ] = None,
    grid: Annotated[
        bool,
        typer.Option("--grid", help="Instead compare all points of filter.grids, or all experiments."),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="Only this experiment, and those it builds on (with --grid: this grid); may be repeated.",
        ),
    ] = None,
) -> None:
    leave_pandas_out()
    loaded = _load(config, sets, workspace, cluster, workers)
    if grid:
        if frozen is not None:
            raise UserError("--grid and --frozen do not go together: a grid learns from its own pool")
        _run_grids(loaded, only or (), redo, dry_run)
        return
    if frozen is not None:
        names = [name for name, e in loaded.filter.experiments.items() if e.transferable()]
        if not names:
            raise UserError(f"--frozen: no experiment of {config} has a rule whose numbers travel")
        keys = [f"filter.experiments.{name}.frozen={json.dumps(frozen)}" for name in names]
        loaded = _load(config, [*(sets or ()), *keys], workspace, cluster, workers)

    def change(stages: list[Stage]) -> list[Stage]:
        from curate.filter.stages import chosen_stages

        return chosen_stages(stages, loaded, only) if only else stages

    _run(loaded, ("filter",), redo, dry_run, change)


def _run_grids(config: PipelineConfig, only: Sequence[str], redo: list[str] | None, dry_run: bool) -> None:
    """Compare, and print what is stored, whether it was done now or before."""
    from curate.filter.grid import GridStage
    from curate.filter.grid_files import FACTS, read_comparison
    from curate.filter.stages import grid_stages
    from curate.inspect.grid_text import print_comparison

    stages = grid_stages(config, only)
    _run(config, (), redo, dry_run, lambda _: stages)
    space = _workspace(config.workspace, config.storage_options)
    for stage in stages if not dry_run else ():
        if isinstance(stage, GridStage) and space.exists(layout.grid_file(stage.grid_name, FACTS)):
            print_comparison(out, space, read_comparison(space, stage.grid_name))


_OWN: dict[str, Callable[..., None]] = {"score": _score, "filter": _filter}
"""Verbs with options of their own."""


def _add_stage_command(verb: str, text: str) -> None:
    def command(
        config: ConfigArg,
        sets: SetOption = None,
        workspace: WorkspaceOption = None,
        cluster: ClusterOption = None,
        workers: WorkersOption = None,
        redo: RedoOption = None,
        dry_run: DryRunOption = False,
    ) -> None:
        _run(_load(config, sets, workspace, cluster, workers), (verb,), redo, dry_run)

    app.command(verb, help=text)(_OWN.get(verb, command))


for _verb in VERBS.values():
    _add_stage_command(_verb.name, _verb.help)


@app.command()
def status(
    workspace: AtOption = "./work",
    reasons: Annotated[int, typer.Option(help="Drop reasons named per stage.")] = 6,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the run ends: its stage, its pace, the time left.")
    ] = False,
) -> None:
    """What each stage has done: units, rows in and out, reasons, time, size."""
    from curate.inspect.status import print_status, read_status, status_table

    space = _workspace(workspace)
    if watch:
        from curate.inspect.watch import watch as watch_run

        with contextlib.suppress(KeyboardInterrupt):
            watch_run(out, space, (status_table(read_status(space)) for _ in itertools.count()))
        return
    statuses = read_status(space)
    if as_json:
        typer.echo(json_text([asdict(s) for s in statuses]))
    else:
        print_status(out, space, statuses, reasons)


@app.command()
def verify(
    workspace: AtOption = "./work",
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its digest.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="VERB", help="Only what this verb has made, e.g. download."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Is all that was committed still there, and still what it was?

    Compares every file with its commit record: that it is there and its size; with [bold]--deep[/] also its
    bytes, which finds what a disk or a copy has changed without changing a size. Exit code 1 if anything is
    damaged; a rerun makes it again.
    """
    from curate.inspect.verify import verify as verify_files
    from curate.inspect.verify_text import print_verified, watched

    for name in only or ():
        if name not in VERBS:
            raise UserError(f"--only {name}: no such verb (verbs: {', '.join(VERBS)})")
    space = _workspace(workspace)
    with watched(err) as tell, reaching(f"workspace {workspace}"):
        found = verify_files(space, deep, only or (), tell)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        print_verified(out, space, found, deep)
    if found.damages:
        raise typer.Exit(1)


@app.command()
def explain(
    uid: Annotated[str, typer.Argument(help="32 hex digits: md5(text + url).")],
    workspace: AtOption = "./work",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """The whole trail of one sample: its candidate, image, scores, and the verdict of every rule."""
    from curate.inspect.explain import explain as trail_of
    from curate.inspect.explain_text import print_trail

    space = _workspace(workspace)
    trail = trail_of(space, _config_of(space), uid)
    if as_json:
        typer.echo(json_text(trail))
    else:
        print_trail(out, trail)
    if trail["candidate"] is None:
        raise typer.Exit(1)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="An experiment.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    workspace: AtOption = "./work",
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures of what only one keeps, and why.")
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(help="Samples shown of what only one keeps. Default: 5, on a page 24.", min=0, max=1000),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Two experiments side by side: what only one keeps and why, means of scores, languages, examples."""
    from curate.inspect.diff import diff as difference
    from curate.inspect.diff_page import check_place, diff_page, write_page
    from curate.inspect.diff_text import print_diff

    if html is not None:
        check_place(html)
    space = _workspace(workspace)
    printed = 5 if examples is None else examples
    drawn = 24 if examples is None and html is not None else printed
    found = difference(space, _config_of(space), a, b, drawn)
    if as_json:
        typer.echo(json_text(found.facts()))
    else:
        print_diff(out, found, printed)
    if html is not None:
        write_page(html, diff_page(space, found))
        err.print(f"page  {html}", highlight=False, soft_wrap=True)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help='e.g. "SELECT reason, count(*) FROM images GROUP BY 1"')],
    workspace: AtOption = "./work",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a .parquet, .csv or .jsonl file instead.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows printed.", min=0)] = 40,
) -> None:
    """SQL (DuckDB) over candidates, images, samples, scores_…, embeddings_…, selection_…, records."""
    from curate.engine.progress import counted
    from curate.inspect.query import run_query
    from curate.inspect.tables import print_table, write_table

    table = run_query(_workspace(workspace), sql)
    if output is not None:
        write_table(table, output)
        rows = counted(table.num_rows, "row")
        err.print(f"{rows} → {escape(str(output))}", highlight=False, soft_wrap=True)
    else:
        print_table(out, table, limit)


@app.command()
def search(
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for pictures like this file.")] = None,
    uid: Annotated[
        str | None, typer.Option(help="Look for neighbours of this sample; the first digits will do.")
    ] = None,
    workspace: AtOption = "./work",
    experiment: Annotated[str | None, typer.Option(help="Whose selection. Default: the first.")] = None,
    model: Annotated[str | None, typer.Option(help="Alias of the model. Default: the first.")] = None,
    modality: Annotated[str, typer.Option(help="Search among `image` or `text` embeddings.")] = "image",
    k: Annotated[int, typer.Option("-k", help="How many results.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Search a dataset by text, by image or by uid."""
    from curate.index.search import Searcher
    from curate.inspect.tables import print_hits

    if sum(q is not None for q in (text, image, uid)) != 1:
        raise UserError("search: give exactly one of TEXT, --image FILE or --uid UID")
    space = _workspace(workspace)
    config = _config_of(space)
    chosen = _first("experiment", experiment, list(config.filter.experiments))
    alias = _first("model", model, list(config.embed.models))
    with Searcher(space, chosen, alias, config.embed.models[alias]) as searcher:
        if text is not None:
            hits = searcher.by_text(text, k, modality)
        elif image is not None:
            hits = searcher.by_image(image, k, modality)
        else:
            hits = searcher.by_uid(str(uid), k, modality)
        caveat = searcher.caveat("image" if text is None else "text", modality)
    if caveat is not None:
        err.print(f"[yellow]![/] {escape(caveat)}", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json_text([asdict(hit) for hit in hits]))
    else:
        print_hits(out, hits)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("curate.yaml"),
    preset: Annotated[str, typer.Option(help="Start from this preset.")] = "starter",
) -> None:
    """Write a commented config to start from."""
    from curate.config.loading import preset_text

    if path.exists():
        raise UserError(f"{path}: exists already; choose another name")
    text = preset_text(preset)
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    err.print(f"wrote {path}; edit ingest.sources, then: curate run {path}")


@app.command()
def doctor(
    config: Annotated[
        str | None,
        typer.Argument(help="Also check what this config needs: sources, weights, columns, cluster, disk."),
    ] = None,
    sets: SetOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Check that this machine has what a run needs, and with a config all that its run would check first."""
    from curate.inspect.doctor import examine, examine_config

    marks = {"ok": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[red]✗[/]"}
    problems = 0
    space = _workspace(workspace) if workspace else None
    findings = examine(space)
    if config is not None:
        loaded = _load(config, sets, workspace)
        space = _workspace(loaded.workspace, loaded.storage_options)
        findings = itertools.chain(examine(space), examine_config(loaded, space))
    for finding in findings:
        problems += finding.level == "problem"
        fix = f" → {finding.fix}" if finding.fix else ""
        out.print(
            f"{marks[finding.level]} {finding.name}: {escape(finding.seen + fix)}",
            highlight=False,
            soft_wrap=True,
        )
    if problems:
        raise typer.Exit(2)


@app.command()
def demo(
    workspace: AtOption = "./demo-work",
    images: Annotated[int, typer.Option(help="About how many pairs the synthetic web has.", min=50)] = 3000,
    seed: Annotated[int, typer.Option(help="Of the synthetic web.")] = 0,
    workers: WorkersOption = None,
) -> None:
    """The whole road on a synthetic web with planted truth, offline, in minutes.

    Ends with precision and recall of every filter, the report, and a search that works.
    """
    from curate.demo.command import run_demo

    run_demo(workspace, images=images, seed=seed, workers=workers, console=err)


@config_app.command("show")
def config_show(config: ConfigArg, sets: SetOption = None, workspace: WorkspaceOption = None) -> None:
    """Everything that is in force for a config, defaults included, as YAML."""
    from curate.config.loading import dump

    typer.echo(dump(_load(config, sets, workspace)), nl=False)


@config_app.command("presets")
def config_presets() -> None:
    """The presets that come with curate."""
    from curate.config.loading import presets

    for name, line in presets().items():
        out.print(f"[bold]{name}[/]  {escape(line)}", highlight=False, soft_wrap=True)


@config_app.command("keys")
def config_keys(
    section: Annotated[str | None, typer.Argument(help="Only this section, e.g. download.")] = None,
) -> None:
    """Every key with its type, default and meaning."""
    from curate.config.keys import describe

    for line in describe(section):
        typer.echo(line)


def _config_of(workspace: Workspace) -> PipelineConfig:
    """The config that was last run on a workspace."""
    from curate.inspect.known import last_config

    with reaching(f"workspace {workspace.url}"):
        config = last_config(workspace)
    if config is None:
        raise UserError(
            f"{workspace.url}: no run was made here (no {layout.CONFIG}); give one with --workspace"
        )
    return config


def _first(what: str, name: str | None, names: list[str]) -> str:
    if name is None and names:
        return names[0]
    if name not in names:
        raise UserError(f"search: no {what} named '{name}' (have: {', '.join(names) or 'none'})")
    return name


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    log_level: Annotated[
        str,
        typer.Option(
            help="What libraries may say: debug, info, warning or error.",
            envvar="CURATE_LOG_LEVEL",
            show_envvar=False,
        ),
    ] = "error",
) -> None:
    if log_level not in LEVELS:
        raise UserError(f"--log-level {log_level}: one of {', '.join(LEVELS)}")
    set_level(log_level)
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main(args: list[str] | None = None) -> None:
    """Entry point: runs a verb and turns what went wrong into a line and an exit code.

    What is nobody's mistake but ours ends in a traceback.
    """
    end_without_collecting()
    for stream in (sys.stdout, sys.stderr):
        # A text that the terminal's encoding lacks costs its letters, and not the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(args, standalone_mode=True)
    except (BudgetExceededError, ClusterLostError, IncompleteError) as error:
        _fail(str(error), 3)
    except CurateError as error:
        _fail(str(error), 2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in extras.PACKAGES:
            raise
        _fail(str(extras.missing(package)), 2)
    except Exception as error:
        if not is_of_storage(error):
            raise
        _fail(storage_text(error), 2)


def _fail(text: str, code: int) -> Any:
    for line in printable(text).rstrip("\n").split("\n"):
        if line.startswith(" "):  # goes with the line before
            err.print(escape(line), highlight=False, soft_wrap=True)
            continue
        err.print(f"[red]error:[/] {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
