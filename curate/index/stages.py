"""The stages of ``curate index``."""

from __future__ import annotations

from collections.abc import Iterator

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage


def stages(config: PipelineConfig) -> Iterator[Stage]:
    """One for every experiment and model."""
    from curate.index.stage import IndexStage

    models = config.index.models
    for experiment in config.chosen(config.index.experiments):
        for alias in config.embed.models if models is None else models:
            yield IndexStage(experiment, alias, config.index, config.embed.models[alias])
