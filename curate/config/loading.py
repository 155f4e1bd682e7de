"""From YAML files to a checked ``PipelineConfig``: ``extends``, ``--set``, errors with a place.

An error names the file, the line, the key and what to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from curate.config.filters import RULE_KEYS
from curate.config.models import PipelineConfig
from curate.errors import ConfigError

Places = dict[tuple[str, ...], tuple[str, int]]
"""Key path → (file, line), so that an error in a merged config still points at its source."""


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
        _merge_sections(data, _parse_override(text, places))
    return check(data, places, source or "command line")


def check(data: Mapping[str, Any], places: Places | None = None, source: str = "config") -> PipelineConfig:
    """Validate plain data; errors become one ``ConfigError`` with the place of the first key at fault."""
    try:
        return PipelineConfig.model_validate(data)
    except ValidationError as error:
        lines = [_explain(e, places or {}, source) for e in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def presets() -> dict[str, str]:
    """Name → first comment line of every preset that comes with the package."""
    found = {}
    for path in sorted(_preset_root().rglob("*.yaml")):
        name = path.relative_to(_preset_root()).with_suffix("").as_posix()
        first = path.read_text().splitlines()[0]
        found[name] = first.removeprefix("#").strip()
    return found


def preset_text(name: str) -> str:
    """The YAML of a preset.

    Raises:
        ConfigError: no preset of that name; says which are near.
    """
    path = _preset_root() / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no preset named '{name}'{_nearest(name, presets())}; see `curate config presets`")
    return path.read_text()


def dump(config: PipelineConfig) -> str:
    """YAML of everything that is in force, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _preset_root() -> Path:
    return Path(str(resources.files("curate.config"))) / "presets"


def _load_file(source: str, places: Places, trail: tuple[str, ...]) -> dict[str, Any]:
    """One YAML file with its ``extends`` merged under it."""
    if source in trail:
        raise ConfigError(f"{source}: `extends` goes round in a circle: {' → '.join((*trail, source))}")
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise ConfigError(f"{source}: no such config file")
        text, folder = path.read_text(), path.parent
    else:
        text, folder = preset_text(source), _preset_root()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of sections (workspace, ingest, download, …)")
    parents = data.pop("extends", [])
    merged: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        near = folder / parent
        parent_source = str(near) if str(parent).endswith((".yaml", ".yml")) else str(parent)
        _merge_sections(merged, _load_file(parent_source, places, (*trail, source)))
    _collect_places(node, (), source, places)
    _merge_sections(merged, data)
    return merged


def _collect_places(node: Any, path: tuple[str, ...], source: str, places: Places) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            places[here] = (source, key.start_mark.line + 1)
            _collect_places(value, here, source, places)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            places[(*path, str(i))] = (source, value.start_mark.line + 1)
            _collect_places(value, (*path, str(i)), source, places)


def _parse_override(text: str, places: Places) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: expected key.path=value")
    path = tuple(key.strip().split("."))
    try:
        leaf = yaml.safe_load(value) if value else None
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from None
    places[path] = (f"--set {key.strip()}", 0)
    for part in reversed(path):
        leaf = {part: leaf}
    assert isinstance(leaf, dict)
    return leaf


def _merge_sections(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Merge; a section that can be switched off stays off, whatever it inherits."""
    _merge(base, over)
    base.update({key: None for key in _SWITCHED if key in over and over[key] is None})


_SWITCHED = ("download",)
"""Sections for which null has a meaning of its own."""


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Mappings merge key by key, everything else replaces. A key of None removes what was inherited."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            if _replaces(base[key], value):
                base[key] = dict(value)
            else:
                _merge(base[key], value)
        elif value is None and isinstance(base.get(key), dict):
            del base[key]
        else:
            base[key] = value


def _replaces(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """A rule or scorer of another kind replaces the inherited one instead of mixing with it."""
    kinds = [set(RULE_KEYS) & set(m) for m in (old, new)]
    if kinds[0] and kinds[1] and kinds[0] != kinds[1]:
        return True
    return "type" in old and "type" in new and old["type"] != new["type"]


def _explain(error: ErrorDetails, places: Places, source: str) -> str:
    loc = tuple(str(part) for part in error["loc"])
    path, model = _resolve(loc)
    key = ".".join(path)
    where = _where(path, places, source)
    if error["type"] == "extra_forbidden":
        *_, name = path
        names = list(model.model_fields) if model else []
        hint = _nearest(name, names) or (f"; keys here: {', '.join(names)}" if names else "")
        return f"{where}: unknown key '{key}'{hint}"
    if error["type"] == "missing":
        return f"{where}: missing key '{key}'"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("value_error", "unknown_rule", "union_tag_invalid"):
        return f"{where}: {key + ': ' if key and not message.startswith(key) else ''}{message}"
    return f"{where}: {key}: {message[0].lower() + message[1:]}, got {error['input']!r}"


def _where(path: tuple[str, ...], places: Places, source: str) -> str:
    for end in range(len(path), 0, -1):
        if path[:end] in places:
            file, line = places[path[:end]]
            return f"{file}:{line}" if line else file
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


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
