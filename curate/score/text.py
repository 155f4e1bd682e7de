"""Counts and language of the alt text."""

from __future__ import annotations

from typing import Any

from curate.config.scorers import TextScorer
from curate.score.contract import Columns, ColumnScorer, Shard
from curate.text.facts import text_facts


class Text(ColumnScorer):
    """``type: text``."""

    columns = ("text",)

    def __init__(self, name: str, settings: TextScorer) -> None:
        self.settings = settings

    @property
    def facts(self) -> dict[str, Any]:
        """The settings."""
        return self.settings.facts()

    def score(self, shard: Shard) -> Columns:
        """Length, words, language."""
        return text_facts(shard.samples["text"])
