"""From YAML files to a checked ``PipelineConfig``: ``extends``, ``--set``, errors with a place.

An error names the file, the line, the key and what to write instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from curate.config.locating import KeyPath, kinds_at
from curate.config.mistakes import lines_on, where
from curate.config.models import PipelineConfig
from curate.config.reading import Places, read_yaml, text_of
from curate.config.wording import nearest
from curate.errors import ConfigError
from curate.plugins import Trust, load_plugin


def load_config(
    source: str | None, overrides: Sequence[str] = (), trust: Trust = Trust.ALL
) -> PipelineConfig:
    """Read a config file or preset, apply ``a.b=c`` overrides, and check it.

    Runs the plug-in files that it names.

    Args:
        source: a path to a YAML file, the name of a preset, or None for an empty config.
        overrides: ``key.path=value``; the value is YAML.
        trust: which plug-in files may be run.

    Raises:
        ConfigError: one line that names file, key and fix.
    """
    places: Places = {}
    data = _load_file(source, places, (), trust) if source else {}
    parsed = [_parse_override(text) for text in overrides]
    for over, own in parsed:
        _load_plugins(over, Path(), own, "", trust)
    for over, own in parsed:
        _merge_sections(data, over, places)
        # Only what it put there is its own: the mappings on the way to it are still the file's.
        places = {**own, **places}
    return _checked(data, places, source or "command line")


def check(data: Mapping[str, Any], source: str = "config") -> PipelineConfig:
    """Validate plain data, and run the plug-in files that it names.

    Raises:
        ConfigError: a line for each key at fault.
    """
    data = dict(data)
    _load_plugins(data, Path(), {}, source, Trust.ALL)
    return _checked(data, {}, source)


def _checked(data: Mapping[str, Any], places: Places, source: str) -> PipelineConfig:
    try:
        return PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(lines_on(error, PipelineConfig, data, places, source))) from None


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
        near = nearest(name, presets())
        raise ConfigError(f"no preset named '{name}'{near and f'; {near}'}; see `curate config presets`")
    return path.read_text(encoding="utf-8")


def dump(config: PipelineConfig) -> str:
    """YAML of everything that is in force, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _preset_root() -> Path:
    return Path(str(resources.files("curate.config"))) / "presets"


def _load_file(source: str, places: Places, trail: tuple[str, ...], trust: Trust) -> dict[str, Any]:
    """One YAML file with its ``extends`` merged under it."""
    if any(os.path.realpath(source) == os.path.realpath(before) for before in trail):
        raise ConfigError(f"{source}: `extends` goes round in a circle: {' → '.join((*trail, source))}")
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        if not _is_file(path):
            raise ConfigError(f"{source}: no such config file")
        text, folder = text_of(path, source), path.parent
    else:
        text, folder = preset_text(source), _preset_root()
    own: Places = {}
    data = read_yaml(text, (), lambda line: (source, line), own)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of sections (workspace, ingest, download, …)")
    parents = data.pop("extends", None) or []
    if isinstance(parents, str):
        parents = [parents]
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        place = where(("extends",), own, source)
        raise ConfigError(f"{place}: `extends` is the name of a config, or a list of names")
    _load_plugins(data, folder, own, source, trust)
    merged: dict[str, Any] = {}
    for parent in parents:
        parent_source = str(folder / parent) if parent.endswith((".yaml", ".yml")) else parent
        theirs: Places = {}
        _merge_sections(merged, _load_file(parent_source, theirs, (*trail, source), trust), places)
        places.update(theirs)
    _merge_sections(merged, data, places)
    places.update(own)
    return merged


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for this disk is the name of none
        return False


def _load_plugins(data: dict[str, Any], folder: Path, places: Places, source: str, trust: Trust) -> None:
    """Run the plug-in files that some data names; their paths become absolute.

    Before anything is merged, because the kinds of old and new say whether one replaces the other.

    Args:
        folder: to which paths are relative.
    """
    named = data.get("plugins")
    paths = [named] if isinstance(named, str) else named
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str) for path in paths):
        return  # for validation to tell
    loaded = []
    for number, path in enumerate(paths):
        try:
            loaded.append(load_plugin((folder / Path(path).expanduser()).resolve(), trust))
        except ConfigError as error:
            place = where(("plugins", str(number)), places, source)
            raise ConfigError(f"{place}: plugins: {error}") from None
    data["plugins"] = loaded


def _parse_override(text: str) -> tuple[dict[str, Any], Places]:
    """The data of an override, and where its keys stand."""
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: expected key.path=value")
    places: Places = {}
    place = (f"--set {key.strip()}", 0)
    leaf = read_yaml(value, path, lambda _: place, places)
    for end in range(1, len(path) + 1):
        places[path[:end]] = place
    for part in reversed(path):
        leaf = {part: leaf}
    assert isinstance(leaf, dict)
    return leaf, places


def _merge_sections(base: dict[str, Any], over: Mapping[str, Any], places: Places) -> None:
    """Merge; a section that can be switched off stays off, whatever it inherits, and plug-ins add up."""
    plugins = base.get("plugins")
    _merge(base, over, places, ())
    base.update({key: None for key in _SWITCHED if key in over and over[key] is None})
    if plugins and isinstance(base["plugins"], list):
        # What is inherited may need the plug-ins that were named there.
        base["plugins"] = list(dict.fromkeys([*plugins, *base["plugins"]]))


_SWITCHED = ("download",)
"""Sections for which null has a meaning of its own."""


def _merge(base: dict[str, Any], over: Mapping[str, Any], places: Places, path: KeyPath) -> None:
    """Mappings merge key by key, everything else replaces. A key of None removes what was inherited.

    A text stays as None, which is a value of many keys; but a rule is a mapping, whichever way it is
    written. What goes from the base goes from its places.
    """
    for key, value in over.items():
        old, here = base.get(key), (*path, key)
        kinds = kinds_at(PipelineConfig, here) if old is not None else None
        if kinds is not None:
            old, value = kinds.as_mapping(old) or old, kinds.as_mapping(value) or value
        if (
            isinstance(value, Mapping)
            and isinstance(old, dict)
            and not (kinds is not None and kinds.replaces(old, value))
        ):
            base[key] = old
            _merge(old, value, places, here)
            continue
        if isinstance(old, dict | list):
            for gone in [known for known in places if known[: len(here)] == here]:
                del places[gone]
        places.pop(here, None)
        if value is None and isinstance(old, dict):
            del base[key]
        else:
            base[key] = value
