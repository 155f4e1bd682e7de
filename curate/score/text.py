"""Counts and language of the alt text."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.config.scorers import TextScorer
from curate.score.contract import Columns, ColumnScorer, Shard
from curate.text.language import detect


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
        return score_text(shard.samples["text"])


def score_text(texts: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
    """Columns of n alt texts; a null text has null everywhere.

    ``length``: characters (Unicode code points), int32. ``words``: runs between white space, what
    Python's ``str.split`` counts and DataComp's basic filter uses, int32. ``lang``: code of lid.176,
    null when the text tells nothing. ``lang_score``: its probability, float32, 0 when it tells nothing.
    """
    values = texts.to_pylist()
    lang, probability = detect(values)
    no_text = pa.array([value is None for value in values], pa.bool_())
    return {
        "length": pa.array([None if v is None else len(v) for v in values], pa.int32()),
        "words": pa.array([None if v is None else len(v.split()) for v in values], pa.int32()),
        "lang": lang,
        "lang_score": pc.if_else(no_text, pa.scalar(None, pa.float32()), probability),
    }
