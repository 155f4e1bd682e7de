"""The stages of a config, in the order in which data flows.

Stage modules are imported when they are asked for: ``curate status`` does not pay for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from curate.config.filters import Experiment
from curate.config.filters.grid import Grid
from curate.config.models import ModelSettings, PipelineConfig
from curate.errors import ConfigError, UserError
from curate.run.stage import Stage, in_one_pass


def _ingest(config: PipelineConfig) -> Iterator[Stage]:
    from curate.ingest.parse import ParseStage
    from curate.ingest.stage import IngestStage

    if config.ingest is None:
        raise ConfigError("missing section 'ingest': it needs at least ingest.sources (see `curate init`)")
    yield ParseStage(config.ingest)
    yield IngestStage(config.ingest, images=config.download is not None)


def _download(config: PipelineConfig) -> Iterator[Stage]:
    if config.download is None:
        return
    from curate.download.stage import DownloadStage

    yield DownloadStage(config.download)


def _embed(config: PipelineConfig) -> Iterator[Stage]:
    from curate.embed.stage import EmbedStage
    from curate.embed.stored.stages import JoinStage, SortStage

    stages: list[Stage] = []
    for alias, model in config.embed.models.items():
        _need_weights(alias, model)
        if model.source:
            stages += [SortStage(alias, model), JoinStage(alias, model)]
        else:
            stages.append(EmbedStage(alias, model))
    in_one_pass([stage for stage in stages if isinstance(stage, EmbedStage)])
    yield from stages


def _need_weights(alias: str, model: ModelSettings) -> None:
    """Raises ConfigError when a path names no weights: now, and not behind days of download."""
    given = {"model": model.model.removeprefix("local-dir:"), "pretrained": model.pretrained or ""}
    if not model.model.startswith("local-dir:"):
        del given["model"]
    for key, path in given.items():
        if "/" in path and not Path(path).expanduser().exists():
            raise ConfigError(f"embed.models.{alias}.{key}: {path}: no such file or folder")


def _score(config: PipelineConfig) -> Iterator[Stage]:
    from curate.score.contract import PixelScorer
    from curate.score.stage import ScoreStage, score_stages

    for stage in score_stages(config.score, config.embed):
        if (
            config.download is None
            and isinstance(stage, ScoreStage)
            and isinstance(stage.scorer, PixelScorer)
        ):
            raise ConfigError(
                f"{stage.place}: type '{config.score.scorers[stage.scorer_name].kind}' looks at images, and "
                "with `download: null` there are none; remove the scorer, or give a download section"
            )
        yield stage


def _filter(config: PipelineConfig) -> Iterator[Stage]:
    from curate.filter.stage import FilterStage
    from curate.samples.sources import Tables

    experiments = _experiments(config)
    for name in _in_order_of_use(config):
        yield FilterStage(
            name,
            experiments[name],
            _models(config),
            _scorers(config),
            config.filter.account_by,
            Tables.of(config),
        )


def grid_stages(config: PipelineConfig, only: Sequence[str] = ()) -> list[Stage]:
    """The grids of a config, or some of them, after the experiments whose selections they build on.

    A config without grids has one of all its experiments, named ``experiments``.

    Raises:
        UserError: there is none of such a name, or nothing to compare.
    """
    from curate.filter.grid import GridStage
    from curate.samples.sources import Tables

    experiments = _experiments(config)
    grids = config.filter.grids
    if not grids and experiments:
        grids = {"experiments": Grid(experiments=tuple(experiments))}
    if not grids:
        raise UserError("--grid: there is nothing to compare: no filter.grids and no filter.experiments")
    for name in only:
        if name not in grids:
            raise UserError(f"--only: no grid named '{name}' (grids: {', '.join(grids)})")
    chosen = {name: grid for name, grid in grids.items() if not only or name in only}
    needed: set[str] = set()

    def need(names: Sequence[str]) -> None:
        for name in names:
            needed.add(name)
            need(experiments[name].uses())

    for grid in chosen.values():
        need(grid.uses(experiments))
    before = [stage for stage in _filter(config) if stage.name.partition("/")[2] in needed]
    after = [
        GridStage(name, grid, experiments, _models(config), _scorers(config), Tables.of(config))
        for name, grid in chosen.items()
    ]
    return [*before, *after]


def _index(config: PipelineConfig) -> Iterator[Stage]:
    from curate.index.stage import IndexStage

    models = _models(config) if config.index.models is None else config.index.models
    for experiment in _chosen(config, config.index.experiments):
        for alias in models:
            yield IndexStage(experiment, alias, config.index)


def _export(config: PipelineConfig) -> Iterator[Stage]:
    from curate.export.stage import ExportStage

    experiments = _chosen(config, config.export.experiments)
    if experiments and config.export.tars and config.download is None:
        raise ConfigError(
            "export.tars: shards need images, and with `download: null` there are none; set "
            "`export: {tars: false}` to write the tables and uid lists only"
        )
    for experiment in experiments:
        yield ExportStage(experiment, config.export, _models(config), _scorers(config))


def _report(config: PipelineConfig) -> Iterator[Stage]:
    from curate.report.stage import ReportStage

    for experiment in _chosen(config, config.report.experiments):
        yield ReportStage(experiment, config.report, _models(config), _scorers(config))


VERBS: dict[str, Callable[[PipelineConfig], Iterator[Stage]]] = {
    "ingest": _ingest,
    "download": _download,
    "embed": _embed,
    "score": _score,
    "filter": _filter,
    "index": _index,
    "export": _export,
    "report": _report,
}


def build(config: PipelineConfig, verbs: Sequence[str] = tuple(VERBS)) -> list[Stage]:
    """The stages of the given verbs, in order; tables that are filtered as they are know no other stage.

    Raises:
        ConfigError: a section that a verb needs is missing, or a verb has nothing to work on.
    """
    if config.filter.tables is not None:
        if len(verbs) == 1 and verbs != ("filter",):
            raise ConfigError(
                f"{verbs[0]}: with `filter.tables` there is nothing but `curate filter`; for samples in a "
                "workspace give `ingest.sources` and leave `filter.tables` out (docs/pools.md)"
            )
        verbs = ("filter",)
    return [stage for verb in verbs for stage in VERBS[verb](config)]


def _models(config: PipelineConfig) -> tuple[str, ...]:
    return tuple(config.embed.models)


def _scorers(config: PipelineConfig) -> tuple[str, ...]:
    return tuple(config.score.scorers)


def _experiments(config: PipelineConfig) -> dict[str, Experiment]:
    """Those of the config; frozen ones know how to reach the workspace that they are frozen to."""
    found = dict(config.filter.experiments)
    for name, experiment in found.items():
        if experiment.frozen is not None:
            frozen = experiment.frozen.beside(config.workspace, config.storage_options)
            found[name] = experiment.model_copy(update={"frozen": frozen})
    return found


def _chosen(config: PipelineConfig, names: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(config.filter.experiments) if names is None else names


def _in_order_of_use(config: PipelineConfig) -> list[str]:
    """Experiments, each after those it uses."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name not in ordered:
            for other in config.filter.experiments[name].uses():
                visit(other)
            ordered.append(name)

    for name in config.filter.experiments:
        visit(name)
    return ordered
