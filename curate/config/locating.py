"""The way of a key path through the models of a config: what stands there, and of which model it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from curate.config.kinds import OpenSet, Written

KeyPath = tuple[str, ...]


def located(model: type[BaseModel], data: Any, loc: KeyPath) -> tuple[KeyPath, type[BaseModel] | None]:
    """The key path of an error of pydantic, and the model whose key the last one is.

    Args:
        data: what was validated by the model.
        loc: pydantic's location; where a value is of none of several types, each has an error, whose last
            part is the type.

    Returns:
        No model where the last key is a name or a number that the user chose.
    """
    path: list[str] = []
    annotation: Any = model
    owner: type[BaseModel] | None = None
    for part in loc:
        if _is_union(annotation):  # pydantic puts the member's type between the keys
            annotation = None
        else:
            path.append(part)
            owner, annotation = _below(annotation, data, part)
            data = _value_at(data, part)
    return tuple(path), owner


def kinds_at(model: type[BaseModel], path: KeyPath) -> OpenSet[Any] | None:
    """The open set of which the value at a key path is, if it is of one."""
    annotation: Any = model
    for part in path:
        _, annotation = _below(annotation, None, part)
    return kinds_in(annotation)


def kinds_in(annotation: Any) -> OpenSet[Any] | None:
    """The open set whose settings an annotation is for, if it is for such; it may be optional."""
    if hasattr(annotation, "__metadata__"):
        found = (note.kinds for note in annotation.__metadata__ if isinstance(note, Written))
        return next(found, None) or kinds_in(get_args(annotation)[0])
    bare = _required(annotation)
    return None if bare is annotation else kinds_in(bare)


def annotation_of(field: FieldInfo) -> Any:
    """The annotation of a field, whole again."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def unwrapped(annotation: Any) -> Any:
    """``X`` of ``X | None`` and of ``Annotated[X, …]``."""
    if hasattr(annotation, "__metadata__"):
        return unwrapped(get_args(annotation)[0])
    bare = _required(annotation)
    return annotation if bare is annotation else unwrapped(bare)


def _required(annotation: Any) -> Any:
    args = [each for each in get_args(annotation) if each is not type(None)]
    return args[0] if len(args) == 1 and type(None) in get_args(annotation) else annotation


def _below(annotation: Any, data: Any, key: str) -> tuple[type[BaseModel] | None, Any]:
    """The model whose key it is, and the annotation of what stands there."""
    kinds = kinds_in(annotation)
    if kinds is not None:
        mapping = kinds.as_mapping(data)
        annotation = None if mapping is None else kinds.kind_of(mapping)
    annotation = unwrapped(annotation)
    if _is_model(annotation):
        fields = annotation.model_fields.items()
        field = next((field for name, field in fields if key in (name, field.alias)), None)
        return annotation, annotation_of(field) if field is not None else None
    origin, args = get_origin(annotation), get_args(annotation)
    return None, args[-1 if origin is dict else 0] if origin in (dict, tuple, list) else None


def _value_at(data: Any, key: str) -> Any:
    if isinstance(data, Mapping):
        return data.get(key)
    items = data if isinstance(data, list | tuple) else ()
    return items[int(key)] if key.isdecimal() and int(key) < len(items) else None


def _is_union(annotation: Any) -> bool:
    return get_origin(unwrapped(annotation)) in (Union, UnionType)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
