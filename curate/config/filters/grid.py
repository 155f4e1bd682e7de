"""Grids: many experiments that differ in a few values, compared in one pass over the pool."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from curate.config.base import Settings
from curate.config.filters import Experiment
from curate.config.kinds import Written, keys_of
from curate.config.locating import located
from curate.config.rules.base import RULES
from curate.config.wording import complaint, nearest, of_a_key, place_of

MAX_POINTS = 1_000

Values = tuple[Any, ...]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>[A-Za-z0-9_]+)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Point:
    """One experiment of a grid.

    Attributes:
        name: as people read it: ``t=0.2,language=en``, or the name of a ready-made experiment.
        title: as a config can hold it: letters, digits, underscores.
        place: its key path.
        parameters: name → value; none of a ready-made experiment.
    """

    name: str
    title: str
    place: str
    experiment: Experiment
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Grid(Settings):
    """Rules with `$parameters`, and an experiment for every combination of their values."""

    description: str = Field("", description="One line for the page.")
    over: dict[str, Any] | None = Field(
        None,
        description="Parameter → its values: a list, or `{from: 0.2, to: 0.3, step: 0.01}`. Each combination "
        "is a point, in the order written.",
    )
    rules: dict[str, Annotated[Any, Written(RULES)]] | None = Field(
        None,
        description="Rules of an experiment, in which `$name` stands for a parameter; `$$` is a dollar sign.",
    )
    keep: Any = Field(None, description="Combination of an experiment; may have parameters as well.")
    experiments: tuple[str, ...] = Field(
        (), description="Experiments of `filter.experiments` as further points."
    )
    means: tuple[str, ...] | None = Field(
        None, description="Columns to average. Default: `similarity` and the numbers that the rules read."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        if self.rules is None and not self.experiments:
            raise ValueError("give `over` and `rules`, or `experiments`")
        if (self.rules is None) != (self.over is None) or (self.keep is not None and self.rules is None):
            raise ValueError("`over` and `rules` go together")
        twice = next((n for n in self.experiments if self.experiments.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"experiments: '{twice}' is there twice")
        if len(self.own) + len(self.experiments) > MAX_POINTS:
            raise ValueError(f"a grid has at most {MAX_POINTS:,} points")
        return self

    def points(self, name: str, experiments: Mapping[str, Experiment]) -> tuple[Point, ...]:
        """All points of a grid of this name: its own, then the ready-made experiments."""
        titles = _titles(name, [p for p, _ in self.own], set(self.experiments))
        own = [
            Point(label, title, f"filter.grids.{name}[{label}]", experiment, parameters)
            for (parameters, experiment), title in zip(self.own, titles, strict=True)
            if (label := label_of(parameters))
        ]
        others = [Point(n, n, f"filter.experiments.{n}", experiments[n]) for n in self.experiments]
        return (*own, *others)

    @cached_property
    def own(self) -> tuple[tuple[dict[str, Any], Experiment], ...]:
        """Parameters and experiment of every combination.

        Raises:
            ValueError: a combination is no experiment; names it and the key.
        """
        if self.rules is None or self.over is None:
            return ()
        written = {"description": "", "rules": self.rules, "keep": self.keep}
        used = {name for _, name in _used(written, ())}
        for name in self.over:
            if name not in used:
                raise ValueError(f"over.{name}: no rule uses ${name}")
        values = {name: _values(name, given) for name, given in self.over.items()}
        if math.prod(len(v) for v in values.values()) > MAX_POINTS:
            raise ValueError(f"a grid has at most {MAX_POINTS:,} points")
        found = []
        for chosen in itertools.product(*values.values()):
            parameters = dict(zip(values, chosen, strict=True))
            found.append((parameters, _experiment(written, parameters)))
        return tuple(found)

    def uses(self, experiments: Mapping[str, Experiment]) -> tuple[str, ...]:
        """Names of the experiments whose selections its points build on."""
        points = self.points("", experiments)
        return tuple(dict.fromkeys(name for point in points for name in point.experiment.uses()))


def label_of(parameters: Mapping[str, Any]) -> str:
    """``t=0.2,language=en``."""
    return ",".join(f"{name}={text_of(value)}" for name, value in parameters.items())


def text_of(value: Any) -> str:
    """A value of a parameter on one line: of a list the values with a plus between."""
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(text_of(v) for v in value) if isinstance(value, tuple) else str(value)


def _values(name: str, given: Any) -> Values:
    """The values of a parameter. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"over.{name}: a parameter is named by letters, digits and underscores")
    values = _steps(name, given) if isinstance(given, Mapping) else given
    if not isinstance(values, list | tuple):
        raise ValueError(f"over.{name}: expected a list of values, or from, to and step; got {given!r}")
    if not values:
        raise ValueError(f"over.{name}: no values, so no points")
    found = tuple(tuple(v) if isinstance(v, list) else v for v in values)
    for value in found:
        for part in value if isinstance(value, tuple) else (value,):
            if not isinstance(part, _SCALARS) or (isinstance(part, float) and not math.isfinite(part)):
                raise ValueError(f"over.{name}: expected numbers, texts, or lists of these; got {part!r}")
    texts = [text_of(value) for value in found]
    for text in texts:
        if texts.count(text) > 1:
            raise ValueError(f"over.{name}: '{text}' is there twice")
    return found


def _steps(name: str, given: Mapping[str, Any]) -> list[int | float]:
    """From one number to another, both included; of decimal numbers as they are written."""
    numbers = [given.get(key) for key in ("from", "to", "step")]
    if set(given) != {"from", "to", "step"} or any(
        isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers
    ):
        raise ValueError(f"over.{name}: expected the numbers from, to and step, got {dict(given)!r}")
    first, last, step = (Decimal(repr(n)) for n in numbers)
    if step <= 0 or last < first:
        raise ValueError(f"over.{name}: `step` must be above 0, and `to` not below `from`")
    count = int((last - first) / step) + 1
    if count > MAX_POINTS:
        raise ValueError(f"over.{name}: {count:,} values; a grid has at most {MAX_POINTS:,} points")
    whole = all(isinstance(n, int) for n in numbers)
    return [(int if whole else float)(first + i * step) for i in range(count)]


def _used(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Key path and name of every parameter in a value."""
    if isinstance(value, str):
        yield from ((path, name) for m in _PLACE.finditer(value) if (name := _name_in(m)))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _used(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _used(inner, path)


def _name_in(match: re.Match[str]) -> str | None:
    return match["braced"] or match["bare"]


def _experiment(written: Mapping[str, Any], parameters: Mapping[str, Any]) -> Experiment:
    """The experiment at one point. Raises ValueError."""
    for path, name in _used(written, ()):
        if name not in parameters:
            have = ", ".join(parameters) or "none"
            raise ValueError(
                f"{'.'.join(path)}: no parameter named '{name}' (parameters: {have}); a dollar sign is `$$`"
            )
    data = _filled(written, parameters)
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"at {label_of(parameters)}: {_complaint(error.errors()[0], data)}") from None


def _filled(value: Any, parameters: Mapping[str, Any]) -> Any:
    """The same value with parameters in their places."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, parameters) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, parameters) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value)
    if whole and (name := _name_in(whole)):
        found = parameters[name]
        return list(found) if isinstance(found, tuple) else found

    def put(match: re.Match[str]) -> str:
        name = _name_in(match)
        if name is None:
            return "$"
        found = parameters[name]
        if isinstance(found, bool):
            raise ValueError(
                f"over.{name}: yes, no, on, off, true and false are truth values in YAML: put them in quotes"
            )
        if isinstance(found, tuple):
            raise ValueError(f"over.{name}: a list cannot stand inside the text '{value}'")
        return str(found)

    return _PLACE.sub(put, value)


def _complaint(error: ErrorDetails, data: Mapping[str, Any]) -> str:
    """What is wrong with an experiment, with the key."""
    path, owner = located(Experiment, data, place_of(error))
    key = ".".join(path[:-1] if of_a_key(error) else path)
    if error["type"] == "extra_forbidden":
        near = nearest(path[-1], keys_of(owner) if owner else ())
        return f"unknown key '{key}'" + (f"; {near}" if near else "")
    if error["type"] == "missing":
        return f"missing key '{key}'"
    return f"{key}: {complaint([error])}" if key else complaint([error])


def _titles(grid: str, points: list[dict[str, Any]], taken: set[str]) -> list[str]:
    """Names that `filter.experiments` accepts, all different: of grid and values, or of grid and number."""
    found = []
    for number, parameters in enumerate(points):
        texts = [text_of(v).replace("-", "m") for v in parameters.values()]
        title = re.sub(r"[^A-Za-z0-9]+", "_", "_".join([grid, *texts])).strip("_")
        if len(title) > 64 or title in taken:
            title = f"{grid[:58]}_{number:03d}"
        taken.add(title)
        found.append(title)
    return found
