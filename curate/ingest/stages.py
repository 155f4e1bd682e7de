"""The stages of ``curate ingest``."""

from __future__ import annotations

from collections.abc import Iterator

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage
from curate.errors import ConfigError


def stages(config: PipelineConfig) -> Iterator[Stage]:
    """Parse the sources, then cut what was parsed into shards."""
    from curate.ingest.parse import ParseStage
    from curate.ingest.stage import IngestStage

    if config.ingest is None:
        raise ConfigError("missing section 'ingest': it needs at least ingest.sources (see `curate init`)")
    yield ParseStage(config.ingest)
    yield IngestStage(config.ingest, images=config.download is not None)
