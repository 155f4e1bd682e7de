"""Kinds that are not built in: from files that a config names, and from installed packages."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.config.base import fingerprint
from curate.config.filters import Experiment
from curate.config.keys import describe
from curate.config.loading import check, dump, load_config
from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.errors import ConfigError, UserError
from curate.inspect.known import last_config
from curate.plugins import TRUSTED, open_sets, read_plugin
from curate.rules.account.run import read_run
from curate.rules.settings import settings_of
from curate.testing.pools import some_rows, write_pool
from curate.testing.rules import run_filter

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / "tests" / "contract" / "installed"
PAGE = (ROOT / "docs" / "plugins.md").read_text()
(SECTION,) = (text for text in re.split(r"^## ", PAGE, flags=re.M) if text.startswith("A rule"))
(NEAR_BEST, _) = re.findall(r"```python\n(.*?)```", SECTION, re.S)
LONGER = '''
from pydantic import Field
from curate.config.rules.base import RuleSettings
from curate.rules.contract import BoundRule, CompiledRule, Verdict
from curate.rules.logic import Truth
import numpy as np
import pyarrow.compute as pc

class LongerRule(RuleSettings):
    """Captions that are longer than so much."""
    kind = "longer"
    implementation = f"{__name__}:Longer"
    longer: str = Field(description="Column or expression with the caption.")
    than: int = Field(3, ge=0, description="Characters.")

class Longer(CompiledRule):
    any_order = True

    @classmethod
    def compile(cls, settings: LongerRule, at):
        text = f"{settings.longer} longer than {settings.than}"
        return cls(at.name, at.place, settings, text, (at.caption(settings.longer),), 1)

    def bind(self, learned, files):
        def judge(rows):
            length = np.asarray(pc.utf8_length(rows.values[0]).fill_null(-1))
            return Verdict(Truth(length > self.settings.than, (length >= 0) & (length <= self.settings.than)))
        return BoundRule(judge)
'''
CONFIG = """\
plugins: [mine.py]
filter:
  experiments:
    e:
      rules:
        r: {longer: text, than: 4}
"""


@pytest.fixture(autouse=True)
def _own_kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test adds is not there for the next one."""
    for kinds in open_sets():
        monkeypatch.setattr(kinds, "_added", dict(kinds._added))
    monkeypatch.setattr("curate.plugins._LOADED", {})
    monkeypatch.delenv(TRUSTED, raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("curate_plugin_", "curate_example")):
            del sys.modules[name]


def write(folder: Path, plugin: str = LONGER, config: str = CONFIG) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(plugin)
    (folder / "c.yaml").write_text(config)
    return str(folder / "c.yaml")


def complaint(path: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return re.sub(r"/\S*/(?=\w+\.(yaml|py))", "", str(caught.value))


class TestFiles:
    def test_a_rule_of_ones_own_is_a_rule(self, tmp_path: Path) -> None:
        config = load_config(write(tmp_path))
        rule = config.filter.experiments["e"].rules["r"]
        assert (rule.kind, rule.model_dump()) == ("longer", {"longer": "text", "than": 4})
        assert config.plugins == (str(tmp_path / "mine.py"),)
        again = tmp_path / "again.yaml"
        again.write_text(dump(config))
        assert load_config(str(again)) == config
        assert check(
            {
                "plugins": [str(tmp_path / "mine.py")],
                "filter": {"experiments": {"e": {"rules": {"r": {"longer": "x"}}}}},
            }
        )

    def test_it_filters_and_explains(self, tmp_path: Path) -> None:
        config = load_config(write(tmp_path))
        rows = some_rows(60)
        workspace = write_pool(tmp_path / "work", rows)
        run_filter(workspace, "e", config.filter.experiments["e"])
        run = read_run(workspace, "e")
        assert run is not None
        assert run.as_config() == config.filter.experiments["e"]
        assert run.account is not None
        (rule,) = run.account.rules
        passed = sum(text is not None and len(text) > 4 for text in rows["text"].to_pylist())
        assert (rule.kind, rule.passed, rule.words) == ("longer", passed, "text longer than 4")

    def test_paths_are_relative_to_the_file_that_names_them_and_add_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "base")
        other = LONGER.replace("longer", "lengthier").replace("Longer", "Lengthier")
        path = write(
            tmp_path / "child",
            other,
            "extends: ../base/c.yaml\nplugins: mine.py\n"
            "filter: {experiments: {e: {rules: {s: {lengthier: text}}}}}",
        )
        (tmp_path / "here.py").write_text(LONGER.replace("longer", "third").replace("Longer", "Third"))
        monkeypatch.chdir(tmp_path)
        config = load_config(path, ["filter.experiments.e.rules.t={third: text}", "plugins=[here.py]"])
        assert {rule.kind for rule in config.filter.experiments["e"].rules.values()} == {
            "longer",
            "lengthier",
            "third",
        }
        assert config.plugins == tuple(
            str(tmp_path / p) for p in ("base/mine.py", "child/mine.py", "here.py")
        )

    def test_a_rule_of_another_kind_replaces_the_inherited_one(self, tmp_path: Path) -> None:
        write(tmp_path)
        (tmp_path / "d.yaml").write_text(
            "extends: c.yaml\nfilter: {experiments: {e: {rules: {r: {than: 9}}}}}"
        )
        rule = load_config(str(tmp_path / "d.yaml")).filter.experiments["e"].rules["r"]
        assert rule.model_dump() == {"longer": "text", "than": 9}
        rule = (
            load_config(str(tmp_path / "d.yaml"), ["filter.experiments.e.rules.r={top: x, count: 3}"])
            .filter.experiments["e"]
            .rules["r"]
        )
        assert rule.kind == "top"

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ("{longr: text}", "did you mean 'longer'? a rule needs one of the keys: where, top"),
            (
                "{longer: text, then: 3}",
                "unknown key 'filter.experiments.e.rules.r.then'; did you mean 'than'?",
            ),
            (
                "{longer: text, than: -1}",
                "filter.experiments.e.rules.r.than: must be greater than or equal to 0, got -1",
            ),
            ("{than: 3}", "a rule needs one of the keys"),
            ("{longer: text, top: x}", "unknown key 'filter.experiments.e.rules.r.top'"),
        ],
    )
    def test_messages_are_as_good(self, tmp_path: Path, rule: str, message: str) -> None:
        told = complaint(write(tmp_path, config=CONFIG.replace("{longer: text, than: 4}", rule)))
        assert told.startswith("c.yaml:6: ")
        assert message in told

    @pytest.mark.parametrize(
        ("plugin", "message"),
        [
            ("1 / 0\n", "c.yaml:1: plugins: mine.py: line 1: ZeroDivisionError: division by zero"),
            ("x = 1\ndef f(:\n", "c.yaml:1: plugins: mine.py: line 2: SyntaxError: invalid syntax"),
            ("import sys; sys.exit(3)", "c.yaml:1: plugins: mine.py: line 1: SystemExit: 3"),
            ("x = 1", "c.yaml:1: plugins: mine.py: defines no rule, scorer or source (docs/plugins.md)"),
            ("from curate.config.rules.top import TopRule", "c.yaml:1: plugins: mine.py: defines no rule"),
            (
                LONGER.replace('"longer"', '"top"'),
                "mine.py: rule 'top' is there already (curate.config.rules.top)",
            ),
            (LONGER + LONGER.replace("LongerRule", "Other"), "mine.py: defines rule 'longer' twice"),
        ],
    )
    def test_a_file_that_is_of_no_use(self, tmp_path: Path, plugin: str, message: str) -> None:
        path = write(tmp_path, plugin)
        assert message in complaint(path)
        assert message in complaint(path)
        assert RULES.find("longer") is None

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = write(tmp_path, config="run: {}\nplugins:\n  - absent.py")
        assert complaint(path) == "c.yaml:3: plugins: absent.py: No such file or directory"
        (tmp_path / "absent.py").write_bytes(b"\xff")
        assert complaint(path) == "c.yaml:3: plugins: absent.py: not UTF-8"
        assert complaint(path, "plugins=3") == "c.yaml:3: plugins: absent.py: not UTF-8"
        assert complaint(write(tmp_path, config="plugins: 3")) == "c.yaml:1: plugins: expected a list, got 3"
        assert "plugins.0: expected text, got 3" in complaint(write(tmp_path, config="plugins: [3]"))

    def test_another_text_is_another_setting_and_takes_the_place_of_the_old(self, tmp_path: Path) -> None:
        before = load_config(write(tmp_path)).filter.experiments["e"]
        after = load_config(write(tmp_path, LONGER + "\nMORE = 1\n")).filter.experiments["e"]
        assert RULES.find("longer") is type(after.rules["r"]) is not type(before.rules["r"])
        prints = [fingerprint(settings_of(e)) for e in (before, after)]
        assert prints[0] != prints[1]
        assert load_config(write(tmp_path)).filter.experiments["e"] == before

    def test_names_of_other_files_are_taken(self, tmp_path: Path) -> None:
        load_config(write(tmp_path / "a"))
        message = complaint(write(tmp_path / "b", LONGER + "\nMORE = 1\n"))
        assert re.search(r"rule 'longer' is there already \(curate_plugin_mine_\w+\)$", message)

    def test_it_is_run_once_by_however_many_threads(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        write(tmp_path, f"open({str(log)!r}, 'a').write('x')\nimport time; time.sleep(0.05)\n" + LONGER)
        plugin = pickle.loads(pickle.dumps(read_plugin(str(tmp_path / "mine.py"))))
        failed: list[AssertionError] = []

        def load() -> None:
            try:
                plugin.load()
                assert RULES.find("longer") is not None
            except AssertionError as error:
                failed.append(error)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert log.read_text() == "x"

    def test_settings_reach_another_process(self, tmp_path: Path) -> None:
        config = load_config(write(tmp_path))
        plugin = read_plugin(config.plugins[0])
        sent = pickle.dumps((plugin, pickle.dumps(config.filter.experiments["e"])))
        assert len(sent) < len(LONGER) + 1_000
        (tmp_path / "sent").write_bytes(sent)
        (tmp_path / "mine.py").unlink()
        code = (
            "import pickle, sys\nplugin, experiment = pickle.load(open(sys.argv[1], 'rb'))\nplugin.load()\n"
            "rule = pickle.loads(experiment).rules['r']\n"
            "print(rule.kind, rule.than, rule.load_implementation().__name__)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "sent")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == ["longer", "4", "Longer"], done.stderr

    def test_its_keys_are_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path)
        monkeypatch.setenv(TRUSTED, str(tmp_path / "mine.py"))
        lines = describe("filter.experiments")
        assert (
            "filter.experiments.<name>.rules.<name> (longer):  # Captions that are longer than so much."
            in lines
        )
        assert "filter.experiments.<name>.rules.<name>.than: int = 3  # Characters." in lines


class TestTrust:
    def made(self, folder: Path) -> Any:
        config = load_config(write(folder, "open('ran', 'w')\n" + LONGER))
        workspace = write_pool(folder / "work", some_rows(30))
        workspace.write_bytes(layout.CONFIG, dump(config).encode())
        run_filter(workspace, "e", config.filter.experiments["e"])
        (folder / "ran").unlink()
        return workspace

    def forget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in another process."""
        monkeypatch.setattr("curate.plugins._LOADED", {})
        RULES.add(
            [], origin=next(origin for _, origin in RULES._added.values() if origin.endswith("mine.py"))
        )
        for name in [name for name in sys.modules if name.startswith("curate_plugin_")]:
            del sys.modules[name]

    def test_a_stored_config_runs_nothing_on_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        workspace = self.made(tmp_path)
        assert last_config(workspace) is not None  # it has been run in this process already
        self.forget(monkeypatch)
        with pytest.raises(ConfigError) as caught:
            last_config(workspace)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(
            f"plugins: {tmp_path / 'mine.py'}: a config that is stored in a workspace does not get to run "
            f"files of its choice; if you trust this one: export CURATE_PLUGINS={tmp_path / 'mine.py'}"
        )
        assert not (tmp_path / "ran").exists()
        monkeypatch.setenv(TRUSTED, os.pathsep.join(["other.py", "mine.py"]))
        config = last_config(workspace)
        assert config is not None
        assert config.filter.experiments["e"].rules["r"].kind == "longer"
        assert (tmp_path / "ran").exists()

    def test_a_listed_file_stands_for_its_namesake(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        workspace = self.made(tmp_path)
        self.forget(monkeypatch)
        (tmp_path / "mine.py").rename(tmp_path / "work" / "mine.py")
        monkeypatch.setenv(TRUSTED, str(tmp_path / "work" / "mine.py"))
        config = last_config(workspace)
        assert config is not None
        assert config.plugins == (str(tmp_path / "work" / "mine.py"),)

    def test_a_run_whose_kind_is_not_known_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        workspace = self.made(tmp_path)
        self.forget(monkeypatch)
        with pytest.raises(
            UserError, match=r"learned\.json: the kind of rule 'r' is not known here; name the plug-in"
        ):
            read_run(workspace, "e")


class TestPackages:
    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(INSTALLED))

    def test_a_kind_of_a_package(self) -> None:
        rule = Experiment.model_validate({"rules": {"r": {"digits": "text", "at_most": 0.2}}}).rules["r"]
        assert rule.kind == "digits"
        assert type(rule).__module__ == "curate_example.rule"
        assert rule.load_implementation().__name__ == "Digits"
        assert {"digits", "top"} <= {*RULES.names()}

    def test_packages_are_not_looked_at_for_what_is_built_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def asked(group: str) -> None:
            raise AssertionError(group)

        monkeypatch.setattr("curate.config.kinds._entry_points", asked)
        for rule in ("x > 1", {"top": "x", "count": 3}, {"semdedup": "m", "cluster": "c", "epsilon": 0.1}):
            assert RULES.validate(rule)

    def test_a_package_that_does_not_keep_its_word(self) -> None:
        for kind, message in {
            "broken": "rule 'broken' of the package curate-example: ModuleNotFoundError: No module named",
            "misnamed": "rule 'misnamed' of the package curate-example: "
            "curate_example.rule:DigitsRule is no RuleSettings",
        }.items():
            with pytest.raises(ConfigError, match=rf"^config: filter\.experiments\.e\.rules\.r: {message}"):
                check({"filter": {"experiments": {"e": {"rules": {"r": {kind: "x"}}}}}})

    def test_the_command_line(self, tmp_path: Path) -> None:
        workspace = write_pool(tmp_path / "work", some_rows(50))
        (tmp_path / "c.yaml").write_text(
            f"workspace: {workspace.url}\ndownload: null\nplugins: [my_rules.py]\n"
            "filter:\n  experiments:\n    e:\n      rules:\n        a: {digits: url, at_most: 0.04}\n"
            "        b: {near_best: score, share: 0.5}\n"
        )
        (tmp_path / "my_rules.py").write_text(NEAR_BEST)
        environment = {**os.environ, "PYTHONPATH": f"{INSTALLED}{os.pathsep}{ROOT}"}
        command = [
            sys.executable,
            "-c",
            "import sys; from curate.cli import main; main(sys.argv[1:])",
            "filter",
            str(tmp_path / "c.yaml"),
        ]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        funnel = json.loads(workspace.read_bytes(layout.selection_file("e", "funnel.json")))
        a, b = funnel["rules"]
        urls, scores = (some_rows(50)[name].to_pylist() for name in ("url", "score"))
        assert a["passed"] == sum(sum(c.isdigit() for c in url) <= 0.04 * len(url) for url in urls)
        largest = max(score for score in scores if score is not None and score == score)
        assert b["cuts"] == [{"column": "score", "op": ">=", "value": largest / 2}]
        assert b["passed"] == sum(score is not None and score >= largest / 2 for score in scores)


def test_the_pages_config_loads(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.S)
    (tmp_path / "my.yaml").write_text(text)
    (tmp_path / "my_rules.py").write_text(NEAR_BEST)
    rule = load_config(str(tmp_path / "my.yaml")).filter.experiments["bright"].rules["good"]
    assert rule.model_dump() == {"near_best": "similarity", "share": 0.8}


def test_the_pages_suite_passes(tmp_path: Path) -> None:
    _, suite = re.findall(r"```python\n(.*?)```", SECTION, re.S)
    (tmp_path / "my_rules.py").write_text(NEAR_BEST)
    (tmp_path / "test_my_rules.py").write_text(suite)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_rules.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert isinstance(some_rows(), pa.Table)
