"""Settings of the scorer ``words``: word lists."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from curate.config.base import knob
from curate.config.scorers.base import ScorerSettings


class WordsScorer(ScorerSettings):
    """Listed words and phrases in the alt text: `_count`, `_distinct`, `_first`.

    Case, width and white space do not matter, and a match has to begin and end where words do, except
    in scripts that are written without spaces.
    """

    implementation = "curate.score.kinds.words:Words"

    type: Literal["words"]
    lists: str | dict[str, str] = Field(
        description="A folder with a file per language (`en`, `de.txt`), or language → file; an entry a line."
    )
    languages: tuple[str, ...] | None = Field(None, description="Of a folder: only these. Default: all.")
    language_column: str | None = Field(
        None, description="Column that says which list is for a caption. Default: every list is for all."
    )
    otherwise: Literal["all", "none"] = Field(
        "all",
        description="A caption whose language is unknown or has no list: checked by all lists, or null.",
    )
    batch_rows: int = knob(65_536, "Captions in memory at once.", ge=1)

    @field_validator("lists")
    @classmethod
    def _has_lists(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        if not value:
            raise ValueError("names no list")
        return value

    def uses(self) -> tuple[str, ...]:
        """The column of languages."""
        return (self.language_column,) if self.language_column else ()
