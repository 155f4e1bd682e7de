"""What every kind of rule has to hold; see ``curate.rules.contract.CompiledRule``."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.config.base import fingerprint
from curate.config.filters import Experiment
from curate.config.kinds import as_written
from curate.config.rules.base import RULES, RuleSettings
from curate.dataset.selections import Selection
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.filter.stage import FilterStage
from curate.rules.account.explain import verdict
from curate.rules.contract import CompiledRule, Learned, Rows, RuleFiles
from curate.rules.judging import Judge
from curate.rules.learning import learn
from curate.rules.logic import Truth
from curate.rules.program import Program, compile_experiment
from curate.rules.settings import settings_of
from curate.rules.sql.expressions import evaluate
from curate.samples.committed import Committed
from curate.samples.database import Database, open_database, reading_folder
from curate.samples.pool import Pool
from curate.testing.pools import commit, some_rows, write_pool

NAME = "e"
"""Of the experiment, and of the rule in it."""


@dataclass(frozen=True)
class Said:
    """What an experiment with one rule says about a pool.

    Attributes:
        verdicts: uid → ``pass``, ``fail`` or ``missing``, and how often the row is there when it passes;
            rows that the rule does not look at are missing.
        learned: what the rule learned.
        files: name → bytes of the files that it learned.
    """

    verdicts: Mapping[str, tuple[str, int]]
    learned: Learned
    files: Mapping[str, bytes]


class RuleContract:
    """Say how a rule of the kind is written, and what it may say of a row without values.

    Attributes:
        rule: as in a config, over the columns of ``curate.testing.pools.some_rows``, or of ``rows``.
        other: of the same kind, with another verdict on some row.
        null: what the rule says about a row whose columns are all NULL.
        models: aliases of models whose embeddings the rule reads.
    """

    rule: ClassVar[Any]
    other: ClassVar[Any]
    null: ClassVar[str] = "missing"
    models: ClassVar[tuple[str, ...]] = ()

    def rows(self) -> pa.Table:
        """The samples; override it where ``some_rows`` has nothing for the rule to look at."""
        return some_rows()

    def write_files(self, folder: Path) -> None:
        """Write the files that the rule names, relative to this folder; none by default."""

    def prepare(self, workspace: Workspace, rows: pa.Table) -> None:
        """Add to a pool of these rows what the rule reads besides their columns; nothing by default."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write_files(tmp_path)
        monkeypatch.chdir(tmp_path)

    @property
    def settings(self) -> RuleSettings:
        """The rule's settings."""
        return RULES.validate(self.rule)

    def pool(self, folder: Path, rows: pa.Table, shards: int = 3) -> Workspace:
        """A workspace with all that the rule reads."""
        workspace = write_pool(folder, rows, shards)
        self.prepare(workspace, rows.sort_by("uid"))
        return workspace

    def said(
        self, workspace: Workspace, batch_rows: int = 1 << 20, given: Said | None = None, **more: Any
    ) -> Said:
        """Learn and judge.

        Args:
            given: what was learned elsewhere; the rule does not learn here.
            more: of the experiment, besides its rule.
        """
        with reading_folder() as folder, open_database(folder) as connection:
            rules = {NAME: self.rule, **more.pop("rules", {})}
            program, pool = compiled(workspace, rules, self.models, connection, **more)
            pool = replace(pool, batch_rows=batch_rows)
            for path, data in given.files.items() if given else ():
                workspace.write_bytes(path, data)
            known = {NAME: given.learned} if given else {}
            learned, files = learn(program, pool, connection, folder, known)
            verdicts: dict[str, tuple[str, int]] = {}
            with Judge(program, pool, learned, connection) as judge:
                for batch in pool.scan(program.columns()):
                    found = judge.verdicts(batch)[NAME]
                    assert not (found.truth.passed & found.truth.failed).any()
                    uids, words = batch.table["uid"].to_pylist(), in_words(found.truth)
                    repeats = np.ones(len(uids), np.int64) if found.repeats is None else found.repeats
                    times = np.where(found.truth.passed, repeats, 0).tolist()
                    verdicts.update(zip(uids, zip(words, times, strict=True), strict=True))
        return Said(verdicts, learned[NAME], {ref.path: workspace.read_bytes(ref.path) for ref in files})

    def test_settings(self) -> None:
        """Are documented, plain JSON, and the same after a round trip through JSON and through pickle."""
        settings = self.settings
        kind = type(settings)
        assert kind.__doc__
        assert all(field.description for field in kind.model_fields.values())
        assert RULES.find(kind.kind) is kind
        assert issubclass(kind.load_implementation(), CompiledRule)
        facts = json.loads(json.dumps(settings.facts(), allow_nan=False))
        assert RULES.validate(as_written(facts)) == settings
        dumped = json.loads(json.dumps(settings.model_dump(mode="json"), allow_nan=False))
        assert RULES.validate(dumped) == settings
        assert pickle.loads(pickle.dumps(settings)) == settings
        for key, digest_key in kind.file_keys.items():
            assert {key, digest_key} <= {*facts}

    def test_another_setting_is_another_fingerprint(self, tmp_path: Path) -> None:
        """And another verdict on some row."""
        prints = {fingerprint(settings_of(experiment(rule))) for rule in (self.rule, self.other, self.rule)}
        assert len(prints) == 2
        workspace = self.pool(tmp_path / "pool", self.rows())
        mine = self.said(workspace)
        assert type(RULES.validate(self.other)) is type(self.settings)
        other = type("Other", (type(self),), {"rule": self.other})()
        assert mine.verdicts != other.said(workspace).verdicts

    def test_another_file_is_another_fingerprint(self, tmp_path: Path) -> None:
        """By what is in it."""
        before = fingerprint(settings_of(experiment(self.rule)))
        for key in self.settings.file_keys:
            for url in self.settings.urls_of(key):
                with Path(url).open("ab") as stream:
                    stream.write(b"\n\n")
                after = fingerprint(settings_of(experiment(self.rule)))
                assert after != before
                before = after

    def test_it_tells_rows_apart(self, tmp_path: Path) -> None:
        """Some pass and some do not; every row has a verdict, or a value was missing."""
        rows = self.rows()
        found = self.said(self.pool(tmp_path / "pool", rows)).verdicts
        assert {*found} == {*rows["uid"].to_pylist()}
        words = {word for word, _ in found.values()}
        assert "pass" in words
        assert len(words) > 1
        assert all(times > 0 for word, times in found.values() if word == "pass")

    @pytest.mark.parametrize(("shards", "batch_rows"), [(1, 64), (2, 1), (7, 64)])
    def test_how_rows_are_cut_changes_nothing(self, tmp_path: Path, shards: int, batch_rows: int) -> None:
        """Neither shards nor batches: not a verdict, not what is learned, not a byte of a file."""
        rows = self.rows()
        whole = self.said(self.pool(tmp_path / "a", rows, 1))
        assert self.said(self.pool(tmp_path / "b", rows, shards), batch_rows) == whole

    def test_a_row_without_values(self, tmp_path: Path) -> None:
        """NULL is missing, unless the kind says otherwise, and NaN is NULL."""
        rows = self.rows()
        with open_database(tmp_path) as connection:
            program, _ = compiled(self.pool(tmp_path / "p", rows), {NAME: self.rule}, self.models, connection)
            read = program.rules[0].columns - {"uid"}
        some = rows["uid"].to_pylist()[::5]
        said = []
        for number, nothing in enumerate((None, float("nan"))):
            changed = blanked(rows, read, {*some}, nothing)
            found = self.said(self.pool(tmp_path / f"{number}", changed), 50)
            said.append(found.verdicts)
            if read:
                assert {found.verdicts[uid][0] for uid in some} == {self.null}
        assert said[0] == said[1]

    def test_what_it_learns_is_json(self, tmp_path: Path) -> None:
        """With which it says the same, and which the account tells of."""
        workspace = self.pool(tmp_path / "pool", self.rows())
        first = self.said(workspace)
        stored = json.loads(json.dumps(first.learned, allow_nan=False))
        assert stored == first.learned
        again = self.said(workspace, given=replace(first, learned=stored))
        assert again.verdicts == first.verdicts
        with open_database(tmp_path) as connection:
            program, _ = compiled(workspace, {NAME: self.rule}, self.models, connection)
        rule = program.rules[0]
        json.dumps([rule.account(stored), [cut.facts() for cut in rule.cuts(stored)]], allow_nan=False)
        assert rule.text
        assert rule.words
        assert rule.learns == bool(stored)
        assert [(c.column, c.op) for c in rule.cuts({})] == [(c.column, c.op) for c in rule.cuts(stored)]

    def test_a_bound_says_all(self, tmp_path: Path) -> None:
        """Of a rule that is one comparison with a number: what it says follows from that."""
        rows = self.rows()
        workspace = self.pool(tmp_path / "pool", rows)
        found = self.said(workspace)
        with open_database(tmp_path) as connection:
            program, _ = compiled(workspace, {NAME: self.rule}, self.models, connection)
        bound = program.rules[0].bound(found.learned)
        if bound is None or bound.value is None or bound.column not in rows.column_names:
            return
        holds = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}[bound.op]
        for uid, value in zip(rows["uid"].to_pylist(), rows[bound.column].to_pylist(), strict=True):
            if value is not None and value == value:
                assert found.verdicts[uid][0] == ("pass" if holds(value, bound.value) else "fail")

    def test_a_verdict_is_local_to_a_row(self, tmp_path: Path) -> None:
        """With what was learned each row is judged as well alone, and in any order where the kind says so."""
        rows = self.rows()
        workspace = self.pool(tmp_path / "pool", rows, 1)
        found = self.said(workspace)
        with open_database(tmp_path) as connection:
            program, pool = compiled(workspace, {NAME: self.rule}, self.models, connection)
            rule = program.rules[0]
            bound = rule.bind(found.learned, RuleFiles(workspace, NAME, 0))
            try:
                (batch,) = pool.scan(program.columns())
                parts = [batch.table.slice(i, 1) for i in range(0, batch.table.num_rows, 9)]
                if rule.any_order:
                    parts.append(batch.table.take(np.random.default_rng(0).permutation(batch.table.num_rows)))
                parts.append(batch.table.slice(0, 0))
                for part in parts:
                    values = evaluate(connection, part, rule.expressions[: rule.judged])
                    mine = [values[e.sql] for e in rule.expressions[: rule.judged]]
                    truth = bound.judge(Rows(mine, part["uid"])).truth
                    expected = [found.verdicts[uid][0] for uid in part["uid"].to_pylist()]
                    assert in_words(truth) == expected
            finally:
                bound.close()

    def test_behind_another_rule_it_sees_what_that_left(self, tmp_path: Path) -> None:
        """In a ``then`` a rule says what it says about a pool of nothing but the rows in its scope."""
        rows = self.rows()
        half = pa.array([int(uid[0], 16) < 8 for uid in rows["uid"].to_pylist()])
        there = self.pool(tmp_path / "all", rows)
        here = self.pool(tmp_path / "half", rows.filter(half))
        found = self.said(there, rules={"half": "uid < '8'"}, keep={"then": ["half", NAME]})
        alone = self.said(here)
        in_scope = {uid: found.verdicts[uid] for uid in alone.verdicts}
        assert in_scope == alone.verdicts

    def test_where_no_row_is_in_scope(self, tmp_path: Path) -> None:
        """Nothing is learned of nothing, and nothing fails."""
        rows = self.rows()
        workspace = self.pool(tmp_path / "pool", rows)
        self.said(workspace, rules={"nobody": "uid < '0'"}, keep={"then": ["nobody", NAME]})

    def test_under_another_name_it_is_the_same_rule(self, tmp_path: Path) -> None:
        """As in a grid, where a rule is compiled under its own name and renamed."""
        workspace = self.pool(tmp_path / "pool", self.rows(), 1)
        with open_database(tmp_path) as connection:
            program, pool = compiled(workspace, {NAME: self.rule}, self.models, connection)
            verdicts = []
            for number, name in enumerate((NAME, "renamed")):
                rules = tuple(replace(rule, name=name) for rule in program.rules)
                renamed = Program(NAME, rules, {"all": [name]}, {})
                folder = tmp_path / f"{number}"
                folder.mkdir()
                learned, _ = learn(renamed, pool, connection, folder)
                with Judge(renamed, pool, learned, connection) as judge:
                    verdicts.append([j.verdicts[name].passed.tolist() for j in judge.all_shards()])
        assert verdicts[0] == verdicts[1]

    def test_what_it_learned_judges_another_pool(self, tmp_path: Path) -> None:
        """Of a kind that is transferable: half the pool has the verdicts that it has in the whole."""
        settings = self.settings
        if not settings.transferable:
            return
        rows = self.rows()
        half = rows.filter(pa.array([int(uid[-1], 16) < 8 for uid in rows["uid"].to_pylist()]))
        whole = self.said(self.pool(tmp_path / "whole", rows))
        form = settings.load_implementation().learned_form(settings)
        assert form.values, "a transferable kind says what it learns"
        assert all(key in whole.learned and test(whole.learned[key]) for key, test in form.values.items())
        assert bool(form.file) == ("file" in whole.learned)
        here = self.said(self.pool(tmp_path / "half", half), given=whole)
        assert here.verdicts == {uid: whole.verdicts[uid] for uid in half["uid"].to_pylist()}

    def test_explain_agrees_with_the_filter(self, tmp_path: Path) -> None:
        """Sample by sample, with the rule's verdict and the reason."""
        rows = self.rows()
        workspace = self.pool(tmp_path / "pool", rows)
        mine = experiment(self.rule)
        run_filter(workspace, NAME, mine, self.models)
        found = self.said(workspace).verdicts
        selection = Selection(workspace, NAME)
        shards = Committed(workspace).shards()
        kept: dict[str, int] = {}
        for shard in shards:
            table = selection.read(shard)
            kept |= dict(zip(table["uid"].to_pylist(), table["repeats"].to_pylist(), strict=True))
        for uid in rows["uid"].to_pylist()[::11]:
            said = verdict(workspace, NAME, mine, self.models, (), uid)
            (rule,) = said.rules
            assert (rule.result, kept.get(uid, 0)) == found[uid]
            assert said.kept == (uid in kept)
            expected = {"pass": None, "fail": NAME, "missing": "missing_score"}[rule.result]
            assert said.reason == expected

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        """Is told with the place of the rule."""
        rows = self.rows()
        with open_database(tmp_path) as connection:
            program, _ = compiled(self.pool(tmp_path / "a", rows), {NAME: self.rule}, self.models, connection)
            if program.all_columns():
                bare = write_pool(tmp_path / "b", rows.select(["uid"]))
                with pytest.raises(UserError, match=rf"filter\.experiments\.{NAME}\.rules\.{NAME}\b"):
                    compiled(bare, {NAME: self.rule}, (), connection)


def in_words(truth: Truth) -> list[str]:
    """``pass``, ``fail`` or ``missing`` for each row."""
    words = np.where(truth.passed, "pass", np.where(truth.failed, "fail", "missing"))
    return [str(word) for word in words]


def experiment(rule: Any, **more: Any) -> Experiment:
    """An experiment with one rule."""
    return Experiment.model_validate({"rules": {NAME: rule}, **more})


def compiled(
    workspace: Workspace, rules: Mapping[str, Any], models: tuple[str, ...], connection: Database, **more: Any
) -> tuple[Program, Pool]:
    """An experiment on the pool of a workspace."""
    committed = Committed(workspace)
    shards = committed.shards()
    columns = committed.columns(shards[0], models, ())
    mine = Experiment.model_validate({"rules": rules, **more})
    return compile_experiment(NAME, mine, columns, connection), Pool(workspace, tuple(shards), columns)


def blanked(rows: pa.Table, columns: set[str], uids: set[str], nothing: float | None) -> pa.Table:
    """A table without values in some columns of some rows; NaN only where a column can hold it."""
    blank = [uid in uids for uid in rows["uid"].to_pylist()]
    for name in columns:
        kind = rows.schema.field(name).type
        value = nothing if pa.types.is_floating(kind) else None
        values = [value if b else v for b, v in zip(blank, rows[name].to_pylist(), strict=True)]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, kind))
    return rows


def run_filter(workspace: Workspace, name: str, mine: Experiment, models: tuple[str, ...] = ()) -> None:
    """Run an experiment as the engine does."""
    stage = FilterStage(name, mine, models, ())
    (unit,) = stage.units(workspace)
    outcome = stage.run(workspace, unit)
    commit(workspace, stage.name, unit.name, outcome.outputs, unit.inputs)
