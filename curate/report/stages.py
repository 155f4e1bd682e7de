"""The stages of ``curate report``."""

from __future__ import annotations

from collections.abc import Iterator

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage


def stages(config: PipelineConfig) -> Iterator[Stage]:
    """One for every experiment."""
    from curate.report.stage import ReportStage

    for experiment in config.chosen(config.report.experiments):
        yield ReportStage(experiment, config.report, tuple(config.embed.models), tuple(config.score.scorers))
