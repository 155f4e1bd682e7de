"""Open sets whose kinds are told by the value of a key, as scorers are; rules have tests of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from curate.config.base import Settings
from curate.config.kinds import KindOf, KindSettings, OpenSet
from curate.config.loading import check, dump, load_config
from curate.config.locating import kinds_at, located
from curate.config.mistakes import lines_on


class Shape(KindSettings):
    """A shape."""


CIRCLE = '''
from typing import Literal
from pydantic import Field
from tests.unit.config.test_kinds import Shape

class Circle(Shape):
    """Round."""
    kind = "circle"
    implementation = "nowhere:Circle"
    type: Literal["circle"] = "circle"
    radius: float = Field(gt=0, description="Its size.")
'''
SQUARE = CIRCLE.replace("circle", "is").replace("Circle", "Square").replace("radius", "side")


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a package with two kinds, of which one has a name that Python keeps to itself."""
    name = f"toys_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    for module, text in {"__init__": "", "base": "1 / 0", "circle": CIRCLE, "is_": SQUARE}.items():
        (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def model_of(shapes: OpenSet[Shape]) -> type[Settings]:
    class Drawing(Settings):
        main: Annotated[Shape, KindOf(shapes)] | None = None
        named: dict[str, Annotated[Shape, KindOf(shapes)]] = Field({})
        listed: tuple[Annotated[Shape, KindOf(shapes)], ...] = ()
        size: int | str = Field(1)

    return Drawing


def told(model: type[Settings], data: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return lines_on(caught.value, model, data, {}, "d")


def test_kinds_are_found_by_name_and_loaded_when_they_are_used(toys: str) -> None:
    import sys

    shapes = OpenSet("shape", Shape, toys, f"{toys}.shapes", tag="type")
    assert shapes.names() == ("circle", "is")
    assert f"{toys}.circle" not in sys.modules
    found = model_of(shapes).model_validate({"main": {"type": "circle", "radius": 2}})
    assert found.model_dump() == {
        "main": {"type": "circle", "radius": 2.0},
        "named": {},
        "listed": (),
        "size": 1,
    }
    assert f"{toys}.is_" not in sys.modules
    assert [kind.__name__ for kind in shapes.all().values()] == ["Circle", "Square"]
    again = model_of(shapes).model_validate(json.loads(found.model_dump_json()))
    assert again.model_dump() == found.model_dump()
    assert OpenSet("shape", Shape, toys, "x", tag="type", first=("is", "absent")).names() == ("is", "circle")


def test_mistakes_have_their_places(toys: str) -> None:
    model = model_of(OpenSet("shape", Shape, toys, f"{toys}.shapes", tag="type"))
    cases: list[tuple[Any, list[str]]] = [
        (
            {"main": {"type": "circl", "radius": 1}},
            ["d: main.type: did you mean 'circle'? 'circl' is none of 'circle', 'is'"],
        ),
        ({"main": {"type": 5}}, ["d: main.type: '5' is none of 'circle', 'is'"]),
        ({"main": {"radius": 1}}, ["d: missing key 'main.type'"]),
        ({"main": 5}, ["d: main: expected a mapping of keys, got 5"]),
        ({"named": {"a": None}}, ["d: named.a: nothing of that name to take away"]),
        ({"listed": [None]}, ["d: listed.0: expected a mapping of keys, got null"]),
        (
            {"listed": [{"type": "is", "side": 1}, {"type": "is", "side": 0}]},
            ["d: listed.1.side: must be greater than 0, got 0"],
        ),
        (
            {"named": {"a": {"type": "is", "sid": 1}}},
            ["d: missing key 'named.a.side'", "d: unknown key 'named.a.sid'; did you mean 'side'?"],
        ),
        (
            {"named": {"a": {"type": "circle", "x": 1, "radius": 1}}},
            ["d: unknown key 'named.a.x'; keys here: type, radius"],
        ),
        ({"size": [1]}, ["d: size: expected a whole number or text, got [1]"]),
    ]
    for data, lines in cases:
        assert told(model, data) == lines


def test_a_kind_may_be_the_default(toys: str) -> None:
    shapes = OpenSet("shape", Shape, toys, f"{toys}.shapes", tag="type", default="circle")
    model = model_of(shapes)
    assert model.model_validate({"main": {"radius": 1}}).model_dump()["main"] == {
        "type": "circle",
        "radius": 1.0,
    }
    assert told(model, {"main": {"side": 1}}) == [
        "d: missing key 'main.radius'",
        "d: unknown key 'main.side'; keys here: type, radius",
    ]
    assert not shapes.replaces({"radius": 1}, {"type": "circle", "radius": 2})
    assert shapes.replaces({"radius": 1}, {"type": "is"})
    assert not shapes.replaces({"type": "is"}, {"side": 1})


def test_the_way_through_a_model(toys: str) -> None:
    shapes = OpenSet("shape", Shape, toys, f"{toys}.shapes", tag="type")
    model = model_of(shapes)
    assert [kinds_at(model, path) is shapes for path in [("main",), ("named", "a"), ("listed", "0")]] == [
        True
    ] * 3
    assert [
        kinds_at(model, path) for path in [(), ("named",), ("size",), ("main", "radius"), ("x", "y")]
    ] == [None] * 5
    data = {"named": {"a": {"type": "circle"}}}
    assert located(model, data, ("named", "a", "radius")) == (("named", "a", "radius"), shapes.find("circle"))
    assert located(model, data, ("named", "a")) == (("named", "a"), None)
    assert located(model, data, ("size", "int")) == (("size",), model)


def test_every_way_to_write_a_rule_is_shown_as_one_that_loads(tmp_path: Path) -> None:
    rules = {
        "a": "x > 1",
        "b": {"in": "x", "values": [1]},
        "c": {"not_in": "x", "file": "f"},
        "d": {"dedup": "x"},
    }
    config = check({"filter": {"experiments": {"e": {"rules": rules}}}})
    (tmp_path / "c.yaml").write_text(dump(config))
    assert load_config(str(tmp_path / "c.yaml")) == config
