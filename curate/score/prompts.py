"""Lists of prompts: shipped ones by name, a user's by path."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from curate.config.base import Settings
from curate.config.scorers.zero_shot import ZeroShotScorer
from curate.errors import UserError

ListT = TypeVar("ListT", bound=Settings)


class Prompts(Settings):
    """What is looked for, and everything else."""

    description: str = Field("", description="What the list is for, one sentence.")
    positive: tuple[str, ...] = Field(min_length=1, description="Prompts of what is looked for.")
    negative: tuple[str, ...] = Field(min_length=1, description="Prompts of everything else.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        seen: set[str] = set()
        for prompt in (*self.positive, *self.negative):
            if not prompt.strip():
                raise ValueError("a prompt is empty")
            if prompt in seen:
                raise ValueError(f"'{prompt}' is there twice")
            seen.add(prompt)
        return self


def load_prompts(scorer: str, settings: ZeroShotScorer) -> Prompts:
    """The prompts that a scorer's settings name or hold.

    Raises:
        UserError: no such list or file, or one that cannot be used.
    """
    place = f"score.scorers.{scorer}"
    if settings.prompts is None:
        return check_list(Prompts, {"positive": settings.positive, "negative": settings.negative}, place)
    data, source = load_list(settings.prompts, f"{place}.prompts", "prompts", "positive` and `negative")
    return check_list(Prompts, data, source)


def shipped(folder: str = "prompts") -> dict[str, str]:
    """Name → text of the lists that come with the package, in a folder of this one."""
    files = [f for f in (resources.files("curate.score") / folder).iterdir() if f.name.endswith(".yaml")]
    return {f.name.removesuffix(".yaml"): f.read_text("utf-8") for f in sorted(files, key=lambda f: f.name)}


def load_list(name: str, place: str, folder: str, keys: str) -> tuple[dict[str, Any], str]:
    """The mapping in a shipped list or in a user's file, and what to call it in errors.

    Raises:
        UserError: no such list or file, or it is no mapping; says that it should have these ``keys``.
    """
    text, source = _text(name, place, folder)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{source}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise UserError(f"{source}: expected a mapping with `{keys}`")
    return data, source


def _text(name: str, place: str, folder: str) -> tuple[str, str]:
    """Text of a list and what to call it in errors."""
    lists = shipped(folder)
    if name in lists:
        return lists[name], f"prompts '{name}'"
    path = Path(name).expanduser()
    if path.is_file():
        try:
            return path.read_text("utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{place}: {name} cannot be read ({error})") from None
    beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() and path.suffix else []
    near = difflib.get_close_matches(path.name if beside else name, [*lists, *beside], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"shipped lists: {', '.join(lists)}"
    raise UserError(f"{place}: no prompt list or file '{name}'; {hint}")


def check_list(model: type[ListT], data: object, source: str) -> ListT:
    """A list from plain data.

    Args:
        model: of the list.
        data: what a file or the settings say.
        source: what to call it in errors.

    Raises:
        UserError: it is no such list.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]")
        if first["type"] == "extra_forbidden":
            keys = ", ".join(sorted(model.model_fields, key="description".__eq__))
            raise UserError(f"{source}: unknown key '{key}'; keys: {keys}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{source}: {key + ': ' if key else ''}{message[0].lower() + message[1:]}") from None
