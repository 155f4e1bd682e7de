"""Settings of the rule ``not_in``: rows whose value is not listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, model_validator

from curate.config.rules.base import Digest, RuleSettings, give_one
from curate.config.rules.in_ import FileColumn, ListFile, Values


class NotInRule(RuleSettings):
    """Rows whose value is not listed: block lists, removal requests."""

    kind = "not_in"
    implementation = "curate.rules.kinds.members:NotIn"
    file_keys: ClassVar[Mapping[str, str]] = {"file": "digest"}

    not_in: str = Field(description="Column or SQL expression: text or whole number.")
    values: Values = None
    file: ListFile = None
    column: FileColumn = None
    digest: Digest = None

    @model_validator(mode="after")
    def _consistent(self) -> NotInRule:
        give_one(self, "values", "file")
        return self
