"""The stages of ``curate filter`` and ``curate filter --grid``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curate.config.filters import Experiment
from curate.config.filters.grid import Grid
from curate.config.models import PipelineConfig
from curate.config.wording import nearest
from curate.engine.stage import Stage
from curate.errors import UserError


def stages(config: PipelineConfig) -> Iterator[Stage]:
    """One for every experiment, each after those it uses."""
    from curate.filter.stage import FilterStage
    from curate.samples.sources import Tables

    experiments = _experiments(config)
    for name in _in_order_of_use(config):
        yield FilterStage(
            name,
            experiments[name],
            tuple(config.embed.models),
            tuple(config.score.scorers),
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
    needed = _with_used(config, [name for grid in chosen.values() for name in grid.uses(experiments)])
    models, scorers = tuple(config.embed.models), tuple(config.score.scorers)
    before = [stage for stage in stages(config) if stage.name.partition("/")[2] in needed]
    after = [
        GridStage(name, grid, experiments, models, scorers, Tables.of(config))
        for name, grid in chosen.items()
    ]
    return [*before, *after]


def chosen_stages(stages: Sequence[Stage], config: PipelineConfig, only: Sequence[str]) -> list[Stage]:
    """The stages of some experiments, and of those that they build on.

    Raises:
        UserError: there is no experiment of such a name.
    """
    for name in only:
        if name not in config.filter.experiments:
            have = ", ".join(config.filter.experiments) or "none"
            near = nearest(name, config.filter.experiments)
            raise UserError(f"--only: no experiment named '{name}' (experiments: {have}) {near}".rstrip())
    needed = _with_used(config, only)
    return [stage for stage in stages if stage.name.partition("/")[2] in needed]


def _with_used(config: PipelineConfig, names: Sequence[str]) -> set[str]:
    """Names of experiments, and of all that they build on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += config.filter.experiments[name].uses()
    return found


def _experiments(config: PipelineConfig) -> dict[str, Experiment]:
    """Those of the config; frozen ones know how to reach the workspace that they are frozen to."""
    found = dict(config.filter.experiments)
    for name, experiment in found.items():
        if experiment.frozen is not None:
            frozen = experiment.frozen.beside(config.workspace, config.storage_options)
            found[name] = experiment.model_copy(update={"frozen": frozen})
    return found


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
