"""Settings of the rule ``where``: a SQL condition on the row."""

from __future__ import annotations

from pydantic import Field

from curate.config.rules.base import RuleSettings


class WhereRule(RuleSettings):
    """A SQL boolean expression over the columns of a sample. NULL and NaN never pass."""

    kind = "where"
    implementation = "curate.rules.kinds.where:Where"

    where: str = Field(min_length=1, description="DuckDB expression, e.g. `similarity >= 0.3`.")
