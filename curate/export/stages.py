"""The stages of ``curate export``."""

from __future__ import annotations

from collections.abc import Iterator

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage
from curate.errors import ConfigError


def stages(config: PipelineConfig) -> Iterator[Stage]:
    """One for every experiment."""
    from curate.export.stage import ExportStage

    experiments = config.chosen(config.export.experiments)
    if experiments and config.export.tars and config.download is None:
        raise ConfigError(
            "export.tars: shards need images, and with `download: null` there are none; set "
            "`export: {tars: false}` to write the tables and uid lists only"
        )
    for experiment in experiments:
        yield ExportStage(experiment, config.export, tuple(config.embed.models), tuple(config.score.scorers))
