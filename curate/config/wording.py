"""What is wrong with a value, in the words of someone who writes YAML and has not heard of validators."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from pydantic_core import ErrorDetails

from curate.config.base import NAME_LENGTH, RULE_PATTERN

_MAPPING = "a mapping of keys"
_EXPECTED = {
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}
"""Pydantic's type of an error → what should stand there."""


_OF_A_KEY = "[key]"
"""Pydantic's last part of a location, where not the value is at fault but its key."""


def place_of(error: ErrorDetails) -> tuple[str, ...]:
    """Pydantic's location as text."""
    return tuple(str(part) for part in error["loc"] if part != _OF_A_KEY)


def of_a_key(error: ErrorDetails) -> bool:
    """Whether the last key of the place is no name, whatever its value is."""
    return error["loc"][-1:] == (_OF_A_KEY,)


def complaint(errors: Sequence[ErrorDetails]) -> str:
    """What is wrong at one place. Several errors: what stands there is none of several things."""
    error = errors[0]
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    message = error["msg"].removeprefix("Value error, ")
    if of_a_key(error):
        return f"{shown(value)} is not a name: {_rules_of_a_name(context.get('pattern'))}"
    if kind in ("value_error", "unknown_kind"):
        return message
    if kind in ("too_short", "string_too_short") and not value:
        return "is empty; give at least one" if kind == "too_short" else "is empty"
    expected = list(dict.fromkeys(_EXPECTED[e["type"]] for e in errors if e["type"] in _EXPECTED))
    if expected:
        return f"expected {' or '.join(expected)}, got {shown(value)}{_fixed(value, expected)}"
    return f"{message[0].lower()}{message[1:]}, got {shown(value)}".replace("input should be", "must be", 1)


def shown(value: Any) -> str:
    """A value on one line, as YAML has it, and not too much of it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = str(value) if isinstance(value, date) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _rules_of_a_name(pattern: str | None) -> str:
    """What a name consists of; without a pattern its length alone is wrong."""
    if pattern is None:
        return f"at most {NAME_LENGTH} characters"
    if pattern == RULE_PATTERN:
        return f"1 to {NAME_LENGTH} characters on one line"
    letters = "letters" if "A-Z" in pattern else "small letters"
    return f"{letters}, digits and _ (not first), at most {NAME_LENGTH}"


def nearest(name: str, names: Iterable[str]) -> str:
    """A question after the name that was meant, or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def _fixed(value: Any, expected: Sequence[str]) -> str:
    """How the value should be written, where that is plain."""
    if "text" in expected and isinstance(value, int | float | date):
        return "; put it in quotes"
    if expected == ["a number"] and isinstance(value, str) and value.strip().endswith("%"):
        try:
            return f"; as a number: {float(value.strip()[:-1]) / 100:g}"
        except ValueError:
            return ""
    return ""
