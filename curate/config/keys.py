"""Every key of the config as lines of text: path, type, default, meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from curate.config.models import PipelineConfig
from curate.errors import ConfigError


def describe(section: str | None = None) -> list[str]:
    """Lines of ``key: type = default  # meaning`` for all keys, or those of one section.

    Raises:
        ConfigError: there is no such section.
    """
    lines = [line for line in _walk(PipelineConfig, "") if section is None or line.startswith(section)]
    if not lines:
        raise ConfigError(f"no keys under '{section}'; sections: {', '.join(PipelineConfig.model_fields)}")
    return lines


def _walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = list(_models(field.annotation))
        if inner:
            keyed = get_origin(_bare(field.annotation)) is dict
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
    field = model.model_fields.get("type")
    return str(get_args(field.annotation)[0]) if field else next(iter(model.model_fields))


def _bare(annotation: Any) -> Any:
    if hasattr(annotation, "__metadata__"):
        return _bare(get_args(annotation)[0])
    args = [a for a in get_args(annotation) if a is not type(None)]
    return _bare(args[0]) if len(args) == 1 and type(None) in get_args(annotation) else annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _models(argument)


def _type_text(annotation: Any) -> str:
    bare = _bare(annotation)
    if isinstance(bare, type) and get_origin(bare) is None:
        return bare.__name__
    return str(bare).replace("typing.", "")
