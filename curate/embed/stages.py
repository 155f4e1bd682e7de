"""The stages of ``curate embed``."""

from __future__ import annotations

from pathlib import Path

from curate.config.models import ModelSettings, PipelineConfig
from curate.engine.stage import Stage, in_one_pass
from curate.errors import ConfigError


def stages(config: PipelineConfig) -> list[Stage]:
    """For every model, in the order of the config; those that embed share one pass over the pictures."""
    from curate.embed.stage import EmbedStage
    from curate.embed.stored.stages import JoinStage, SortStage

    found: list[Stage] = []
    for alias, model in config.embed.models.items():
        _need_weights(alias, model)
        if model.source:
            found += [SortStage(alias, model), JoinStage(alias, model)]
        else:
            found.append(EmbedStage(alias, model))
    in_one_pass([stage for stage in found if isinstance(stage, EmbedStage)])
    return found


def _need_weights(alias: str, model: ModelSettings) -> None:
    """Raises ConfigError when a path names no weights: now, and not behind days of download."""
    given = {"model": model.model.removeprefix("local-dir:"), "pretrained": model.pretrained or ""}
    if not model.model.startswith("local-dir:"):
        del given["model"]
    for key, path in given.items():
        if "/" in path and not Path(path).expanduser().exists():
            raise ConfigError(f"embed.models.{alias}.{key}: {path}: no such file or folder")
