"""What is known of a model by its name alone, without its weights and without importing torch."""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path


def dim_of(model: str) -> int | None:
    """Length of the vectors of a model of the config; None when its name does not say.

    Args:
        model: as in ``embed.models``: a name of open_clip, ``local-dir:…``, ``demo``, or anything else.
    """
    if model == "demo":
        return _embed_dim(Path(str(files("curate.demo"))) / "clip" / "open_clip_config.json")
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:")).expanduser()
        return _embed_dim(folder / "open_clip_config.json")
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        return None
    return _embed_dim(Path(spec.origin).parent / "model_configs" / f"{model.replace('/', '-')}.json")


def _embed_dim(path: Path) -> int | None:
    try:
        facts = json.loads(path.read_text("utf-8"))
        return int(facts.get("model_cfg", facts)["embed_dim"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
