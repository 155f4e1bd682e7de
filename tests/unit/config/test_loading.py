from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.config.base import Settings, fingerprint, knob
from curate.config.keys import describe
from curate.config.loading import check, dump, load_config, presets
from curate.config.models import PipelineConfig
from curate.errors import ConfigError

SOURCE = "ingest: {sources: [{paths: [a.parquet]}]}\n"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("download: {tiemout: 3}", ["unknown key 'download.tiemout'", "did you mean 'timeout'", ":1"]),
        ("ingest:\n  sources:\n  - {paths: [a], formt: csv}", ["'ingest.sources.0.formt'", "'format'", ":3"]),
        ("ingest: {sources: [{}]}", ["missing key 'ingest.sources.0.paths'"]),
        ("score: {scorers: {a: {type: zero_shot, modl: x}}}", ["'score.scorers.a.modl'", "'model'"]),
        ("score: {scorers: {a: {type: zero}}}", ["score.scorers.a", "'text', 'image', 'zero_shot'"]),
        ("filter: {experiments: {a: {rules: {x: {wher: 1}}}}}", ["rules.x", "where, top, dedup, experiment"]),
        ("filter: {experiments: {a: {rules: {x: {top: s, fraction: 2}}}}}", ["rules.x.fraction", "got 2"]),
        ("filter: {experiments: {a: {rules: {x: {top: s, fraction: 0}}}}}", ["rules.x.fraction", "got 0"]),
        (
            "filter: {experiments: {a: {rules: {x: {top: s, fraction: 1, lo: 1}}}}}",
            ["'filter.experiments.a.rules.x.lo'"],
        ),
        (
            "filter: {experiments: {a: {rules: {x: 'b > 1'}, keep: {all: [y]}}}}",
            ["no rule named 'y'", "rules: x"],
        ),
        ("filter: {experiments: {a: {rules: {x: 'b > 1'}, keep: {every: [x]}}}}", ["all: [..], any: [..]"]),
        ("filter: {experiments: {a: {rules: {x: {experiment: b}}}}}", ["no experiment named 'b'"]),
        (
            "filter: {experiments: {a: {rules: {x: {experiment: b}}}, b: {rules: {x: {experiment: a}}}}}",
            ["circle", "a → b → a"],
        ),
        ("index: {experiments: [q]}", ["index.experiments", "no experiment named 'q'"]),
        ("score: {scorers: {w: {type: zero_shot, model: m, prompts: watermark}}}", ["no model named 'm'"]),
        ("embed: {models: {b-x: {model: a}}}", ["embed.models: 'b-x' is not a name"]),
        ("download: {timeout: abc}", ["download.timeout", "'abc'"]),
        ("nonsense: 1", ["unknown key 'nonsense'", "keys here: workspace"]),
        ("a: [", ["not valid YAML"]),
        ("- 1", ["expected a mapping"]),
    ],
)
def test_a_mistake_names_file_key_and_fix(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert path in message
    for word in words:
        assert word in message


def test_missing_file_and_preset() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        load_config("nowhere.yaml")
    with pytest.raises(ConfigError, match="did you mean 'laion400m'"):
        load_config("laion400")


def test_extends_merges_under_and_points_at_the_right_file(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", SOURCE + "download: {threads: 3, timeout: 7}\n")
    child = write(tmp_path / "child.yaml", "extends: base.yaml\ndownload:\n  timeout: 8\n")
    config = load_config(child)
    assert (config.download.threads, config.download.timeout) == (3, 8.0)
    write(tmp_path / "base.yaml", "download:\n\n  thread: 3\n")
    with pytest.raises(ConfigError, match=r"base\.yaml:3: unknown key 'download.thread'"):
        load_config(child)


def test_extends_of_a_preset_and_replacing_a_rule(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.yaml",
        "extends: laion400m\n" + SOURCE + "filter: {experiments: {laion400m: {rules: {similarity: "
        "{top: similarity, fraction: 0.1}}}}}\n",
    )
    rule = load_config(path).filter.experiments["laion400m"].rules["similarity"]
    assert rule.model_dump(exclude_defaults=True) == {"top": "similarity", "fraction": 0.1}


def test_extends_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml")
    b = write(tmp_path / "b.yaml", "extends: a.yaml")
    with pytest.raises(ConfigError, match="circle"):
        load_config(b)


def test_none_removes_an_inherited_section_entry(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "extends: starter\nscore: {scorers: {nsfw: null}}\n")
    assert "nsfw" not in load_config(path).score.scorers


def test_set_overrides_and_its_errors() -> None:
    config = load_config("starter", ["download.threads=5", "ingest.languages=[en, de]", "workspace=s3://b/x"])
    assert config.download.threads == 5
    assert config.ingest is not None
    assert config.ingest.languages == ("en", "de")
    assert config.workspace == "s3://b/x"
    for bad, words in [
        ("download.thread=3", "--set download.thread: unknown key"),
        ("threads", "expected key.path=value"),
        ("download.threads=[", "not valid YAML"),
    ]:
        with pytest.raises(ConfigError, match=words):
            load_config("starter", [bad])


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_valid_given_sources(name: str) -> None:
    config = load_config(name, ["ingest.sources=[{paths: [x.parquet]}]"])
    assert config.ingest is not None
    assert presets()[name]


def test_what_is_shown_loads_again_as_the_same(tmp_path: Path) -> None:
    config = load_config("starter")
    again = load_config(write(tmp_path / "shown.yaml", dump(config)))
    assert again == config


class Example(Settings):
    fact: int = 1
    speed: int = knob(1, "only how fast")


def test_knobs_do_not_change_a_fingerprint() -> None:
    assert Example(speed=9).facts() == Example().facts() == {"fact": 1}
    assert fingerprint(Example(fact=2).facts()) != fingerprint(Example().facts())


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=5))
def test_fingerprint_does_not_depend_on_key_order(value: dict[str, int]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(list(value.items()))))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda s: st.dictionaries(
            st.sampled_from([*PipelineConfig.model_fields, "rules", "models", "x"]), s, max_size=3
        ),
        max_leaves=12,
    )
)
def test_any_yaml_is_a_config_or_one_clear_error(data: object) -> None:
    if not isinstance(data, dict):
        data = {"run": data}
    try:
        config = check(yaml.safe_load(yaml.safe_dump(data)))
    except ConfigError as error:
        config = str(error)
    assert isinstance(config, PipelineConfig) or config.startswith("config: ")


def test_keys_lists_every_section_with_its_meaning() -> None:
    lines = describe()
    assert any(line.startswith("download.max_bytes: int = 20000000  # ") for line in lines)
    assert any(line.startswith("filter.experiments.<name>.rules.<name>.fraction: float") for line in lines)
    with pytest.raises(ConfigError, match="sections: workspace"):
        describe("nonsense")
