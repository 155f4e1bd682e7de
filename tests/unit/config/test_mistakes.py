"""What a user is told about a mistake: where it is, and what to write instead, in the words of YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from curate.config.base import NAME_LENGTH
from curate.config.loading import check, load_config, preset_text, presets
from curate.errors import ConfigError

RULE = "{rules: {r: width > 3}}"
EXPERIMENT = "filter: {experiments: {x: %s}}\n"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def complaint(path: str, *overrides: str) -> str:
    """The message, which is one line. Paths of the test's own folder are cut to the file's name."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return re.sub(r"/\S*/(?=\w+\.yaml)", "", message)


def told(folder: Path, text: str, *overrides: str) -> str:
    return complaint(write(folder / "c.yaml", text), *overrides)


class TestKeysThatStandTwice:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "filter:\n  experiments:\n    a: " + RULE + "\n    b: " + RULE + "\n    a: " + RULE,
                "c.yaml:5: key 'filter.experiments.a' stands twice (first on line 3)",
            ),
            (
                EXPERIMENT % "{rules: {r: width > 3, r: width > 4}}",
                "c.yaml:1: key 'filter.experiments.x.rules.r' stands twice (first on line 1)",
            ),
            ("filter: {}\nrun: {}\n\nfilter: {}", "c.yaml:4: key 'filter' stands twice (first on line 1)"),
            (
                "ingest:\n  sources:\n  - paths: [a]\n    paths: [b]",
                "c.yaml:4: key 'ingest.sources.0.paths' stands twice (first on line 3)",
            ),
            ("'run': {}\nrun: {}", "c.yaml:2: key 'run' stands twice (first on line 1)"),
        ],
    )
    def test_are_refused(self, tmp_path: Path, text: str, message: str) -> None:
        assert told(tmp_path, text) == message

    def test_on_the_command_line_and_in_a_parent(self, tmp_path: Path) -> None:
        path = write(tmp_path / "base.yaml", "run: {retries: 1, retries: 2}")
        assert told(tmp_path, "", "run={retries: 1, retries: 2}") == (
            "--set run: key 'run.retries' stands twice"
        )
        assert complaint(path) == told(tmp_path, "extends: base.yaml")

    def test_a_merged_key_may_be_written_over(self, tmp_path: Path) -> None:
        text = (
            "filter:\n  experiments:\n    a: &a {description: one, rules: {r: width > 3}}\n"
            "    b: &b {<<: *a, description: two}\n    c: {<<: [*b, *a], description: three}\n"
            "    d: {<<: *a, <<: *b}\n"
        )
        found = load_config(write(tmp_path / "c.yaml", text)).filter.experiments
        assert [found[n].description for n in "abc"] == ["one", "two", "three"]
        assert all(e.rules == found["a"].rules for e in found.values())

    def test_a_mistake_in_a_merged_key_points_at_its_line(self, tmp_path: Path) -> None:
        text = (
            "filter:\n  experiments:\n    a: &a\n      rules:\n        r: {top: s, count: 0}\n"
            "    b:\n      <<: *a"
        )
        with pytest.raises(ConfigError) as caught:
            load_config(write(tmp_path / "c.yaml", text))
        for line in str(caught.value).splitlines():
            assert "c.yaml:5: filter.experiments." in line


class TestNames:
    @pytest.mark.parametrize(
        ("text", "key"),
        [
            (
                "filter: {experiments: {Clip: " + RULE + ", b: " + RULE + ", clip: " + RULE + "}}",
                "filter.experiments",
            ),
            ("score: {scorers: {Clip: {type: text}, clip: {type: image}}}", "score.scorers"),
            ("embed: {models: {Clip: {model: demo}, clip: {model: demo}}}", "embed.models"),
            (
                "filter: {experiments: {x: "
                + RULE
                + "}, grids: {Clip: {experiments: [x]}, clip: {experiments: [x]}}}",
                "filter.grids",
            ),
        ],
    )
    def test_that_differ_only_in_case_are_refused(self, tmp_path: Path, text: str, key: str) -> None:
        assert told(tmp_path, text) == (
            f"c.yaml:1: {key}: 'Clip' and 'clip' differ only in case, and folders on some disks and names "
            "in SQL do not see case; rename one"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "filter:\n  experiments:\n    a/b: " + RULE,
                "c.yaml:3: filter.experiments: 'a/b' is not a name",
            ),
            ("filter: {experiments: {_a: " + RULE + "}}", "c.yaml:1: filter.experiments: '_a' is not a name"),
        ],
    )
    def test_that_are_none(self, tmp_path: Path, text: str, message: str) -> None:
        assert told(tmp_path, text) == f"{message}: letters, digits and _ (not first), at most {NAME_LENGTH}"

    @pytest.mark.parametrize("name", ["", "a\\nb", "\\0"])
    def test_that_are_none_of_a_rule(self, tmp_path: Path, name: str) -> None:
        for text, where in (
            (EXPERIMENT % f'{{rules: {{"{name}": width > 3}}}}', "filter.experiments.x.rules"),
            (
                f"filter: {{grids: {{g: {{over: {{t: [1]}}, rules: {{\"{name}\": 'x > $t'}}}}}}}}",
                "filter.grids.g: at t=1: rules",
            ),
        ):
            message = told(tmp_path, text)
            assert message.startswith(f"c.yaml:1: {where}: '")
            assert message.endswith(f"' is not a name: 1 to {NAME_LENGTH} characters on one line")

    def test_a_rule_may_be_called_anything_that_fits_a_line(self, tmp_path: Path) -> None:
        names = ["too small", "größe", "<b>", "a.b/c", "r" * NAME_LENGTH]
        text = EXPERIMENT % ("{rules: {" + ", ".join(f"'{name}': a > 1" for name in names) + "}}")
        assert list(load_config(write(tmp_path / "c.yaml", text)).filter.experiments["x"].rules) == names

    def test_that_are_too_long(self, tmp_path: Path) -> None:
        for text in (
            EXPERIMENT % f"{{rules: {{{'r' * 300}: width > 3}}}}",
            f"filter: {{experiments: {{{'r' * 65}: {RULE}}}}}",
        ):
            assert told(tmp_path, text).endswith(f" is not a name: at most {NAME_LENGTH} characters")

    def test_a_category_is_written_small(self, tmp_path: Path) -> None:
        text = "score: {scorers: {c: {type: categories, model: m, categories: {Cat: [a], dog: [b]}}}}"
        assert told(tmp_path, text) == (
            "c.yaml:1: score.scorers.c.categories: 'Cat' is not a name: small letters, digits and _ "
            f"(not first), at most {NAME_LENGTH}"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "filter:\n  experiments:\n    on: " + RULE,
                "c.yaml:3: key 'filter.experiments.on' is true or false to YAML; put it in quotes",
            ),
            (
                EXPERIMENT % "{rules: {no: width > 3}}",
                "c.yaml:1: key 'filter.experiments.x.rules.no' is true or false to YAML; put it in quotes",
            ),
            (
                EXPERIMENT % "{rules: {3: a > 1}}",
                "c.yaml:1: key 'filter.experiments.x.rules.3' is a number to YAML",
            ),
            (
                "filter: {grids: {g: {over: {1: [2]}}}}",
                "c.yaml:1: key 'filter.grids.g.over.1' is a number to YAML",
            ),
            ("~: 3", "c.yaml:1: key '~' is nothing to YAML"),
            ("2024-01-01: 3", "c.yaml:1: key '2024-01-01' is a date to YAML"),
        ],
    )
    def test_that_yaml_does_not_take_for_text(self, tmp_path: Path, text: str, message: str) -> None:
        assert told(tmp_path, text).startswith(message)

    def test_in_quotes_they_are_names(self, tmp_path: Path) -> None:
        path = write(tmp_path / "c.yaml", "filter: {experiments: {'on': {rules: {'no': width > 3}}}}")
        assert list(load_config(path).filter.experiments["on"].rules) == ["no"]


class TestFilesThatCannotBeRead:
    @pytest.mark.parametrize("extends", ["5", "[starter, 3]", "{a: b}", "true", "[[a]]"])
    def test_extends_is_a_name_or_names(self, tmp_path: Path, extends: str) -> None:
        message = told(tmp_path, f"run: {{}}\nextends: {extends}")
        assert message == "c.yaml:2: `extends` is the name of a config, or a list of names"

    @pytest.mark.parametrize("extends", ["", "null", "[]"])
    def test_extends_nothing(self, tmp_path: Path, extends: str) -> None:
        assert load_config(write(tmp_path / "c.yaml", f"extends: {extends}")) == load_config(None)

    def test_extends_in_a_circle_by_another_way(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        write(tmp_path / "d" / "a.yaml", "extends: ../d/a.yaml")
        assert "goes round in a circle" in complaint(str(tmp_path / "d" / "a.yaml"))

    @pytest.mark.parametrize(
        ("text", "key"),
        [
            ("filter:\n  experiments: &a {a: *a}", "filter.experiments.a"),
            ("filter:\n  experiments: &a [b, *a]", "filter.experiments.1"),
            ("filter:\n  experiments: &a {<<: *a}", "filter.experiments"),
        ],
    )
    def test_an_anchor_in_itself(self, tmp_path: Path, text: str, key: str) -> None:
        assert told(tmp_path, text) == f"c.yaml:2: '{key}' is an alias of what it stands in"

    @pytest.mark.parametrize("level", ["[*a%d, *a%d]", "{<<: [*a%d, *a%d]}", "{x: *a%d, y: *a%d}"])
    def test_few_lines_that_stand_for_billions_of_values(self, tmp_path: Path, level: str) -> None:
        lines = ["a0: &a0 {k: 1}" if "{" in level else "a0: &a0 [1]"]
        lines += [f"a{i + 1}: &a{i + 1} {level % (i, i)}" for i in range(40)]
        message = told(tmp_path, "\n".join(lines))
        assert re.fullmatch(r"c\.yaml:\d+: more than 200,000 values, with aliases written out", message)

    def test_an_anchor_used_twice_is_two_copies(self, tmp_path: Path) -> None:
        write(tmp_path / "base.yaml", f"filter: {{experiments: {{a: &a {RULE}, b: *a}}}}")
        path = write(
            tmp_path / "c.yaml", "extends: base.yaml\nfilter: {experiments: {b: {rules: {r: width > 4}}}}"
        )
        found = load_config(path, ["filter.experiments.b.description=two"]).filter.experiments
        assert [e.rules["r"].model_dump()["where"] for e in found.values()] == ["width > 3", "width > 4"]
        assert [e.description for e in found.values()] == ["", "two"]

    @pytest.mark.parametrize(
        ("data", "byte"),
        [
            ("# größer\nrun: {}".encode("latin-1"), 4),
            ("run: {}".encode("utf-16"), 0),
            (b"run: {}\n# \xed\xa0\x80", 10),
        ],
    )
    def test_not_utf_8(self, tmp_path: Path, data: bytes, byte: int) -> None:
        (tmp_path / "c.yaml").write_bytes(data)
        assert complaint(str(tmp_path / "c.yaml")) == f"c.yaml: not UTF-8 (byte {byte}); save it as UTF-8"

    def test_utf_8_whatever_the_locale(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "c.yaml"
        path.write_bytes("report: {title: größer}\r\nrun: {retries: 1}\r\n".encode("utf-8-sig"))
        read = Path.read_text

        def by_locale(self: Path, encoding: str | None = None, errors: str | None = None) -> str:
            return read(self, encoding or "latin-1", errors)

        monkeypatch.setattr(Path, "read_text", by_locale)
        config = load_config(str(path))
        assert (config.report.title, config.run.retries) == ("größer", 1)
        assert preset_text("laion400m").isprintable() is False  # it is read; newlines are no printables
        assert all(line.isascii() or "Ã" not in line for line in presets().values())

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "run: {}\nreport: {title: a\0b}",
                "c.yaml:2: not valid YAML: the character U+0000 cannot stand in it",
            ),
            ("report: {title: 2024-13-45}", "c.yaml: not valid YAML: month must be in 1..12"),
            ("run: !!bool maybe", "c.yaml: not valid YAML: "),
            ("run: !!timestamp maybe", "c.yaml: not valid YAML: "),
            (
                "run: !!python/object:os.system {}",
                "c.yaml:1: not valid YAML: could not determine a constructor",
            ),
            ("run: {[a]: 1}", "c.yaml:1: not valid YAML: found unhashable key"),
            ("a: " + "[" * 5_000, "c.yaml: not valid YAML: nested too deeply"),
            ("a: 1\n---\nb: 1", "c.yaml:2: not valid YAML: but found another document"),
        ],
    )
    def test_not_yaml(self, tmp_path: Path, text: str, message: str) -> None:
        assert told(tmp_path, text).startswith(message)
        assert told(tmp_path, "", "report=" + text).startswith("--set report: not valid YAML: ")

    def test_a_folder_and_a_file_that_may_not_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "d.yaml").mkdir()
        assert complaint(str(tmp_path / "d.yaml")) == "d.yaml: no such config file"
        assert "no preset named" in complaint("a" * 1_000)

        def refused(self: Path, *_: object, **__: object) -> str:
            raise PermissionError(13, "Permission denied")

        path = write(tmp_path / "c.yaml", "")
        monkeypatch.setattr(Path, "read_text", refused)
        assert complaint(path) == "c.yaml: cannot be read (Permission denied)"


def test_a_rule_that_was_written_as_a_text_is_taken_away_as_well(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", EXPERIMENT % "{rules: {a: x > 1, b: {where: y > 1}, c: z > 1}}")
    path = write(tmp_path / "c.yaml", "extends: base.yaml\n" + EXPERIMENT % "{rules: {a: null, b: null}}")
    assert list(load_config(path).filter.experiments["x"].rules) == ["c"]
    assert complaint(path, "filter.experiments.x.rules.d=null") == (
        "--set filter.experiments.x.rules.d: nothing of that name to take away"
    )


def test_a_text_is_not_taken_away_from_where_there_are_no_names(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "filter: {tables: {paths: a, columns: {text: TEXT}}}")
    text = "extends: base.yaml\nfilter: {tables: {columns: {text: null}}}"
    assert told(tmp_path, text) == "c.yaml:2: filter.tables.columns.text: expected text, got null"


class TestSet:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "filter.experimets.x=1",
                "--set filter.experimets.x: unknown key 'filter.experimets'; did you mean 'experiments'?",
            ),
            ("workspace.x=5", "--set workspace.x: workspace: expected text, got {'x': 5}"),
            ("download.timeout=1s", "--set download.timeout: expected a number, got '1s'"),
            ("download={timeout: 1s}", "--set download: download.timeout: expected a number, got '1s'"),
            ("download.timeout=0", "--set download.timeout: must be greater than 0, got 0"),
            ("filter.experiments.q.description=x", "missing key 'filter.experiments.q.rules'"),
            ("filter.experiments.q=null", "--set filter.experiments.q: nothing of that name to take away"),
            ("a..b=1", "--set a..b=1: expected key.path=value"),
            ("=1", "--set =1: expected key.path=value"),
        ],
    )
    def test_is_blamed_for_its_own_mistakes(self, tmp_path: Path, override: str, message: str) -> None:
        text = f"workspace: w\nfilter:\n  experiments:\n    x: {RULE}\ndownload:\n  timeout: 3\n"
        assert message in told(tmp_path, text, override)

    def test_is_not_blamed_for_others(self, tmp_path: Path) -> None:
        text = "filter:\n  experiments:\n    x: {description: no rules}\n"
        assert told(tmp_path, text, "filter.experiments.x.keep=r") == (
            "c.yaml:3: missing key 'filter.experiments.x.rules'"
        )

    def test_what_is_replaced_is_not_blamed(self, tmp_path: Path) -> None:
        write(tmp_path / "base.yaml", "ingest: {sources: [{paths: [a]}]}\n")
        assert told(tmp_path, "extends: base.yaml\n\ningest: {sources: [{}]}") == (
            "c.yaml:3: missing key 'ingest.sources.0.paths'"
        )


class TestWords:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("ingest: {sources: []}", "ingest.sources: is empty; give at least one"),
            (EXPERIMENT % "{rules: {}}", "filter.experiments.x.rules: is empty; give at least one"),
            (EXPERIMENT % "{rules: {r: ''}}", "filter.experiments.x.rules.r.where: is empty"),
            (EXPERIMENT % "5", "filter.experiments.x: expected a mapping of keys, got 5"),
            (
                EXPERIMENT % "{rules: [a > 1]}",
                "filter.experiments.x.rules: expected a mapping of keys, got ['a > 1']",
            ),
            ("filter: {experiments: [a]}", "filter.experiments: expected a mapping of keys, got ['a']"),
            ("filter:", "filter: expected a mapping of keys, got null"),
            ("score: {scorers: {a: 5}}", "score.scorers.a: expected a mapping of keys, got 5"),
            ("score: {scorers: {a: {model: m}}}", "missing key 'score.scorers.a.type'"),
            (
                "score: {scorers: {a: {type: imge}}}",
                "score.scorers.a.type: did you mean 'image'? 'imge' is none of 'text', 'image', 'zero_shot'",
            ),
            ("score: {scorers: {a: {type: 5}}}", "score.scorers.a.type: '5' is none of 'text', 'image'"),
            ("ingest: {sources: [5]}", "ingest.sources.0: expected a mapping of keys, got 5"),
            ("ingest: {sources: [null]}", "ingest.sources.0: expected a mapping of keys, got null"),
            ("index: {experiments: nope}", "index.experiments: expected a list, got 'nope'"),
            ("workspace: 2024", "workspace: expected text, got 2024; put it in quotes"),
            ("workspace: 2024-01-02", "workspace: expected text, got 2024-01-02; put it in quotes"),
            ("workspace: [a]", "workspace: expected text, got ['a']"),
            ("workspace:", "workspace: expected text, got null"),
            (
                "download: {skip_reencode: maybe}",
                "download.skip_reencode: expected true or false, got 'maybe'",
            ),
            ("download: {threads: 1.5}", "download.threads: expected a whole number, got 1.5"),
            ("download: {threads: many}", "download.threads: expected a whole number, got 'many'"),
            ("download: {threads: 0}", "download.threads: must be greater than or equal to 1, got 0"),
            ("download: {resize_mode: crop}", "download.resize_mode: must be 'no', 'keep_ratio', "),
            (
                EXPERIMENT % "{rules: {r: {top: s, fraction: '30%'}}}",
                "filter.experiments.x.rules.r.fraction: expected a number, got '30%'; as a number: 0.3",
            ),
            (
                EXPERIMENT % "{rules: {r: {in: s, values: [1.5]}}}",
                "filter.experiments.x.rules.r.values.0: expected a whole number or text, "
                "got 1.5; put it in quotes",
            ),
            (
                "score: {scorers: {a: {type: words, lists: 5}}}",
                "score.scorers.a.lists: expected text or a mapping of keys, got 5",
            ),
            (
                "score: {scorers: {a: {type: words, lists: {b: 5}}}}",
                "score.scorers.a.lists.b: expected text, got 5; put it in quotes",
            ),
            (
                EXPERIMENT % "{rules: {a: x > 1, b: y > 1}, keep: [a, b]}",
                "filter.experiments.x.keep: expected the name of a rule, or all/any/not/then of rules, "
                "e.g. {all: [a, b]}; got ['a', 'b']",
            ),
            (
                EXPERIMENT % "{rules: {a: x > 1}, keep: {all: a}}",
                "filter.experiments.x.keep: expected all: [..], any: [..], then: [..] or not: name, "
                "got all: 'a'",
            ),
            (
                EXPERIMENT % "{rules: {r: {were: width > 3}}}",
                "filter.experiments.x.rules.r: did you mean 'where'? a rule needs one of the keys: where",
            ),
            (
                EXPERIMENT % "{rules: {r: {every: 3}}}",
                "filter.experiments.x.rules.r: a rule needs one of the keys",
            ),
            (EXPERIMENT % "null", "filter.experiments.x: nothing of that name to take away"),
            (
                EXPERIMENT % "{rules: {r: null}}",
                "filter.experiments.x.rules.r: nothing of that name to take away",
            ),
            ("score: {scorers: {a: null}}", "score.scorers.a: nothing of that name to take away"),
        ],
    )
    def test_are_those_of_yaml(self, tmp_path: Path, text: str, message: str) -> None:
        assert told(tmp_path, text).startswith("c.yaml:1: " + message)

    def test_a_long_value_is_cut(self, tmp_path: Path) -> None:
        assert len(told(tmp_path, f"filter: {{experiments: [{'a' * 500}]}}")) < 200

    def test_a_grid_speaks_as_well(self, tmp_path: Path) -> None:
        grid = "filter: {grids: {g: {over: {t: ['30%%']}, rules: {r: %s}}}}"
        assert told(tmp_path, grid % "{top: s, fraction: $t}").endswith(
            "at t=30%: rules.r.fraction: expected a number, got '30%'; as a number: 0.3"
        )
        assert "at t=30%: rules.r: did you mean 'where'? a rule needs" in told(tmp_path, grid % "{were: $t}")

    def test_what_is_missing_and_can_be_given_by_set(self, tmp_path: Path) -> None:
        how = "; give it, e.g. -s 'ingest.sources=[{paths: [crawl]}]'"
        assert told(tmp_path, "ingest: {languages: [en]}") == "c.yaml:1: missing key 'ingest.sources'" + how
        assert complaint("cc12m").endswith("missing key 'ingest.sources'" + how)
        assert load_config("cc12m", ["ingest.sources=[{paths: [crawl]}]"]).ingest is not None


class TestTwoThatExcludeEachOther:
    BASE = "filter:\n  experiments:\n    x:\n      rules:\n        r: {top: s, fraction: 0.3}\n"

    def test_from_two_files(self, tmp_path: Path) -> None:
        write(tmp_path / "base.yaml", self.BASE)
        text = "extends: base.yaml\nfilter: {experiments: {x: {rules: {r: {count: 5%s}}}}}"
        assert told(tmp_path, text % "") == (
            "c.yaml:2: filter.experiments.x.rules.r: give either `fraction` or `count` "
            "(fraction is at base.yaml:5, count is at c.yaml:2; set the other to null)"
        )
        rule = (
            load_config(write(tmp_path / "c.yaml", text % ", fraction: null"))
            .filter.experiments["x"]
            .rules["r"]
        )
        assert rule.model_dump(exclude_defaults=True) == {"top": "s", "count": 5}

    def test_from_the_command_line(self, tmp_path: Path) -> None:
        assert told(tmp_path, self.BASE, "filter.experiments.x.rules.r.count=5").endswith(
            "(fraction is at c.yaml:5, count is at --set filter.experiments.x.rules.r.count; "
            "set the other to null)"
        )

    def test_in_one_file_it_is_plain(self, tmp_path: Path) -> None:
        assert told(tmp_path, EXPERIMENT % "{rules: {r: {top: s, fraction: 0.3, count: 5}}}").endswith(
            "rules.r: give either `fraction` or `count`"
        )

    def test_neither_is_given(self, tmp_path: Path) -> None:
        write(tmp_path / "base.yaml", self.BASE)
        text = "extends: base.yaml\nfilter: {experiments: {x: {rules: {r: {fraction: null, count: null}}}}}"
        assert told(tmp_path, text).endswith("give either `fraction` or `count`")


def test_plain_data_is_told_the_same() -> None:
    with pytest.raises(ConfigError, match=r"^config: filter\.experiments: 'a b' is not a name: letters"):
        check({"filter": {"experiments": {"a b": {"rules": {"r": "x > 1"}}}}})
