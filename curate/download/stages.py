"""The stages of ``curate download``."""

from __future__ import annotations

from collections.abc import Iterator

from curate.config.models import PipelineConfig
from curate.engine.stage import Stage


def stages(config: PipelineConfig) -> Iterator[Stage]:
    """One stage, or none for a pool without images."""
    from curate.download.stage import DownloadStage

    if config.download is not None:
        yield DownloadStage(config.download)
