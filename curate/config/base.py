"""The base of every settings model, and what a settings object contributes to a fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

NAME_LENGTH = 64

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=NAME_LENGTH)]
"""A name that becomes part of a path and of a SQL identifier: letters, digits, underscore."""

RULE_PATTERN = r"^\P{Cc}+$"

RuleName = Annotated[str, Field(pattern=RULE_PATTERN, max_length=NAME_LENGTH)]
"""A name that is only ever shown, as the reason why a row was dropped: any text on one line."""


class Settings(BaseModel):
    """Frozen settings: an unknown key is an error, and two equal settings have one fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    def facts(self) -> dict[str, Any]:
        """What decides the bytes of the output, as plain JSON values: fields by their keys, without knobs."""
        return {
            field.alias or name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not _is_knob(field)
        }


def knob(default: Any, description: str, **kwargs: Any) -> Any:
    """Declare a field that changes how fast or where work runs, never what comes out.

    A knob is left out of fingerprints, so that turning it does not redo finished shards.
    """
    return Field(default, description=description, json_schema_extra={"knob": True}, **kwargs)


def _is_knob(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("knob") is True


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.facts()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(v) for v in value)
    return value


def fingerprint(value: Any) -> str:
    """128-bit hex digest of plain JSON values; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
