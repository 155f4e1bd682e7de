"""Grids of a config: which experiments they stand for, and what cannot be one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.filters import Experiment
from curate.config.filters.grid import Grid, Point
from curate.config.loading import check, dump, load_config
from curate.config.rules.score import ScoreRule
from curate.config.rules.top import TopRule
from curate.config.rules.where import WhereRule
from curate.errors import ConfigError

CLIP = {"score": "similarity", "min": "$t"}


def points(grid: dict[str, Any], experiments: dict[str, Any] | None = None) -> tuple[Point, ...]:
    config = check({"filter": {"grids": {"g": grid}, "experiments": experiments or {}}})
    return config.filter.grids["g"].points("g", config.filter.experiments)


class TestPoints:
    def test_every_combination_in_the_order_written(self) -> None:
        grid = {
            "over": {"t": [0.20, 0.22], "language": ["en", "de"]},
            "rules": {"clip": CLIP, "lang": "text_lang = '$language'"},
            "keep": {"then": ["lang", "clip"]},
        }
        found = points(grid)
        assert [p.name for p in found] == [
            "t=0.2,language=en",
            "t=0.2,language=de",
            "t=0.22,language=en",
            "t=0.22,language=de",
        ]
        assert [p.title for p in found] == ["g_0_2_en", "g_0_2_de", "g_0_22_en", "g_0_22_de"]
        assert found[2].experiment == Experiment.model_validate(
            {
                "rules": {"clip": {"score": "similarity", "min": 0.22}, "lang": "text_lang = 'en'"},
                "keep": {"then": ["lang", "clip"]},
            }
        )
        assert found[2].parameters == {"t": 0.22, "language": "en"}
        assert found[2].place == "filter.grids.g[t=0.22,language=en]"

    def test_a_value_alone_keeps_its_type_and_in_a_text_is_text(self) -> None:
        rules = {
            "best": {"top": "$column", "count": "$n", "lowest": "$low"},
            "sql": "${column}_x > $n * 2 AND url <> '$$n'",
            "listed": {"in": "text_lang", "values": "$langs"},
        }
        grid = {
            "over": {"column": ["a"], "n": [3], "low": [True], "langs": [["en", "de"], ["fr"]]},
            "rules": rules,
        }
        first, second = points(grid)
        assert first.experiment.rules["best"] == TopRule(top="a", count=3, lowest=True)
        assert first.experiment.rules["sql"] == WhereRule(where="a_x > 3 * 2 AND url <> '$n'")
        assert first.experiment.rules["listed"].facts()["values"] == ["en", "de"]
        assert [p.parameters["langs"] for p in (first, second)] == [("en", "de"), ("fr",)]
        assert first.name == "column=a,n=3,low=true,langs=en+de"

    def test_parameters_in_names_of_rules_to_keep(self) -> None:
        grid = {"over": {"which": ["a", "b"]}, "rules": {"a": "x > 1", "b": "y > 1"}, "keep": "$which"}
        assert [p.experiment.keep for p in points(grid)] == ["a", "b"]

    @pytest.mark.parametrize(
        ("steps", "values"),
        [
            ({"from": 0.2, "to": 0.3, "step": 0.05}, [0.2, 0.25, 0.3]),
            ({"from": 0.1, "to": 0.35, "step": 0.1}, [0.1, 0.2, 0.3]),
            ({"from": 5, "to": 5, "step": 1}, [5]),
            ({"from": -1, "to": 1, "step": 1}, [-1, 0, 1]),
        ],
    )
    def test_steps(self, steps: dict[str, float], values: list[float]) -> None:
        found = points({"over": {"t": steps}, "rules": {"clip": CLIP}})
        assert [p.parameters["t"] for p in found] == values
        assert all(type(p.parameters["t"]) is type(v) for p, v in zip(found, values, strict=True))

    def test_steps_are_exact_decimals(self) -> None:
        steps = {"from": 0.001, "to": 1.0, "step": 0.001}
        names = [p.name for p in points({"over": {"t": steps}, "rules": {"clip": CLIP}})]
        assert names == [f"t={i / 1000}" for i in range(1, 1001)]

    def test_ready_made_experiments_come_last(self) -> None:
        basic = {"rules": {"x": "y > 1"}}
        found = points({"over": {"t": [1]}, "rules": {"c": CLIP}, "experiments": ["basic"]}, {"basic": basic})
        assert [(p.name, p.title, p.place) for p in found] == [
            ("t=1", "g_1", "filter.grids.g[t=1]"),
            ("basic", "basic", "filter.experiments.basic"),
        ]
        assert found[1].parameters == {}

    def test_titles_differ_where_values_look_alike(self) -> None:
        found = points({"over": {"t": ["a b", "a_b", "a-b", "x" * 80]}, "rules": {"c": "z = '$t'"}})
        titles = [p.title for p in found]
        assert len(set(titles)) == 4
        check({"filter": {"experiments": {t: {"rules": {"c": "z > 1"}} for t in titles}}})

    def test_a_dumped_config_is_the_same(self, tmp_path: Path) -> None:
        grid = {
            "over": {"t": {"from": 0.1, "to": 0.2, "step": 0.1}, "n": [1, 2.0, "x"]},
            "rules": {"c": "a > $t + $n"},
        }
        config = check({"filter": {"grids": {"g": grid}}})
        path = tmp_path / "c.yaml"
        path.write_text(dump(config))
        assert load_config(str(path)).filter == config.filter


VALUES = st.one_of(st.integers(-5, 5), st.sampled_from(["x", "y y", "ü"]))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(VALUES, min_size=1, max_size=4, unique_by=str),
        min_size=1,
    )
)
def test_as_many_points_as_combinations(over: dict[str, list[Any]]) -> None:
    text = "x = " + " ".join(f"${name}" for name in over)
    found = points({"over": over, "rules": {"r": text}})
    expected = list(itertools.product(*over.values()))
    assert [tuple(p.parameters.values()) for p in found] == expected
    assert [p.experiment.rules["r"].where for p in found] == [
        "x = " + " ".join(str(v) for v in e) for e in expected
    ]
    assert len({p.name for p in found}) == len({p.title for p in found}) == len(expected)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "filter.grids.g: give `over` and `rules`, or `experiments`"),
        ({"rules": {"c": "x > 1"}}, "`over` and `rules` go together"),
        ({"over": {"t": [1]}}, "give `over` and `rules`"),
        ({"over": {"t": [1]}, "experiments": ["a"]}, "`over` and `rules` go together"),
        ({"keep": "a", "experiments": ["a"]}, "`over` and `rules` go together"),
        ({"over": {"t": []}, "rules": {"c": CLIP}}, "filter.grids.g: over.t: no values, so no points"),
        (
            {"over": {"t": 3}, "rules": {"c": CLIP}},
            "over.t: expected a list of values, or from, to and step; got 3",
        ),
        ({"over": {"t": [1, 1]}, "rules": {"c": CLIP}}, "over.t: '1' is there twice"),
        (
            {"over": {"t": [{"a": 1}]}, "rules": {"c": CLIP}},
            "over.t: expected numbers, texts, or lists of these",
        ),
        ({"over": {"t": [float("nan")]}, "rules": {"c": CLIP}}, "over.t: expected numbers"),
        ({"over": {"t": [None]}, "rules": {"c": CLIP}}, "over.t: expected numbers"),
        (
            {"over": {"t": {"from": 1, "to": 2}}, "rules": {"c": CLIP}},
            "over.t: expected the numbers from, to and step",
        ),
        ({"over": {"t": {"from": 2, "to": 1, "step": 1}}, "rules": {"c": CLIP}}, "`to` not below `from`"),
        ({"over": {"t": {"from": 1, "to": 2, "step": 0}}, "rules": {"c": CLIP}}, "`step` must be above 0"),
        ({"over": {"t": {"from": 1, "to": 2000, "step": 1}}, "rules": {"c": CLIP}}, "at most 1,000 points"),
        (
            {
                "over": {n: {"from": 1, "to": 11, "step": 1} for n in "abc"},
                "rules": {"c": "x = $a + $b + $c"},
            },
            "at most 1,000 points",
        ),
        ({"over": {"t": [1], "u": [2]}, "rules": {"c": CLIP}}, "filter.grids.g: over.u: no rule uses \\$u"),
        ({"over": {"u": [1]}, "rules": {"c": CLIP}}, "over.u: no rule uses"),
        (
            {"over": {"u": [1]}, "rules": {"c": CLIP, "d": "x > $u"}},
            "rules.c.min: no parameter named 't' \\(parameters: u\\); a dollar sign is `\\$\\$`",
        ),
        ({"over": {"a b": [1]}, "rules": {"c": "x > ${a b}"}}, "over.a b: no rule uses"),
        (
            {"over": {"t": ["en", False]}, "rules": {"c": "l = '$t'"}},
            "over.t: yes, no, .* put them in quotes",
        ),
        (
            {"over": {"t": [["en"]]}, "rules": {"c": "l = '$t'"}},
            "over.t: a list cannot stand inside the text",
        ),
        (
            {"over": {"t": [0.5, 2]}, "rules": {"c": {"top": "x", "fraction": "$t"}}},
            "filter.grids.g: at t=2: rules.c.fraction: .*less than or equal to 1, got 2",
        ),
        (
            {"over": {"t": [1]}, "rules": {"c": {"score": "x", "mn": "$t"}}},
            "at t=1: unknown key 'rules.c.mn'; did you mean 'min'",
        ),
        (
            {"over": {"t": [1]}, "rules": {"c": {"cap": "x", "seed": "$t"}}},
            "at t=1: missing key 'rules.c.at_most'",
        ),
        (
            {"over": {"t": [1]}, "rules": {"c": {"every": "$t"}}},
            "at t=1: rules.c: a rule needs one of the keys",
        ),
        ({"over": {"t": [1]}, "rules": {"c": "$t"}}, "at t=1: rules.c: a rule needs one of the keys"),
        ({"over": {"t": ["b"]}, "rules": {"c": "x > 1"}, "keep": "$t"}, "at t=b: keep: no rule named 'b'"),
        (
            {"over": {"t": [1]}, "rulez": {"c": CLIP}},
            "unknown key 'filter.grids.g.rulez'; did you mean 'rules'",
        ),
        ({"experiments": ["a"]}, "filter.grids.g.experiments: no experiment named 'a'"),
        ({"experiments": ["e", "e"]}, "experiments: 'e' is there twice"),
        (
            {"over": {"t": ["a"]}, "rules": {"c": {"experiment": "$t"}}},
            "filter.grids.g: no experiment named 'a'",
        ),
    ],
)
def test_what_cannot_be_a_grid(grid: dict[str, Any], message: str) -> None:
    experiments = {"e": {"rules": {"x": "y > 1"}}}
    with pytest.raises(ConfigError, match=message):
        check({"filter": {"grids": {"g": grid}, "experiments": experiments}})


def test_an_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("filter:\n  grids:\n    g:\n      over: {t: []}\n      rules: {c: 'x > $t'}\n")
    with pytest.raises(ConfigError, match=r"my\.yaml:3: filter\.grids\.g: over\.t: no values"):
        load_config(str(path))


def test_grids_are_frozen_settings() -> None:
    grid = Grid.model_validate({"over": {"t": [0.2]}, "rules": {"clip": CLIP}})
    assert grid.own[0][1].rules["clip"] == ScoreRule(score="similarity", min=0.2)
    assert grid == Grid.model_validate(yaml.safe_load(yaml.safe_dump(grid.model_dump(mode="json"))))
