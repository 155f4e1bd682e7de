"""Settings of the scorer ``table``: scores that were made elsewhere."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from curate.config.scorers.base import ScorerSettings


class TableScorer(ScorerSettings):
    """Columns of parquet files keyed by uid become `<name>_<column>`; uids they lack are null."""

    implementation = "curate.score.kinds.table:Table"

    type: Literal["table"]
    paths: tuple[str, ...] = Field(min_length=1, description="Parquet files, folders or globs.")
    columns: tuple[str, ...] = Field(min_length=1, description="Columns to take, by their names there.")
    uid_column: str = Field("uid", description="The column that holds uids, 32 hex digits.")

    @field_validator("paths", "columns", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("columns")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a column is named twice")
        return value
