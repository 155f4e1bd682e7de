"""Every key of the config as lines of text: path, type, default, meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from curate.config.kinds import KindSettings
from curate.config.locating import annotation_of, kinds_in, unwrapped
from curate.config.models import PipelineConfig
from curate.errors import ConfigError


def describe(section: str | None = None) -> list[str]:
    """Lines of ``key: type = default  # meaning`` for all keys, or those of one section.

    Raises:
        ConfigError: there is no such section; an installed package defines a kind that cannot be loaded.
    """
    lines = [line for line in _walk(PipelineConfig, "") if section is None or line.startswith(section)]
    if not lines:
        raise ConfigError(f"no keys under '{section}'; sections: {', '.join(PipelineConfig.model_fields)}")
    return lines


def _walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        annotation = annotation_of(field)
        inner = list(_models(annotation))
        if inner:
            keyed = get_origin(unwrapped(annotation)) is dict
            for member in inner:
                below = f"{key}.<name>" if keyed else key
                label = f"{below} ({_label(member)})" if len(inner) > 1 else below
                if member.__doc__:
                    yield f"{label}:  # {member.__doc__.strip().splitlines()[0]}"
                yield from _walk(member, f"{below}.")
            continue
        default = "" if field.default is PydanticUndefined else f" = {field.default!r}"
        meaning = f"  # {field.description}" if field.description else ""
        yield f"{key}: {_type_text(field.annotation)}{default}{meaning}"


def _label(model: type[BaseModel]) -> str:
    kind = model.kind if issubclass(model, KindSettings) else ""
    return kind or next(iter(model.model_fields))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    kinds = kinds_in(annotation)
    if kinds is not None:
        yield from kinds.all().values()
        return
    bare = unwrapped(annotation)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        yield bare
        return
    for argument in get_args(bare):
        yield from _models(argument)


def _type_text(annotation: Any) -> str:
    bare = unwrapped(annotation)
    if isinstance(bare, type) and get_origin(bare) is None:
        return bare.__name__
    return str(bare).replace("typing.", "")
