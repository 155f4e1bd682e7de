"""A mistake in a config as a line of text: where it is, which key, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from curate.config.kinds import keys_of
from curate.config.locating import KeyPath, located
from curate.config.reading import Places, line_of
from curate.config.wording import complaint, nearest, of_a_key, place_of

_NO_MAPPING = ("model_type", "model_attributes_type", "unknown_kind")


def lines_on(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], places: Places, source: str
) -> list[str]:
    """A line for each place at fault.

    Args:
        model: that the data was validated by.
        source: of the data, for what has no place of its own.
    """
    lines = (_explain(errors, model, data, places, source) for errors in _by_place(error, model, data))
    return list(dict.fromkeys(lines))


def where(path: KeyPath, places: Places, source: str) -> str:
    """The place of a key, or of the nearest one above it that has one."""
    for end in range(len(path), 0, -1):
        if path[:end] in places:
            return line_of(places[path[:end]])
    return source


def _by_place(error: ValidationError, model: type[BaseModel], data: Any) -> list[list[ErrorDetails]]:
    """Errors of one place together: of a union pydantic tells for each member why it is none.

    A place that holds another place at fault is not told of.
    """
    found: dict[KeyPath, list[ErrorDetails]] = {}
    for each in error.errors():
        found.setdefault(located(model, data, place_of(each))[0], []).append(each)
    return [
        together
        for path, together in found.items()
        if not any(len(other) > len(path) and other[: len(path)] == path for other in found)
    ]


def _explain(
    errors: Sequence[ErrorDetails], model: type[BaseModel], data: Any, places: Places, source: str
) -> str:
    """A line on what is wrong at one place."""
    error = errors[0]
    path, owner = located(model, data, place_of(error))
    key = ".".join(path[:-1] if of_a_key(error) else path)
    place = where(path, places, source)
    if error["type"] == "extra_forbidden":
        names = keys_of(owner) if owner else []
        hint = nearest(path[-1], names) or (f"keys here: {', '.join(names)}" if names else "")
        return f"{place}: unknown key '{key}'{_hint(hint)}"
    if error["type"] == "missing":
        return f"{place}: missing key '{key}'{_hint(_example(path, owner))}"
    message = complaint(errors)
    if (
        error["input"] is None
        and error["type"] in _NO_MAPPING
        and isinstance(error["loc"][-1], str)
        and not owner
    ):
        # Where mappings have names, null takes an inherited one away, and is gone then itself.
        message = "nothing of that name to take away"
    said = not key or place == f"--set {key}" or message.startswith(key)
    return f"{place}: {'' if said else key + ': '}{message}{_where_each(error, message, path, places)}"


def _example(path: KeyPath, owner: type[BaseModel] | None) -> str:
    """How a missing key is given on the command line, where its field has an example."""
    field = owner.model_fields.get(path[-1]) if owner else None
    return f"give it, e.g. -s '{'.'.join(path)}={field.examples[0]}'" if field and field.examples else ""


def _where_each(error: ErrorDetails, message: str, path: KeyPath, places: Places) -> str:
    """Where keys that exclude each other come from, if not from one file: a user sees only one of them."""
    if not message.startswith("give ") or not isinstance(error["input"], dict):
        return ""
    names = [name for name in re.findall(r"`(\w+)`", message) if error["input"].get(name) is not None]
    found = {name: places[(*path, name)] for name in names if (*path, name) in places}
    if len({file for file, _ in found.values()}) < 2:
        return ""
    each = ", ".join(f"{name} is at {line_of(place)}" for name, place in found.items())
    return f" ({each}; set the other to null)"


def _hint(text: str) -> str:
    return f"; {text}" if text else ""
