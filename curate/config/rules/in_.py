"""Settings of the rule ``in``: rows whose value is listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from curate.config.rules.base import Digest, RuleSettings, give_one


def _no_booleans(values: Any) -> Any:
    """YAML takes a bare ``no`` (Norwegian) for a truth value."""
    if isinstance(values, list | tuple) and any(isinstance(v, bool) for v in values):
        raise ValueError("yes, no, on, off, true and false are truth values in YAML: put them in quotes")
    return values


Values = Annotated[
    tuple[int | str, ...] | None,
    BeforeValidator(_no_booleans),
    Field(min_length=1, description="The values themselves."),
]
ListFile = Annotated[
    str | None,
    Field(description="Instead: `.npy` (also DataComp's u8,u8 uids), `.parquet`, or text, a value a line."),
]
FileColumn = Annotated[
    str | None, Field(description="Column of a parquet file. Default: its only one, or `uid`.")
]


class InRule(RuleSettings):
    """Rows whose value is listed: languages, hosts, uids, clusters that hold a target."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    kind = "in"
    implementation = "curate.rules.kinds.members:In"
    file_keys: ClassVar[Mapping[str, str]] = {"file": "digest"}

    in_: str = Field(alias="in", description="Column or SQL expression: text or whole number.")
    values: Values = None
    file: ListFile = None
    column: FileColumn = None
    digest: Digest = None

    @model_validator(mode="after")
    def _consistent(self) -> InRule:
        give_one(self, "values", "file")
        return self
