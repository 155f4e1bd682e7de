"""The stages of ``curate embed``."""

from __future__ import annotations

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage, in_one_pass


def stages(config: PipelineConfig) -> list[Stage]:
    """For every model, in the order of the config; those that embed share one pass over the pictures."""
    from curate.embed.stage import EmbedStage
    from curate.embed.stored.stages import JoinStage, SortStage

    found: list[Stage] = []
    for alias, model in config.embed.models.items():
        if model.source:
            found += [SortStage(alias, model), JoinStage(alias, model)]
        else:
            found.append(EmbedStage(alias, model))
    in_one_pass([stage for stage in found if isinstance(stage, EmbedStage)])
    return found
