"""The stages of ``curate score``."""

from __future__ import annotations

from collections.abc import Iterator

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage
from curate.errors import ConfigError


def stages(config: PipelineConfig) -> Iterator[Stage]:
    """For every scorer; one that learns from the pool has a stage for that first."""
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
