"""The contract suite of scorers finds what is wrong: each broken scorer fails the test that is about it."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import Field

from curate.config.base import knob
from curate.config.scorers.base import SCORERS, ScorerSettings
from curate.score.contract import Columns, OpenShard, RowScorer, make_scorer
from curate.testing.pool import Pool, make_pool
from curate.testing.scorers import ScorerContract

SETTINGS: Mapping[str, Any] = {"type": "size"}
CHANGES = {"scale": {"scale": 3.0}}


class SizeSettings(ScorerSettings):
    """Length of the caption: `_size`."""

    implementation: ClassVar[str] = f"{__name__}:Size"
    row_local: ClassVar[bool] = True

    type: Literal["size"]
    scale: float = Field(1.0, description="Per character.")
    batch_rows: int = knob(100, "Rows at once.")


class Size(RowScorer[SizeSettings]):
    columns = ("text",)
    outputs = pa.schema({"size": pa.float32()})

    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        scale = pa.scalar(self.settings.scale, pa.float32())
        return {"size": pc.multiply(pc.utf8_length(samples["text"]).cast(pa.float32()), scale)}


def values(samples: pa.Table) -> np.ndarray:
    lengths = pc.utf8_length(samples["text"]).to_pylist()
    return np.array([np.nan if length is None else length for length in lengths], np.float32)


class WrongType(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        return {"size": pc.utf8_length(samples["text"])}


class StoresNan(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        return {"size": pa.array(values(samples))}


class MakesUp(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        return {"size": pa.array(np.nan_to_num(values(samples)))}


class Raises(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        sizes = [float(len(text)) for text in samples["text"].to_pylist()]
        return {"size": pa.array(sizes, pa.float32())}


class SeesNeighbours(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        sizes = values(samples)
        mean = np.nanmean(sizes) if np.isfinite(sizes).any() else 0
        return {"size": pa.array(sizes - np.float32(mean), from_pandas=True)}


class SkipsRows(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        return {"size": pa.array(values(samples), from_pandas=True).drop_null()}


class Random(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        noise = np.random.default_rng().random(len(samples)).astype(np.float32)
        return {"size": pa.array(values(samples) + noise, from_pandas=True)}


class ReadsKnob(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        sizes = values(samples) * np.float32(self.settings.batch_rows)
        return {"size": pa.array(sizes, from_pandas=True)}


class ForgetsSetting(Size):
    @property
    def facts(self) -> dict[str, Any]:
        return {"type": "size"}


class HasObjectsAsFacts(Size):
    @property
    def facts(self) -> dict[str, Any]:
        return {**self.settings.facts(), "numbers": (1, 2)}


class CannotBeSent(Size):
    def __init__(self, name: str, settings: SizeSettings) -> None:
        super().__init__(name, settings)
        self.function = lambda: None


class IsLarge(Size):
    def __init__(self, name: str, settings: SizeSettings) -> None:
        super().__init__(name, settings)
        self.weights = np.zeros(1 << 20)


class Asks(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        with socket.socket() as asking:
            asking.connect(("127.0.0.1", 9))
        return super().compute(samples, wanted)


class NeverHasValue(Size):
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        return {"size": pa.nulls(len(samples), pa.float32())}


class LearnsAtRandom(Size):
    learns = True

    def learn(self, shards: Sequence[str], open_shard: OpenShard) -> Mapping[str, Any]:
        return {"seed": np.random.default_rng().random(4)}


class WantedDecides(Size):
    outputs = pa.schema({"size": pa.float32(), "other": pa.float32()})

    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        size = super().compute(samples, wanted)["size"]
        return {"size": size, "other": pc.multiply(size, pa.scalar(len(wanted), pa.float32()))}


@pytest.fixture(autouse=True)
def _known_kind() -> Iterator[None]:
    before = dict(SCORERS._added)
    SCORERS.add([SizeSettings], __file__)
    yield
    SCORERS._added = before


@pytest.fixture
def pool() -> Pool:
    return make_pool()


def suite_run(kind: type, test: str, pool: Pool, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """One test of the suite, for a scorer whose meaning is this class."""
    patch.setattr(SizeSettings, "implementation", f"{__name__}:{kind.__name__}")
    patch.setattr(SizeSettings, "load_implementation", classmethod(lambda cls: kind))
    suite, parsed = ScorerContract(), SCORERS.validate(SETTINGS)
    given = {
        "settings": SETTINGS, "changes": CHANGES, "pool": pool, "parsed": parsed, "tmp_path": tmp_path,
        "scorer": make_scorer("mine", parsed), "monkeypatch": patch,
    }  # fmt: skip
    check = getattr(suite, test)
    names = check.__code__.co_varnames[1 : check.__code__.co_argcount]
    ScorerContract._no_network.__wrapped__(suite, patch)  # type: ignore[attr-defined]
    check(**{name: given[name] for name in names})


TESTS = [name for name in vars(ScorerContract) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
def test_a_good_scorer_passes(test: str, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite_run(Size, test, pool, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (WrongType, "test_a_value_for_each_sample"),
        (SkipsRows, "test_a_value_for_each_sample"),
        (NeverHasValue, "test_a_value_for_each_sample"),
        (StoresNan, "test_numbers_are_numbers"),
        (Random, "test_the_same_again"),
        (CannotBeSent, "test_the_same_again"),
        (IsLarge, "test_the_same_again"),
        (LearnsAtRandom, "test_the_same_again"),
        (SeesNeighbours, "test_any_cut_into_shards"),
        (ReadsKnob, "test_knobs_change_nothing"),
        (MakesUp, "test_a_sample_of_which_nothing_is_known"),
        (Raises, "test_a_sample_of_which_nothing_is_known"),
        (MakesUp, "test_an_input_that_is_missing"),
        (ForgetsSetting, "test_each_key_counts"),
        (HasObjectsAsFacts, "test_each_key_counts"),
        (WantedDecides, "test_published_tables"),
        (Asks, "test_numbers_are_numbers"),
        (WrongType, "test_from_files_to_files"),
    ],
)
def test_a_broken_scorer_fails(
    kind: type, test: str, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - an assertion, or what the scorer raises
        suite_run(kind, test, pool, tmp_path, monkeypatch)
    assert not isinstance(caught.value, (NameError, AttributeError, ImportError)) or kind is CannotBeSent


def test_a_key_without_another_value_is_named(pool: Pool) -> None:
    with pytest.raises(AssertionError, match="scale"):
        ScorerContract().test_each_key_counts(SETTINGS, {})


def test_settings_have_to_be_given() -> None:
    with pytest.raises(TypeError, match="override"):
        ScorerContract.settings.__wrapped__(ScorerContract())  # type: ignore[attr-defined]


def test_rows_are_what_they_say(pool: Pool) -> None:
    assert (
        hashlib.md5(repr(make_pool().samples.to_pydict()).encode()).digest()
        == hashlib.md5(repr(pool.samples.to_pydict()).encode()).digest()
    )
    assert pool.samples["uid"].to_pylist() == sorted(set(pool.samples["uid"].to_pylist()))
    assert {tuple(pool.cut(n).values())[-1].stop for n in (1, 3, 5)} == {len(pool)}
