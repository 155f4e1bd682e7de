"""What every scorer has to hold; see ``curate.score.contract.Scorer``."""

from __future__ import annotations

import json
import pickle
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curate.config.base import fingerprint
from curate.config.kinds import PLUGIN, keys_of
from curate.config.scorers.base import SCORERS, ScorerSettings
from curate.dataset.family import Family
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.engine.stage import Stage
from curate.samples.derived import compute
from curate.score.contract import Columns, RowScorer, Scorer, make_scorer
from curate.score.stage import LearnStage, ScoreStage
from curate.testing.pool import EMBED, Pool, make_pool, needs_of, run_stage

NAME = "mine"


class ScorerContract:
    """Override ``settings``, and ``changes`` when there are any: see there.

    Attributes:
        compares_samples: a sample's scores depend by definition on which others are in its shard.
        tolerance: how far a number may be off, relative to 1 or its size, in another batch or shard: a
            product of float32 matrices is rounded by their shapes. By default not at all.
        stores_nonfinite: NaN and infinities are values of its columns.
        files_decide: fields without which the scores may be the same, since what is in the files counts:
            another name or revision of one.
    """

    compares_samples: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.0
    stores_nonfinite: ClassVar[bool] = False
    files_decide: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """The scorer's section of a config, with its ``type``."""
        raise TypeError("override the fixture `settings`")

    @pytest.fixture
    def changes(self) -> Mapping[str, Mapping[str, Any]]:
        """Key → keys of the section with other values, which change nothing but that; for each key that
        is no knob. A key of None is taken out of the section."""
        return {}

    @pytest.fixture
    def pool(self) -> Pool:
        """The samples that are scored. The scorer has a value for at least one of them in each column."""
        return make_pool()

    @pytest.fixture
    def parsed(self, settings: Mapping[str, Any]) -> ScorerSettings:
        """The settings as the config has them."""
        return SCORERS.validate(settings)

    @pytest.fixture
    def scorer(self, parsed: ScorerSettings) -> Scorer[Any]:
        """The scorer under test."""
        return make_scorer(NAME, parsed)

    @pytest.fixture(autouse=True)
    def _no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever a scorer needs is there when it is made, or is on this machine."""
        connect = socket.socket.connect

        def refuse(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                raise AssertionError(f"a scorer opens a connection to {address}")
            return connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", refuse)

    def test_the_kind_is_documented(self, parsed: ScorerSettings) -> None:
        """The kind, and each of its keys; ``curate config keys`` prints that."""
        assert SCORERS.find(parsed.kind) is type(parsed)
        assert (type(parsed).__doc__ or "").strip() not in ("", (ScorerSettings.__doc__ or "").strip())
        for name, field in type(parsed).model_fields.items():
            assert name == "type" or field.description, f"{name}: Field(description=…) is missing"

    def test_a_value_for_each_sample(self, scorer: Scorer[Any], pool: Pool) -> None:
        """The columns that are declared, of the types that are declared, one value a sample."""
        made = pool.score(scorer, pool.learn(scorer))
        assert made, "no columns"
        if scorer.outputs is not None:
            assert schema_of(made) == scorer.outputs
        for name, values in made.items():
            assert len(values) == len(pool)
            assert values.null_count < len(pool), f"{name}: no sample has a value; override `pool`"

    def test_numbers_are_numbers(self, scorer: Scorer[Any], pool: Pool) -> None:
        """Not NaN, not infinite: what has no value is null."""
        for name, values in pool.score(scorer, pool.learn(scorer)).items():
            if pa.types.is_floating(values.type) and not self.stores_nonfinite:
                assert pc.all(pc.is_finite(values), min_count=0).as_py(), f"{name}: NaN or infinite"

    def test_the_same_again(self, scorer: Scorer[Any], parsed: ScorerSettings, pool: Pool) -> None:
        """By another object, and by one that was sent to a worker, which is small."""
        learned = pool.learn(scorer)
        made = pool.score(scorer, learned)
        sent = pickle.dumps(make_scorer(NAME, parsed))
        assert len(sent) < 1 << 20, "load files where they are used"
        for other in (make_scorer(NAME, parsed), pickle.loads(sent)):
            assert same_arrays(pool.learn(other), learned)
            assert same_columns(pool.score(other, learned), made)
        assert same_columns(pool.score(scorer, learned), made)

    def test_any_cut_into_shards(self, scorer: Scorer[Any], pool: Pool) -> None:
        """Gives the same bytes, by what was learned of all; an empty shard has the columns, too."""
        learned = pool.learn(scorer)
        made = pool.score(scorer, learned)
        if scorer.outputs is not None:
            assert schema_of(pool.score(scorer, learned, slice(0, 0))) == schema_of(made)
        if self.compares_samples:
            return
        for size in (1, 7, len(pool) - 1):
            starts = range(0, len(pool), size)
            parts = [pool.score(scorer, learned, slice(s, min(s + size, len(pool)))) for s in starts]
            whole = {name: joined([part[name] for part in parts]) for name in made}
            assert same_columns(whole, made, self.tolerance), f"{size} a shard"

    def test_knobs_change_nothing(self, settings: Mapping[str, Any], pool: Pool) -> None:
        """Whole numbers that are knobs, such as sizes of batches: other values, the same bytes."""
        scorer = make_scorer(NAME, SCORERS.validate(settings))
        learned = pool.learn(scorer)
        made = pool.score(scorer, learned)
        for name, field in type(scorer.settings).model_fields.items():
            if name not in scorer.settings.facts() and field.annotation is int:
                for value in (1, 5, 1000):
                    other = make_scorer(NAME, SCORERS.validate({**settings, name: value}))
                    assert fingerprint(other.facts) == fingerprint(scorer.facts)
                    assert same_arrays(pool.learn(other), learned)
                    assert same_columns(pool.score(other, learned), made, self.tolerance), f"{name}: {value}"

    def test_a_sample_of_which_nothing_is_known(self, scorer: Scorer[Any], pool: Pool) -> None:
        """Has null in every column, and costs the others nothing."""
        assert pool.empty
        for name, values in pool.score(scorer, pool.learn(scorer)).items():
            assert values.take(pa.array(pool.empty)).null_count == len(pool.empty), name

    def test_an_input_that_is_missing(self, scorer: Scorer[Any], pool: Pool) -> None:
        """Of all samples, one after the other: no exception; null everywhere when there is no other input."""
        learned, needs = pool.learn(scorer), needs_of(scorer)
        for needed in needs:
            made = pool.without(scorer, needed).score(scorer, learned)
            assert list(made) == list(pool.score(scorer, learned))
            for name, values in made.items():
                assert len(values) == len(pool)
                if len(needs) == 1:
                    assert values.null_count == len(pool), f"{name} without {needed}"

    def test_each_key_counts(
        self, settings: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """A key that is no knob is part of the fingerprint, so that changing it redoes the scores."""
        parsed = SCORERS.validate(settings)
        before = make_scorer(NAME, parsed).facts
        assert json.loads(json.dumps(before)) == before, "plain JSON values"
        rest = set(keys_of(type(parsed))) & set(parsed.facts()) - {"type", *self.files_decide}
        assert rest <= set(changes), f"give each of these another value in `changes`: {rest - set(changes)}"
        for name, keys in changes.items():
            changed = {key: value for key, value in {**settings, **keys}.items() if value is not None}
            after = make_scorer(NAME, SCORERS.validate(changed)).facts
            assert fingerprint(after) != fingerprint(before), f"{name}: not among the facts"

    def test_from_files_to_files(
        self, parsed: ScorerSettings, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As ``curate score`` does it: uids in order, the columns under the scorer's name, and nothing done
        twice unless the code or the plug-in is another."""
        workspace = Workspace(str(tmp_path / "work"))
        pool.write(workspace)
        for stage in stages(parsed):
            assert run_stage(workspace, stage) > 0
        table = pa.concat_tables(
            workspace.read_table(Family.scores(NAME).path(shard)) for shard in pool.cut(3)
        )
        scorer = make_scorer(NAME, parsed)
        made = pool.score(scorer, pool.learn(scorer))
        assert table.column_names == ["uid", *(f"{NAME}_{name}" for name in made)]
        assert table["uid"].to_pylist() == pool.samples["uid"].to_pylist()
        stored = {name: table[f"{NAME}_{name}"] for name in made}
        assert same_columns(stored, made, self.tolerance)
        assert [run_stage(workspace, stage) for stage in stages(parsed)] == [0] * len(stages(parsed))
        with monkeypatch.context() as patch:
            patch.setattr(type(scorer), "code_version", scorer.code_version + 1)
            assert todo(workspace, parsed)
        monkeypatch.setattr(type(parsed), "plugin_digest", "another")
        assert PLUGIN in stages(parsed)[-1].settings
        assert todo(workspace, parsed)

    def test_published_tables(self, scorer: Scorer[Any], pool: Pool) -> None:
        """What is ``row_local`` is computed when it is read: each column alone is what it is among all."""
        if not scorer.settings.row_local:
            pytest.skip("not computed on published tables")
        assert isinstance(scorer, RowScorer)
        given, made = pool.samples.select(scorer.columns), pool.score(scorer, {})
        for name in scorer.outputs.names:
            assert same_columns(compute(NAME, scorer, given, [name]), {name: made[name]})


def stages(settings: ScorerSettings) -> list[Stage]:
    """The stages of a scorer, made anew."""
    score = ScoreStage(NAME, settings, EMBED)
    return [LearnStage(NAME, settings, EMBED), score] if score.scorer.learns else [score]


def todo(workspace: Workspace, settings: ScorerSettings) -> bool:
    """Whether all units of the last stage are to be done again."""
    from curate.dataset.records import RecordStore

    stage = stages(settings)[-1]
    plan = make_plan(stage, workspace, RecordStore(workspace))
    return len(plan.jobs) == len(list(stage.units(workspace)))


def schema_of(columns: Columns) -> pa.Schema:
    """Names and types, in order."""
    return pa.schema([(name, values.type) for name, values in columns.items()])


def joined(parts: list[pa.Array | pa.ChunkedArray]) -> pa.ChunkedArray:
    """Arrays of one type, one after the other."""
    return pa.chunked_array([chunk for part in parts for chunk in _chunks(part)], parts[0].type)


def same_columns(one: Columns, other: Columns, tolerance: float = 0.0) -> bool:
    """Whether two sets of columns are the same: to the last bit, or their numbers to within a tolerance."""
    if schema_of(one) != schema_of(other):
        return False
    return all(_same(one[name], other[name], tolerance) for name in one)


def same_arrays(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether what was learned is the same to the last bit."""
    return list(one) == list(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.dtype != object and a.tobytes() == b.tobytes()
        for a, b in ((np.asarray(one[name]), np.asarray(other[name])) for name in one)
    )


def _chunks(values: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    yield from values.chunks if isinstance(values, pa.ChunkedArray) else [values]


def _same(one: pa.Array | pa.ChunkedArray, other: pa.Array | pa.ChunkedArray, tolerance: float) -> bool:
    pairs = list(zip(joined([one]).to_pylist(), joined([other]).to_pylist(), strict=True))
    if not (tolerance and pa.types.is_floating(one.type)):
        return all(_bits(a) == _bits(b) for a, b in pairs)
    return all(a == b or (None not in (a, b) and abs(a - b) <= tolerance * max(1, abs(a))) for a, b in pairs)


def _bits(value: Any) -> Any:
    """Of a float its bits: −0 is not 0."""
    return value.hex() if isinstance(value, float) else value
