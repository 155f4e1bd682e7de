"""``type: text``: counts and language of the alt text."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from curate.config.scorers.text import TextScorer
from curate.score.contract import Columns, RowScorer
from curate.text.facts import TYPES, text_facts


class Text(RowScorer[TextScorer]):
    """Length, words, language."""

    columns = ("text",)
    outputs = pa.schema(TYPES)

    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        """Published tables may have texts of any type."""
        texts = samples["text"]
        if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            texts = texts.cast(pa.string())
        return text_facts(texts, wanted)
