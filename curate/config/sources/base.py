"""What the settings of every kind of source have in common."""

from __future__ import annotations

from curate.config.kinds import KindSettings, OpenSet


class SourceKind(KindSettings):
    """Settings of one kind of source. ``format`` in a config is its ``kind``."""


SOURCES = OpenSet("source", SourceKind, "curate.config.sources", "curate.sources")
