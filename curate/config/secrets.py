"""A config as it is kept in a workspace and its logs: without what opens a store."""

from __future__ import annotations

from typing import Any

import yaml

from curate.config.models import PipelineConfig

_HARMLESS = ("endpoint_url", "region", "region_name", "protocol", "project")
"""Options of stores whose texts say where something is."""


def public_dump(config: PipelineConfig) -> str:
    """YAML of everything that is in force, defaults included, but for whatever could be a secret."""
    facts = _public(config.model_dump(mode="json"))
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def _public(value: Any) -> Any:
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {k: _harmless(v) if k == "storage_options" and v else _public(v) for k, v in value.items()}


def _harmless(options: dict[str, Any]) -> dict[str, Any]:
    """Truth values, numbers, and texts that name a place."""
    found = {}
    for key, value in options.items():
        if isinstance(value, dict):
            found[key] = _harmless(value)
        elif isinstance(value, bool | int | float) or value is None or key in _HARMLESS:
            found[key] = value
    return found
