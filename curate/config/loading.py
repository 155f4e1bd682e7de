"""From YAML files to a checked ``PipelineConfig``: ``extends``, ``--set``, errors with a place.

An error names the file, the line, the key and what to write instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from curate.config.filters import RULE_KEYS
from curate.config.models import PipelineConfig
from curate.config.wording import complaint, nearest, of_a_key, place_of
from curate.errors import ConfigError

Places = dict[tuple[str, ...], tuple[str, int]]
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
_NO_MAPPING = ("model_type", "model_attributes_type", "unknown_rule")
_MERGE = "tag:yaml.org,2002:merge"


def load_config(source: str | None, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a config file or preset, apply ``a.b=c`` overrides, and check it.

    Args:
        source: a path to a YAML file, the name of a preset, or None for an empty config.
        overrides: ``key.path=value``; the value is YAML.

    Raises:
        ConfigError: one line that names file, key and fix.
    """
    places: Places = {}
    data = _load_file(source, places, ()) if source else {}
    for text in overrides:
        own: Places = {}
        _merge_sections(data, _parse_override(text, own), places)
        # Only what it put there is its own: the mappings on the way to it are still the file's.
        places = {**own, **places}
    return check(data, places, source or "command line")


def check(data: Mapping[str, Any], places: Places | None = None, source: str = "config") -> PipelineConfig:
    """Validate plain data; errors become one ``ConfigError`` with the place of the first key at fault."""
    try:
        return PipelineConfig.model_validate(data)
    except ValidationError as error:
        lines = [_explain(found, places or {}, source) for found in _by_place(error.errors())]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def presets() -> dict[str, str]:
    """Name → first comment line of every preset that comes with the package."""
    found = {}
    for path in sorted(_preset_root().rglob("*.yaml")):
        name = path.relative_to(_preset_root()).with_suffix("").as_posix()
        first = path.read_text(encoding="utf-8").splitlines()[0]
        found[name] = first.removeprefix("#").strip()
    return found


def preset_text(name: str) -> str:
    """The YAML of a preset.

    Raises:
        ConfigError: no preset of that name; says which are near.
    """
    path = _preset_root() / f"{name}.yaml"
    if not _is_file(path):
        near = _hint(nearest(name, presets()))
        raise ConfigError(f"no preset named '{name}'{near}; see `curate config presets`")
    return path.read_text(encoding="utf-8")


def dump(config: PipelineConfig) -> str:
    """YAML of everything that is in force, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _preset_root() -> Path:
    return Path(str(resources.files("curate.config"))) / "presets"


def _load_file(source: str, places: Places, trail: tuple[str, ...]) -> dict[str, Any]:
    """One YAML file with its ``extends`` merged under it."""
    if any(os.path.realpath(source) == os.path.realpath(before) for before in trail):
        raise ConfigError(f"{source}: `extends` goes round in a circle: {' → '.join((*trail, source))}")
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        if not _is_file(path):
            raise ConfigError(f"{source}: no such config file")
        text, folder = _text_of(path, source), path.parent
    else:
        text, folder = preset_text(source), _preset_root()
    own: Places = {}
    data = _read(text, (), lambda line: (source, line), own)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of sections (workspace, ingest, download, …)")
    parents = data.pop("extends", None) or []
    if isinstance(parents, str):
        parents = [parents]
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        where = _where(("extends",), own, source)
        raise ConfigError(f"{where}: `extends` is the name of a config, or a list of names")
    merged: dict[str, Any] = {}
    for parent in parents:
        parent_source = str(folder / parent) if parent.endswith((".yaml", ".yml")) else parent
        theirs: Places = {}
        _merge_sections(merged, _load_file(parent_source, theirs, (*trail, source)), places)
        places.update(theirs)
    _merge_sections(merged, data, places)
    places.update(own)
    return merged


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for this disk is the name of none
        return False


def _text_of(path: Path, source: str) -> str:
    """The text of a file, which is UTF-8 whatever the machine is set to."""
    try:
        return path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror})") from None


def _read(text: str, path: tuple[str, ...], at: Callable[[int], tuple[str, int]], places: Places) -> Any:
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
    raise ConfigError(f"{_line_of(at(line))}: not valid YAML: {why}")


def _collect_places(
    node: yaml.Node,
    path: tuple[str, ...],
    at: Callable[[int], tuple[str, int]],
    places: Places,
    inside: tuple[yaml.Node, ...] = (),
) -> None:
    """Where the keys of a node and of all below it stand. Raises where a key cannot be one."""
    place = at(node.start_mark.line + 1)
    if any(node is outer for outer in inside):
        raise ConfigError(f"{_line_of(place)}: '{'.'.join(path)}' is an alias of what it stands in")
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
                f"{_line_of(place)}: key '{'.'.join(here)}' is {meaning} to YAML; put it in quotes"
            )
        if key.value in first:
            before = f" (first on line {first[key.value]})" if place[1] else ""
            raise ConfigError(f"{_line_of(place)}: key '{'.'.join(here)}' stands twice{before}")
        first[key.value] = place[1]
        _collect_places(value, here, at, places, inside)


def _unshared(value: Any) -> Any:
    """A copy in which what an alias stands for is there again."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _parse_override(text: str, places: Places) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: expected key.path=value")
    place = (f"--set {key.strip()}", 0)
    leaf = _read(value, path, lambda _: place, places)
    for end in range(1, len(path) + 1):
        places[path[:end]] = place
    for part in reversed(path):
        leaf = {part: leaf}
    assert isinstance(leaf, dict)
    return leaf


def _merge_sections(base: dict[str, Any], over: Mapping[str, Any], places: Places) -> None:
    """Merge; a section that can be switched off stays off, whatever it inherits."""
    _merge(base, over, places, ())
    base.update({key: None for key in _SWITCHED if key in over and over[key] is None})


_SWITCHED = ("download",)
"""Sections for which null has a meaning of its own."""


def _merge(base: dict[str, Any], over: Mapping[str, Any], places: Places, path: tuple[str, ...]) -> None:
    """Mappings merge key by key, everything else replaces. A key of None removes what was inherited.

    A text stays as None, which is a value of many keys; but a rule is a mapping, whichever way it is
    written. What goes from the base goes from its places.
    """
    for key, value in over.items():
        old, here = base.get(key), (*path, key)
        if isinstance(value, Mapping) and isinstance(old, dict) and not _replaces(old, value):
            _merge(old, value, places, here)
            continue
        if isinstance(old, dict | list):
            for gone in [known for known in places if known[: len(here)] == here]:
                del places[gone]
        places.pop(here, None)
        if value is None and (isinstance(old, dict) or (old is not None and path[-1:] == ("rules",))):
            del base[key]
        else:
            base[key] = value


def _replaces(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """A rule or scorer of another kind replaces the inherited one instead of mixing with it."""
    kinds = [set(RULE_KEYS) & set(m) for m in (old, new)]
    if kinds[0] and kinds[1] and kinds[0] != kinds[1]:
        return True
    return "type" in old and "type" in new and old["type"] != new["type"]


def _by_place(errors: Sequence[ErrorDetails]) -> list[list[ErrorDetails]]:
    """Errors of one place together: of a union pydantic tells for each member why it is none.

    A place that holds another place at fault is not told of.
    """
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for error in errors:
        found.setdefault(_resolve(place_of(error))[0], []).append(error)
    return [
        together
        for path, together in found.items()
        if not any(len(other) > len(path) and other[: len(path)] == path for other in found)
    ]


def _explain(errors: Sequence[ErrorDetails], places: Places, source: str) -> str:
    """A line on what is wrong at one place."""
    error = errors[0]
    path, model = _resolve(place_of(error))
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, error["ctx"]["discriminator"].strip("'"))
    key = ".".join(path[:-1] if of_a_key(error) else path)
    where = _where(path, places, source)
    if error["type"] == "extra_forbidden":
        names = list(model.model_fields) if model else []
        hint = nearest(path[-1], names) or (f"keys here: {', '.join(names)}" if names else "")
        return f"{where}: unknown key '{key}'{_hint(hint)}"
    if error["type"] in ("missing", "union_tag_not_found"):
        return f"{where}: missing key '{key}'{_hint(_example(path, model))}"
    message = complaint(errors)
    if (
        error["input"] is None
        and error["type"] in _NO_MAPPING
        and isinstance(error["loc"][-1], str)
        and not model
    ):
        # Where mappings have names, null takes an inherited one away, and is gone then itself.
        message = "nothing of that name to take away"
    said = not key or where == f"--set {key}" or message.startswith(key)
    return f"{where}: {'' if said else key + ': '}{message}{_where_each(error, message, path, places)}"


def _example(path: tuple[str, ...], model: type[BaseModel] | None) -> str:
    """How a missing key is given on the command line, where its field has an example."""
    field = model.model_fields.get(path[-1]) if model else None
    return f"give it, e.g. -s '{'.'.join(path)}={field.examples[0]}'" if field and field.examples else ""


def _where_each(error: ErrorDetails, message: str, path: tuple[str, ...], places: Places) -> str:
    """Where keys that exclude each other come from, if not from one file: a user sees only one of them."""
    if not message.startswith("give ") or not isinstance(error["input"], dict):
        return ""
    names = [name for name in re.findall(r"`(\w+)`", message) if error["input"].get(name) is not None]
    found = {name: places[(*path, name)] for name in names if (*path, name) in places}
    if len({file for file, _ in found.values()}) < 2:
        return ""
    each = ", ".join(f"{name} is at {_line_of(place)}" for name, place in found.items())
    return f" ({each}; set the other to null)"


def _hint(text: str) -> str:
    return f"; {text}" if text else ""


def _line_of(place: tuple[str, int]) -> str:
    file, line = place
    return f"{file}:{line}" if line else file


def _where(path: tuple[str, ...], places: Places, source: str) -> str:
    for end in range(len(path), 0, -1):
        if path[:end] in places:
            return _line_of(places[path[:end]])
    return source


def _resolve(loc: tuple[str, ...]) -> tuple[tuple[str, ...], type[BaseModel] | None]:
    """The user's key path of a pydantic location, and the model that the last key belongs to.

    Pydantic puts the tag of a union between the keys; a tag is no key of the user's.
    """
    path: list[str] = []
    annotation: Any = PipelineConfig
    owner: type[BaseModel] | None = PipelineConfig
    for part in loc:
        candidates = _models_in(annotation)
        if len(candidates) > 1:
            chosen = [m for m in candidates if part in _tags(m)]
            annotation = chosen[0] if chosen else None
            continue
        if get_origin(annotation) in (Union, UnionType):
            annotation = None
            continue
        path.append(part)
        if _is_container(annotation):
            annotation = get_args(annotation)[-1 if get_origin(annotation) is dict else 0]
            owner = None
        elif candidates:
            owner = candidates[0]
            field = owner.model_fields.get(part)
            annotation = _unwrapped(field.annotation) if field else None
        else:
            annotation = None
    return tuple(path), owner


def _unwrapped(annotation: Any) -> Any:
    """``X | None`` → ``X``; Annotated is looked through."""
    if hasattr(annotation, "__metadata__"):
        return _unwrapped(get_args(annotation)[0])
    args = [a for a in get_args(annotation) if a is not type(None)]
    if len(args) == 1 and type(None) in get_args(annotation):
        return _unwrapped(args[0])
    return annotation


def _is_container(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, tuple, list)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    annotation = _unwrapped(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (dict, tuple, list):
        return []
    return [m for a in get_args(annotation) for m in _models_in(a)]


def _tags(model: type[BaseModel]) -> set[str]:
    """What pydantic may call this member of a union: its ``type`` literal or its first field."""
    tags = set(list(model.model_fields)[:1])
    field = model.model_fields.get("type")
    if field is not None:
        tags |= set(get_args(field.annotation))
    return tags
