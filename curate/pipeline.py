"""The stages of a config, in the order in which data flows."""

from __future__ import annotations

from collections.abc import Sequence

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage
from curate.errors import ConfigError
from curate.verbs import VERBS


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
    return [stage for verb in verbs for stage in VERBS[verb].stages(config)]
