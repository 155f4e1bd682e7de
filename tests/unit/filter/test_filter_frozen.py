"""Numbers that were learned in one pool and judge another, and every way to go wrong with that."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from curate.cli import app
from curate.config.filters import Experiment
from curate.config.loading import check
from curate.config.rules.balance import BalanceRule
from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.engine.engine import run_unit
from curate.engine.plan import make_plan
from curate.errors import ConfigError, UserError
from curate.filter.stage import FilterStage
from curate.pipeline import build
from curate.rules.account.explain import verdict
from curate.rules.account.run import read_run
from curate.rules.program import compile_experiment
from curate.samples import sources
from curate.samples.columns import columns_of
from curate.samples.database import open_database
from curate.samples.folded import FoldedPool
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORER,
    Row,
    commit,
    cut_in_shards,
    run_experiment,
    stage_of,
    uid_from,
    write_pool,
)
from tests.unit.filter.frozen_oracle import fixed
from tests.unit.rules import rules_oracle as oracle
from tests.unit.rules.test_rules_oracle import (
    NAMES,
    ROWS,
    TYPES,
    caps,
    check_funnel,
    equals,
    experiments,
    frequencies,
    samples,
    scores,
    selected,
    tops,
)

LEARNED = layout.selection_file("e", "learned.json")
ACCOUNTS = ("learned.json", "funnel.json")
"""Where the numbers are from stands in these; everything else must be the same bytes."""


def some_rows(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    return [
        {
            "uid": uid_from(draw.getrandbits(128)),
            "similarity": draw.choice([None, *(i / 64 for i in range(40))]),
            "text_score": draw.gauss(0, 1),
            "text_lang": draw.choice(["en", "en", "de", "fr", None]),
            "text": draw.choice(["a cat", "dog", "x", "", "cat , dog", None]),
            "text_hash": draw.getrandbits(64),
            "text_cluster": draw.randrange(7),
        }
        for _ in range(count)
    ]


def pool_of(
    folder: Path, rows: Sequence[Row], shards: int = 3, types: Mapping[str, pa.DataType] = TYPES
) -> Workspace:
    return write_pool(folder, cut_in_shards(rows, shards), types)


def frozen_on(experiment: Mapping[str, Any], other: Workspace, **more: Any) -> dict[str, Any]:
    return {**experiment, "frozen": {"workspace": other.url, **more}}


def files_of(workspace: Workspace, name: str = "e") -> dict[str, bytes]:
    return {
        p.rsplit("/", 1)[-1]: workspace.read_bytes(p) for p in sorted(workspace.sizes(f"selections/{name}"))
    }


def bytes_of(workspace: Workspace) -> dict[str, bytes]:
    return {name: data for name, data in files_of(workspace).items() if name not in ACCOUNTS}


def funnel(workspace: Workspace) -> Any:
    return workspace.read_json(layout.selection_file("e", "funnel.json"))


def plan_and_run(workspace: Workspace, stage: FilterStage) -> tuple[int, dict[str, str]]:
    """Jobs and reasons for redoing, after doing them."""
    plan = make_plan(stage, workspace, RecordStore(workspace))
    for job in plan.jobs:
        run_unit(stage, workspace, job)
    return len(plan.jobs), plan.stale


TOP = {"rules": {"best": {"top": "similarity", "fraction": 0.3}}}
PORTABLE: dict[str, dict[str, Any]] = {
    "quantiles": {"score": "text_score", "min_quantile": 0.3, "max_quantile": 0.8},
    "top": {"top": "similarity", "fraction": 0.3},
    "lowest": {"top": "text_score", "count": 50, "lowest": True},
    "top_by": {"top": "similarity", "fraction": 0.3, "by": "text_lang"},
    "cap": {"cap": "text_cluster", "at_most": 9, "highest": "text_score"},
    "cap_drawn": {"cap": "text_lang", "at_most": 20},
    "equal": {"equal": "text_lang"},
    "sample": {"sample": "uniform", "fraction": 0.4},
    "weighted": {"sample": "text_score", "fraction": 0.2},
    "frequency": {"frequency": "text_lang", "at_most": 60},
    "frequent": {"frequency": "text", "at_least": 30},
    "balance": {"balance": "text", "entries": "words.json", "t": 20},
}
EVERYTHING = {
    "rules": {
        "english": "text_lang IS NOT NULL",
        "best": {"top": "similarity", "fraction": 0.6},
        "unique": {"dedup": ["text", "text_cluster"], "highest": "similarity"},
        "hosts": {"cap": "text_lang", "at_most": 20},
        "drawn": {"sample": "uniform", "fraction": 0.5},
    },
    "keep": {"then": ["english", "best", "unique", "hosts", "drawn"]},
}


@pytest.fixture(autouse=True)
def _words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words.json").write_text('["cat", "dog", "never"]')
    monkeypatch.chdir(tmp_path)


class TestSamePool:
    @pytest.mark.parametrize("kind", PORTABLE)
    def test_replay_gives_the_same_bytes(self, tmp_path: Path, kind: str) -> None:
        rows = some_rows(300)
        here, there = pool_of(tmp_path / "here", rows, 2), pool_of(tmp_path / "there", rows, 5)
        experiment = {"rules": {"r": PORTABLE[kind]}}
        first = run_experiment(there, "e", experiment)
        second = run_experiment(here, "e", frozen_on(experiment, there))
        mine, theirs = bytes_of(here), bytes_of(there)
        mine.pop("counts.parquet"), theirs.pop("counts.parquet")  # how rows are cut into shards differs
        assert mine == theirs
        assert 0 < first.rows_out == second.rows_out < 300
        (facts,), (known,) = funnel(here)["rules"], funnel(there)["rules"]
        assert facts.pop("frozen")["rows"] == 300
        assert facts == known

    @settings(max_examples=40, deadline=None)
    @given(ROWS, st.integers(1, 4), experiments())
    def test_of_any_experiment(
        self, rows: list[Row], shards: int, drawn: tuple[dict[str, Any], dict[str, oracle.Rule]]
    ) -> None:
        config = drawn[0]
        with tempfile.TemporaryDirectory() as folder:
            there = pool_of(Path(folder) / "there", rows, shards)
            run_experiment(there, "e", config)
            here = pool_of(Path(folder) / "here", rows, shards)
            frozen = Experiment.model_validate(config).transferable()
            if not frozen:
                with pytest.raises(ValueError, match="frozen: no rule here learns anything"):
                    stage_of("e", frozen_on(config, there))
                return
            run_experiment(here, "e", frozen_on(config, there))
            assert bytes_of(here) == bytes_of(there)
            mine, theirs = funnel(here), funnel(there)
            for facts in mine["rules"]:
                assert ("frozen" in facts) == (facts["rule"] in frozen)
                facts.pop("frozen", None)
            assert mine == theirs


@st.composite
def freezable(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, oracle.Rule]]:
    """Any experiment, and behind or beside it one rule that is transferable."""
    config, rules = draw(experiments())
    kind = draw(st.sampled_from([scores, tops, frequencies, caps, equals, samples]))
    rule, meaning = draw(kind("last").filter(lambda d: d[1].learns))
    old = config["keep"] or {"all": list(rules)}
    keep = {draw(st.sampled_from(["then", "then", "any", "all"])): draw(st.permutations([old, "last"]))}
    return {"rules": {**config["rules"], "last": rule}, "keep": keep}, {**rules, "last": meaning}


assert "last" not in NAMES


class TestOtherPool:
    @settings(max_examples=80, deadline=None)
    @given(ROWS, ROWS, st.integers(1, 4), freezable())
    def test_it_is_judged_by_fixed_thresholds(
        self,
        there: list[Row],
        here: list[Row],
        shards: int,
        drawn: tuple[dict[str, Any], dict[str, oracle.Rule]],
    ) -> None:
        config, rules = drawn
        experiment = Experiment.model_validate(config)
        seen: dict[str, Sequence[Row]] = {}

        def watched(name: str, rule: oracle.Rule) -> oracle.Rule:
            def meaning(rows: Sequence[Row], pool: int) -> oracle.Said:
                seen[name] = rows
                return rule.meaning(rows, pool)

            return oracle.Rule(meaning, rule.learns)

        keep = experiment.combination()
        oracle.Experiment({n: watched(n, r) for n, r in rules.items()}, keep, there)
        for name in experiment.transferable():
            condition = fixed(name, experiment.rules[name], seen[name], len(there))
            rules[name] = oracle.Rule(oracle.local(condition).meaning, learns=True)
        expected = oracle.Experiment(rules, keep, here)
        with tempfile.TemporaryDirectory() as folder:
            origin = pool_of(Path(folder) / "there", there, shards)
            run_experiment(origin, "e", config)
            workspace = pool_of(Path(folder) / "here", here, 2)
            outcome = run_experiment(workspace, "e", frozen_on(config, origin))
            assert selected(workspace) == expected.kept
            assert outcome.drops == expected.reasons
            check_funnel(funnel(workspace), expected, keep, len(here))
            shutil.rmtree(origin.url)
            settings_ = Experiment.model_validate(frozen_on(config, origin))
            for row, why in list(zip(expected.rows, expected.why, strict=True))[:2]:
                said = verdict(workspace, "e", settings_, (MODEL,), (SCORER,), row["uid"])
                assert (said.kept, said.reason) == (why is None, why)

    def test_balance_thins_by_the_counts_of_there(self, tmp_path: Path) -> None:
        rule = {"rules": {"r": {"balance": "text", "entries": "words.json", "t": 20}}}
        many, few = some_rows(600, 1), some_rows(60, 2)
        there, here = pool_of(tmp_path / "there", many), pool_of(tmp_path / "here", few)
        run_experiment(there, "e", rule)
        run_experiment(here, "e", frozen_on(rule, there))
        counts = {w: sum(w in (r["text"] or "").split() for r in many) for w in ("cat", "dog")}
        expected = set()
        for row in few:
            miss = math.prod(1 - 20 / n for w, n in counts.items() if w in (row["text"] or "").split())
            if oracle.draw(row, oracle.salted("r", 0)) < 1 - miss:
                expected.add(row["uid"])
        assert set(selected(here)) == expected
        assert 0 < len(expected) < sum("cat" in (r["text"] or "") or "dog" in (r["text"] or "") for r in few)

    def test_funnel_says_which_quantile_it_is_here(self, tmp_path: Path) -> None:
        there = pool_of(tmp_path / "there", [{"uid": uid_from(i), "similarity": i / 128} for i in range(100)])
        rows = [{"uid": uid_from(i), "similarity": i / 64 if i < 90 else None} for i in range(100)]
        here = pool_of(tmp_path / "here", rows)
        run_experiment(there, "e", TOP)
        outcome = run_experiment(here, "e", frozen_on(TOP, there))
        (rule,) = funnel(here)["rules"]
        assert rule["threshold"] == 70 / 128
        assert rule["frozen"] == {"from": there.url, "rows": 100, "quantile": 0.7}
        assert (rule["passed"], rule["failed"], rule["missing"]) == (55, 35, 10)
        assert rule["quantile"] == 35 / 90
        assert outcome.drops == {"best": 35, "missing_score": 10}

    def test_ties_go_by_the_uid_of_there(self, tmp_path: Path) -> None:
        there = pool_of(tmp_path / "there", [{"uid": uid_from(i), "similarity": 0.5} for i in range(10)])
        here = pool_of(tmp_path / "here", [{"uid": uid_from(i), "similarity": 0.5} for i in (1, 2, 3, 99)])
        run_experiment(there, "e", TOP)
        run_experiment(here, "e", frozen_on(TOP, there))
        assert sorted(selected(here)) == [uid_from(1), uid_from(2)]

    def test_what_could_not_be_learned_passes_nothing(self, tmp_path: Path) -> None:
        there = pool_of(tmp_path / "there", [{"uid": uid_from(i)} for i in range(3)])
        here = pool_of(tmp_path / "here", some_rows(20))
        for rule in ({"score": "similarity", "min_quantile": 0.1}, {"top": "similarity", "fraction": 0.5}):
            run_experiment(there, "e", {"rules": {"r": rule}})
            outcome = run_experiment(here, "e", frozen_on({"rules": {"r": rule}}, there))
            assert outcome.rows_out == 0


class TestPasses:
    def test_nobody_waits_for_a_frozen_rule(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path / "w", some_rows(20))
        with open_database(tmp_path) as connection:
            columns = columns_of(workspace, "00000", [MODEL], [SCORER])
            program = compile_experiment("e", Experiment.model_validate(EVERYTHING), columns, connection)
        names = [[r.name for r in rules] for rules in program.passes()]
        assert names == [["best"], ["unique"], ["hosts"], ["drawn"]]
        given = Experiment.model_validate(EVERYTHING).transferable()
        assert given == ("best", "hosts", "drawn")
        assert [[r.name for r in rules] for rules in program.passes(given)] == [["unique"]]

    def test_one_pass_over_the_columns_when_all_is_frozen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scans: list[Any] = []

        class Counted(FoldedPool):
            def scan(self, *args: Any, **kwargs: Any) -> Any:
                scans.append(args)
                return super().scan(*args, **kwargs)

        monkeypatch.setattr(sources, "FoldedPool", Counted)
        there, here = (pool_of(tmp_path / n, some_rows(30, i)) for i, n in enumerate("ab"))
        run_experiment(there, "e", TOP)
        assert len(scans) == 2
        run_experiment(here, "e", frozen_on(TOP, there))
        assert len(scans) == 3


class TestWhatIsStored:
    def test_the_new_selection_stands_by_itself(self, tmp_path: Path) -> None:
        there, here, third = (pool_of(tmp_path / n, some_rows(100 + i, i)) for i, n in enumerate("abc"))
        run_experiment(there, "e", EVERYTHING)
        run_experiment(here, "e", frozen_on(EVERYTHING, there))
        mine, theirs = here.read_json(LEARNED), there.read_json(LEARNED)
        (ref,) = (r for r in RecordStore(there).outputs("filter/e").values() if r.path == LEARNED)
        assert mine["frozen"] == {"from": there.url, "digest": ref.digest, "rows": 100}
        assert mine["rows"] == 101
        assert theirs["frozen"] is None
        for name in ("best", "hosts", "drawn"):
            assert mine["rules"][name].pop("from") == there.url
            assert mine["rules"][name] == theirs["rules"][name]
        assert "from" not in mine["rules"]["unique"]
        assert files_of(here)["cuts_03.parquet"] == files_of(there)["cuts_03.parquet"]

        shutil.rmtree(there.url)
        run = read_run(here, "e")
        assert run is not None
        kept = selected(here)
        notes = []
        for row in some_rows(101, 1)[:20]:
            said = verdict(here, "e", run.as_config(), (MODEL,), (SCORER,), row["uid"])
            assert said.kept == (row["uid"] in kept)
            notes.append({r.rule: r.note for r in said.rules}["best"])
        assert all(re.fullmatch(rf"cut at .*, learned in {re.escape(there.url)}", n) for n in notes)

        run_experiment(third, "e", frozen_on(EVERYTHING, here))
        again = third.read_json(LEARNED)
        assert again["frozen"]["from"] == here.url
        assert again["frozen"]["rows"] == 100
        assert again["frozen"]["earlier"] == mine["frozen"]
        for name in ("best", "hosts", "drawn"):
            assert again["rules"][name].pop("from") == here.url
            assert again["rules"][name] == theirs["rules"][name]

    def test_other_rules_are_not_explained(self, tmp_path: Path) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(20, i)) for i, n in enumerate("ab"))
        run_experiment(there, "e", TOP)
        run_experiment(here, "e", frozen_on(TOP, there))
        uid = some_rows(20, 1)[0]["uid"]
        with pytest.raises(UserError, match="other rules now than when it was run"):
            verdict(here, "e", Experiment.model_validate(TOP), (MODEL,), (SCORER,), uid)

    def test_a_folder_that_was_copied_will_do(self, tmp_path: Path) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(50, i)) for i, n in enumerate("ab"))
        run_experiment(there, "e", EVERYTHING)
        shutil.copytree(Path(there.url) / "selections", tmp_path / "kept" / "selections")
        run_experiment(here, "e", frozen_on(EVERYTHING, there))
        mine = bytes_of(here)
        run_experiment(here, "e", frozen_on(EVERYTHING, Workspace(str(tmp_path / "kept"))))
        assert bytes_of(here) == mine

    def test_any_url_will_do(self, tmp_path: Path) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(50, i)) for i, n in enumerate("ab"))
        run_experiment(there, "e", EVERYTHING)
        remote = Workspace(f"memory://frozen-{tmp_path.name}")
        with pytest.raises(UserError, match=r"frozen: memory://.*: no such workspace"):
            stage_of("e", frozen_on(EVERYTHING, remote))
        for name, data in files_of(there).items():
            remote.write_bytes(layout.selection_file("e", name), data)
        run_experiment(here, "e", frozen_on(EVERYTHING, there))
        mine = bytes_of(here)
        run_experiment(here, "e", frozen_on(EVERYTHING, remote))
        assert bytes_of(here) == mine
        assert here.read_json(LEARNED)["frozen"]["from"] == remote.url
        with pytest.raises(UserError, match=r"selections there: e\)"):
            stage_of("f", frozen_on(EVERYTHING, remote))

    def test_files_count_by_content_not_by_place(self, tmp_path: Path) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(50, i)) for i, n in enumerate("ab"))
        rule = {"balance": "text", "entries": "words.json", "t": 5}
        run_experiment(there, "e", {"description": "small", "rules": {"r": rule}})
        shutil.copy(tmp_path / "words.json", tmp_path / "moved.json")
        moved = {"rules": {"r": {**rule, "entries": "moved.json"}}}
        assert run_experiment(here, "e", frozen_on(moved, there)).rows_in == 50
        (tmp_path / "moved.json").write_text('["cat", "fish"]')
        with pytest.raises(UserError, match=r"rule 'r' was another one there: digest \w+ → \w+;"):
            stage_of("e", frozen_on(moved, there))


class TestWhatIsDoneAgain:
    def test_a_changed_calibration_is_named(self, tmp_path: Path) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(60, i)) for i, n in enumerate("ab"))
        run_experiment(there, "e", TOP)
        assert plan_and_run(here, stage_of("e", TOP))[0] == 1
        jobs, why = plan_and_run(here, stage_of("e", frozen_on(TOP, there)))
        assert jobs == 1
        assert why["all"].startswith("settings: frozen unset → {")
        assert plan_and_run(here, stage_of("e", frozen_on(TOP, there))) == (0, {})
        before = here.read_json(LEARNED)["frozen"]["digest"]
        run_experiment(pool_of(tmp_path / "a", some_rows(60, 7)), "e", TOP)
        jobs, why = plan_and_run(here, stage_of("e", frozen_on(TOP, there)))
        after = here.read_json(LEARNED)["frozen"]["digest"]
        assert (jobs, why) == (1, {"all": f"settings: frozen.digest {before} → {after}"})
        assert before != after

    def test_without_frozen_nothing_is_another_setting(self, tmp_path: Path) -> None:
        assert "frozen" not in stage_of("e", TOP).settings

    def test_a_kill_on_the_way_costs_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        there, here, other = (
            pool_of(tmp_path / n, some_rows(80, i)) for n, i in zip("abc", (0, 1, 1), strict=True)
        )
        run_experiment(there, "e", EVERYTHING)
        plan_and_run(other, stage_of("e", frozen_on(EVERYTHING, there)))

        def killed(*_: Any) -> Any:
            raise KeyboardInterrupt

        for method in ("_select", "_write_learned", "_remove_others"):
            with monkeypatch.context() as patched:
                patched.setattr(FilterStage, method, killed)
                with pytest.raises(KeyboardInterrupt):
                    plan_and_run(here, stage_of("e", frozen_on(EVERYTHING, there)))
        assert plan_and_run(here, stage_of("e", frozen_on(EVERYTHING, there)))[0] == 1
        assert files_of(here) == files_of(other)

    def test_a_pinned_digest(self, tmp_path: Path) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(60, i)) for i, n in enumerate("ab"))
        run_experiment(there, "e", TOP)
        plan_and_run(here, stage_of("e", frozen_on(TOP, there)))
        digest = here.read_json(LEARNED)["frozen"]["digest"]
        assert plan_and_run(here, stage_of("e", frozen_on(TOP, there, digest=digest))) == (0, {})
        with pytest.raises(UserError, match=rf"learned.json has the digest {digest}, not {'0' * 32}"):
            stage_of("e", frozen_on(TOP, there, digest="0" * 32))


def changed(path: Sequence[str], value: Any) -> Callable[[Any], Any]:
    def change(facts: Any) -> Any:
        part = facts
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        return facts

    return change


def without(*path: str) -> Callable[[Any], Any]:
    def change(facts: Any) -> Any:
        part = facts
        for key in path[:-1]:
            part = part[key]
        del part[path[-1]]
        return facts

    return change


class TestErrors:
    @pytest.fixture
    def pools(self, tmp_path: Path) -> tuple[Workspace, Workspace]:
        there, here = (pool_of(tmp_path / n, some_rows(60, i)) for i, n in enumerate(("there", "here")))
        run_experiment(there, "e", EVERYTHING)
        return there, here

    def test_nothing_there(self, tmp_path: Path, pools: tuple[Workspace, Workspace]) -> None:
        there, _ = pools
        key = r"^filter\.experiments\.f\.frozen: "
        with pytest.raises(UserError, match=key + ".*/nowhere: no such workspace$"):
            stage_of("f", frozen_on(TOP, Workspace(str(tmp_path / "nowhere"))))
        with pytest.raises(
            UserError, match=key + r".* has no selections/f/learned.json \(selections there: e\)"
        ):
            stage_of("f", frozen_on(TOP, there))
        with pytest.raises(UserError, match=r"\(selections there: none\); run filter there"):
            stage_of("f", frozen_on(TOP, Workspace(str(tmp_path))))
        with pytest.raises(UserError, match=key + "cannot open 'nofs://x'"):
            stage_of("f", frozen_on(TOP, Workspace("nofs://x")))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (changed(["rules", "best", "fraction"], 0.5), "'best' .*fraction 0.6 → 0.5"),
            (changed(["rules", "drawn", "seed"], 3), "'drawn' .*seed 0 → 3"),
            (changed(["rules", "english"], "text_lang = 'en'"), "'english' was another one there: where"),
            (changed(["rules", "more"], "text_score > 0"), "has no rule 'more'"),
            (changed(["keep"], {"then": ["english", "best"]}), "`keep` was another one there: "),
            (changed(["keep"], None), "`keep` was another one there: "),
            (
                lambda e: e["rules"].update(english=e["rules"].pop("english")),
                "another order: english, best",
            ),
            (lambda e: e["rules"].pop("drawn") and e["keep"]["then"].pop(), "has a rule 'drawn' that"),
        ],
    )
    def test_other_rules(
        self, pools: tuple[Workspace, Workspace], change: Callable[[Any], Any], message: str
    ) -> None:
        experiment = json.loads(json.dumps(EVERYTHING))
        change(experiment)
        with pytest.raises(
            UserError, match=rf"^filter\.experiments\.e\.frozen: .*/learned\.json: .*{message}"
        ):
            stage_of("e", frozen_on(experiment, pools[0]))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: [], "is no learned.json of curate; run filter"),
            (lambda f: {}, "is no learned.json"),
            (changed(["format"], 9), "is no learned.json"),
            (changed(["rows"], "many"), "is no learned.json"),
            (changed(["rules"], []), "is no learned.json"),
            (without("columns"), "is no learned.json"),
            (without("settings", "order"), "is no learned.json"),
            (changed(["settings", "rules", "best", "fraction"], 7), "is no learned.json"),
            (without("rules", "best"), r"rules\.best: is missing"),
            (without("rules", "best", "value"), r"rules\.best\.value: cannot be None"),
            (changed(["rules", "best", "value"], "high"), r"rules\.best\.value: cannot be 'high'"),
            (changed(["rules", "best", "value"], None), r"rules\.best\.uid: goes with a value"),
            (changed(["rules", "best", "uid"], "x"), r"rules\.best\.uid: cannot be 'x'"),
            (changed(["rules", "hosts", "groups"], -1), r"rules\.hosts\.groups: cannot be -1"),
            (changed(["rules", "hosts", "file"], "../x.parquet"), r"has no digest of '\.\./x.parquet'"),
            (without("files"), "has no digest of 'cuts_03.parquet'"),
            (changed(["files", "cuts_03.parquet", "size"], 1), "cuts_03.parquet, .* has another size"),
        ],
    )
    def test_broken(
        self, pools: tuple[Workspace, Workspace], change: Callable[[Any], Any], message: str
    ) -> None:
        there, _ = pools
        there.write_json(LEARNED, change(there.read_json(LEARNED)))
        with pytest.raises(
            UserError, match=rf"^filter\.experiments\.e\.frozen: .*/learned\.json: .*{message}"
        ) as raised:
            stage_of("e", frozen_on(EVERYTHING, there))
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"format": NaN}'])
    def test_no_json(self, pools: tuple[Workspace, Workspace], data: bytes) -> None:
        pools[0].write_bytes(LEARNED, data)
        with pytest.raises(UserError, match=r"/learned\.json: is no learned.json"):
            stage_of("e", frozen_on(EVERYTHING, pools[0]))

    def test_files_that_do_not_belong_together(self, pools: tuple[Workspace, Workspace]) -> None:
        there, here = pools
        cuts = Path(there.url) / layout.selection_file("e", "cuts_03.parquet")
        cuts.write_bytes(b"x" * cuts.stat().st_size)
        stage = stage_of("e", frozen_on(EVERYTHING, there))
        (unit,) = stage.units(here)
        with pytest.raises(
            UserError, match=r"cuts_03\.parquet is not the file that learned.json beside it names"
        ):
            stage.run(here, unit)
        assert not here.exists(layout.selection_file("e", "cuts_03.parquet"))
        cuts.unlink()
        with pytest.raises(UserError, match="missing or has another size"):
            stage_of("e", frozen_on(EVERYTHING, there))
        with pytest.raises(UserError, match=r"cuts_03\.parquet: no such file"):
            stage.run(here, unit)

    def test_itself(self, pools: tuple[Workspace, Workspace]) -> None:
        there, _ = pools
        with pytest.raises(UserError, match="is this workspace; it would freeze itself"):
            stage_of("e", frozen_on(EVERYTHING, there)).units(there)

    @pytest.mark.parametrize(
        ("here", "fits"),
        [
            ({"text_score": pa.float32()}, False),
            ({"text_score": pa.int32()}, False),
            ({"text_cluster": pa.int64()}, True),
            ({"text_cluster": pa.uint8()}, True),
            ({"text_cluster": pa.string()}, False),
            ({"text_lang": pa.large_string()}, True),
            ({"text_hash": pa.float64()}, True),
        ],
    )
    def test_types_of_the_columns(self, tmp_path: Path, here: dict[str, pa.DataType], fits: bool) -> None:
        """Integers of any width hold the same numbers; floats of another precision do not. ``text_hash``
        is read by no frozen rule."""
        experiment = {
            "rules": {
                "a": {"top": "text_score", "fraction": 0.5},
                "b": {"cap": "text_cluster", "at_most": 3},
                "c": {"frequency": "text_lang", "at_most": 30},
                "d": "text_hash IS NOT NULL",
            }
        }
        (column,) = here
        rows = [{**r, "text_score": float(i), "text_hash": i} for i, r in enumerate(some_rows(60))]
        there = pool_of(tmp_path / "there", rows)
        if here[column] == pa.string():
            rows = [{**r, column: str(r[column])} for r in rows]
        workspace = pool_of(tmp_path / "here", rows, types={**TYPES, **here})
        run_experiment(there, "e", experiment)
        stage = stage_of("e", frozen_on(experiment, there))
        if fits:
            run_experiment(workspace, "e", frozen_on(experiment, there))
            assert selected(workspace) == selected(there)
        else:
            with pytest.raises(
                UserError, match=rf"frozen: column '{column}' of rule '\w' is {here[column]}, in "
            ):
                stage.units(workspace)

    def test_another_model_or_clustering(self, tmp_path: Path) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(30, i)) for i, n in enumerate("ab"))
        for workspace, weights in ((there, "w1"), (here, "w2")):
            model = {"model": "ViT-B-32", "weights": weights}
            workspace.write_json(layout.embedding_model(MODEL), model)
            commit(workspace, f"learn/{SCORER}", "all", [FileRef(layout.learned(SCORER), 1, weights)])
        run_experiment(there, "e", TOP)
        with pytest.raises(
            UserError, match=r"column 'similarity' of rule 'best' is made by another weights here"
        ):
            stage_of("e", frozen_on(TOP, there)).units(here)
        clusters = {"rules": {"c": {"cap": "text_cluster", "at_most": 3}}}
        run_experiment(there, "c", clusters)
        with pytest.raises(
            UserError, match=r"'text_cluster' of rule 'c' is made by another learned\.npz here"
        ):
            stage_of("c", frozen_on(clusters, there)).units(here)
        here.write_json(layout.embedding_model(MODEL), {"model": "ViT-B-32", "weights": "w1"})
        assert list(stage_of("e", frozen_on(TOP, there)).units(here))


class TestConfig:
    def test_what_is_transferable_learns(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path / "w", some_rows(10))
        rules = {
            **PORTABLE,
            "where": "text_score > 0",
            "bounds": {"score": "text_score", "min": 0.5},
            "in": {"in": "text_lang", "values": ["en"]},
            "not_in": {"not_in": "text_lang", "values": ["en"]},
            "entities": {"entities": "words.json"},
            "other": {"experiment": "x"},
            "dedup": {"dedup": "text"},
            "near": {"near": "text_hash", "distance": 3},
            "semdedup": {"semdedup": MODEL, "cluster": "text_cluster", "epsilon": 0.1},
            "soft": {"soft_cap": "text_score"},
            "hard": {"hard_cap": "text_score", "at_most": 3},
        }
        experiment = Experiment.model_validate({"rules": rules})
        assert {type(r) for r in experiment.rules.values()} == set(RULES.all().values())
        with open_database(tmp_path) as connection:
            columns = columns_of(workspace, "00000", [MODEL], [SCORER])
            program = compile_experiment("e", experiment, columns, connection)
        for rule in program.rules:
            assert rule.learns or not rule.settings.transferable, rule.name
            assert rule.settings.transferable == (rule.name in PORTABLE), rule.name
        assert set(experiment.transferable()) == set(PORTABLE)
        assert isinstance(experiment.rules["balance"], BalanceRule)

    def test_storage_options_of_the_same_storage_are_shared(self, tmp_path: Path) -> None:
        there = pool_of(tmp_path / "there", some_rows(10))
        run_experiment(there, "e", TOP)
        for url in (f"file://{there.url}", there.url):
            config = check(
                {
                    "workspace": str(tmp_path / "here"),
                    "storage_options": {"auto_mkdir": True},
                    "filter": {"experiments": {"e": {**TOP, "frozen": url}}},
                }
            )
            (stage,) = build(config, ("filter",))
            assert isinstance(stage, FilterStage)
            assert stage.experiment.frozen is not None
            assert stage.experiment.frozen.storage_options == {"auto_mkdir": True}
            assert stage.frozen is not None
            assert stage.frozen.origin.options == {"auto_mkdir": True}
            assert set(stage.settings["frozen"]) == {"workspace", "digest"}
        remote = Experiment.model_validate({**TOP, "frozen": "s3://b/work"}).frozen
        assert remote is not None
        assert remote.beside("./work", {"auto_mkdir": True}).storage_options == {}
        assert remote.beside("s3://c/work", {"anon": True}).storage_options == {"anon": True}

    def test_nothing_to_freeze(self) -> None:
        rules = {"a": "x > 1", "b": {"dedup": "sha256"}}
        with pytest.raises(
            ConfigError, match=r"experiments\.e.*frozen: no rule here learns anything that says"
        ):
            check({"filter": {"experiments": {"e": {"rules": rules, "frozen": "./x"}}}})

    def test_the_pages_example(self) -> None:
        page = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()
        section = page.split("### What another pool can be judged by")[1].split("\n## ")[0]
        (block,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
        config = check({"filter": yaml.safe_load(block)})
        (experiment,) = config.filter.experiments.values()
        assert experiment.frozen is not None
        assert experiment.transferable()


class TestCommand:
    @pytest.fixture
    def config(self, tmp_path: Path) -> str:
        path = tmp_path / "my.yaml"
        data = {
            "workspace": str(tmp_path / "here"),
            "embed": {"models": {MODEL: {"model": "demo"}}},
            "score": {"scorers": {SCORER: {"type": "text"}}},
            "filter": {"experiments": {"e": TOP, "plain": {"rules": {"w": "similarity > 0.2"}}}},
        }
        path.write_text(yaml.safe_dump(data))
        return str(path)

    @staticmethod
    def invoke(*args: str) -> Any:
        result = CliRunner().invoke(app, ["filter", *args], env={"COLUMNS": "400"})
        assert result.exit_code == 0, result.exception or result.output
        return result

    def test_it_freezes_all_that_can_be(self, tmp_path: Path, config: str) -> None:
        there, here = (pool_of(tmp_path / n, some_rows(60, i)) for i, n in enumerate(("there", "here")))
        self.invoke(config, "-w", there.url)
        self.invoke(config)
        said = self.invoke(config, "--frozen", there.url, "--dry-run").output
        assert "filter/e               1 of 1 unit to do" in said
        assert "again: settings: frozen unset → {'workspace'" in said
        self.invoke(config, "--frozen", there.url)
        assert here.read_json(LEARNED)["frozen"]["from"] == there.url
        assert here.read_json(layout.selection_file("plain", "learned.json"))["frozen"] is None
        assert "0 of 1 unit to do" in self.invoke(config, "--frozen", there.url, "--dry-run").output

        run_experiment(there, "e", {"description": "again", **TOP})
        said = self.invoke(config, "--frozen", there.url, "--dry-run").output
        assert "again: settings: frozen.digest " in said

    def test_nothing_to_freeze(self, tmp_path: Path, config: str) -> None:
        sets = ["-s", "filter.experiments.e=null"]
        result = CliRunner().invoke(app, ["filter", config, *sets, "--frozen", "./x"])
        assert isinstance(result.exception, UserError)
        assert re.search("--frozen: no experiment of .*my.yaml has a rule whose", str(result.exception))

    def test_the_help_teaches(self) -> None:
        said = CliRunner().invoke(app, ["filter", "--help"], env={"COLUMNS": "200"}).output
        assert "--frozen ./small" in said
        assert "frozen: ./small" in said
