"""Settings of the scorer ``text``: counts and language of the alt text."""

from __future__ import annotations

from typing import Literal

from curate.config.scorers.base import ScorerSettings


class TextScorer(ScorerSettings):
    """Counts and language of the alt text: `_length`, `_words`, `_lang`, `_lang_score`."""

    implementation = "curate.score.kinds.text:Text"
    row_local = True

    type: Literal["text"]
