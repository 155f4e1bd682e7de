"""YAML as plain data, and where each of its keys stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from curate.config.locating import KeyPath
from curate.errors import ConfigError

Places = dict[KeyPath, tuple[str, int]]
"""Key path → (file, line), so that an error in a merged config still points at its source.

Line 0: it has no lines, as ``--set``.
"""

_MEANINGS = {
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
}
_MERGE = "tag:yaml.org,2002:merge"


def text_of(path: Path, source: str) -> str:
    """The text of a file, which is UTF-8 whatever the machine is set to."""
    try:
        return path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror})") from None


def read_yaml(text: str, path: KeyPath, at: Callable[[int], tuple[str, int]], places: Places) -> Any:
    """Plain data of YAML that stands at a key path, and where each of its keys stands.

    No two parts of the data are one object, so that a merge into one leaves the other as it is.

    Args:
        at: the place of a line of the text, counted from 1.

    Raises:
        ConfigError: it is no YAML, or has a key twice.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        _collect_places(node, path, at, places)
        return _unshared(yaml.SafeLoader("").construct_document(node))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        why = f"the character U+{error.character:04X} cannot stand in it"
    except yaml.MarkedYAMLError as error:
        line, why = error.problem_mark.line + 1 if error.problem_mark else 0, str(error.problem)
    except RecursionError:
        line, why = 0, "nested too deeply"
    except ConfigError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # Of a date, a number or a tag that looks like one and is none: pyyaml lets Python complain.
        line, why = 0, f"{error}; text that looks like a date or a number goes in quotes"
    raise ConfigError(f"{line_of(at(line))}: not valid YAML: {why}")


def _collect_places(
    node: yaml.Node,
    path: KeyPath,
    at: Callable[[int], tuple[str, int]],
    places: Places,
    inside: tuple[yaml.Node, ...] = (),
) -> None:
    """Where the keys of a node and of all below it stand. Raises where a key cannot be one."""
    place = at(node.start_mark.line + 1)
    if any(node is outer for outer in inside):
        raise ConfigError(f"{line_of(place)}: '{'.'.join(path)}' is an alias of what it stands in")
    inside = (*inside, node)
    if isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            here = (*path, str(i))
            places[here] = at(value.start_mark.line + 1)
            _collect_places(value, here, at, places, inside)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.tag == _MERGE:
            for merged in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
                _collect_places(merged, path, at, places, inside)
    first: dict[str, int] = {}
    for key, value in node.value:
        if key.tag == _MERGE or not isinstance(key, yaml.ScalarNode):
            continue
        here = (*path, key.value)
        place = places[here] = at(key.start_mark.line + 1)
        if key.tag in _MEANINGS:
            meaning = _MEANINGS[key.tag]
            raise ConfigError(
                f"{line_of(place)}: key '{'.'.join(here)}' is {meaning} to YAML; put it in quotes"
            )
        if key.value in first:
            before = f" (first on line {first[key.value]})" if place[1] else ""
            raise ConfigError(f"{line_of(place)}: key '{'.'.join(here)}' stands twice{before}")
        first[key.value] = place[1]
        _collect_places(value, here, at, places, inside)


def _unshared(value: Any) -> Any:
    """A copy in which what an alias stands for is there again."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def line_of(place: tuple[str, int]) -> str:
    """A place as people read it."""
    file, line = place
    return f"{file}:{line}" if line else file
