"""A rule of an installed package passes the contract of the built-in ones; a bad one is found out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from curate.config.rules.base import RULES, RuleSettings
from curate.rules.algorithms.draws import salt_of, uniforms, words_of
from curate.rules.contract import BoundRule, CompiledRule, Learner, Verdict
from curate.rules.logic import Truth
from curate.samples.pool import doubles
from curate.testing.rules import RuleContract

INSTALLED = Path(__file__).parent / "installed"


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(INSTALLED))
    monkeypatch.setattr(RULES, "_added", dict(RULES._added))
    RULES.add([BadRule], "here")


class TestDigits(RuleContract):
    rule = {"digits": "url", "at_most": 0.1}
    other = {"digits": "url", "at_most": 0.12}


class BadRule(RuleSettings):
    """Does what a rule must not do."""

    kind = "bad"
    implementation = f"{__name__}:Bad"

    bad: str = Field(description="What.")
    seed: int = 0


@dataclass(frozen=True)
class Bad(CompiledRule):
    settings: BadRule
    any_order = True

    @property
    def learns(self) -> bool:
        return self.settings.bad in ("learned", "scope")

    @classmethod
    def compile(cls, settings: BadRule, at: Any) -> Bad:
        return cls(at.name, at.place, settings, "bad", (at.number("score"),), 1)

    def learner(self, connection: Any, scratch: Path, files: Any) -> Learner:
        return Looks(self.settings.bad)

    def bind(self, learned: Any, files: Any) -> BoundRule:
        def judge(rows: Any) -> Verdict:
            values = doubles(rows.values[0])
            there = ~np.isnan(values)
            passed = there & (values > 0.5)
            if self.settings.bad == "batch":
                passed = there & (np.arange(len(values)) % 2 == 0)
            elif self.settings.bad == "null":
                there[:] = True
            elif self.settings.bad == "both":
                return Verdict(Truth(passed, there))
            elif self.settings.bad == "name":
                passed = there & (uniforms(words_of(rows.uids, salt_of(self.name, 0))) < 0.5)
            elif self.settings.bad == "scope":
                passed = there & (values * learned["rows"] > 99)
            return Verdict(Truth(passed, there & ~passed))

        return BoundRule(judge)


class Looks(Learner):
    def __init__(self, bad: str) -> None:
        self.bad, self.rows = bad, 0

    def add(self, batch: Any, in_scope: Any) -> None:
        self.rows += batch.table.num_rows

    def finish(self, uid_at: Any) -> Any:
        return {"rows": self.rows, "pair": (1, 2) if self.bad == "learned" else 1}, []


@pytest.mark.parametrize(
    ("bad", "test", "more"),
    [
        ("batch", "test_how_rows_are_cut_changes_nothing", (7, 64)),
        ("batch", "test_a_verdict_is_local_to_a_row", ()),
        ("null", "test_a_row_without_values", ()),
        ("both", "test_it_tells_rows_apart", ()),
        ("name", "test_under_another_name_it_is_the_same_rule", ()),
        ("learned", "test_what_it_learns_is_json", ()),
        ("scope", "test_behind_another_rule_it_sees_what_that_left", ()),
        ("same", "test_another_setting_is_another_fingerprint", ()),
    ],
)
def test_what_a_rule_must_not_do_is_found(tmp_path: Path, bad: str, test: str, more: tuple[int, ...]) -> None:
    suite = type("Suite", (RuleContract,), {"rule": {"bad": bad}, "other": {"bad": bad, "seed": 1}})()
    with pytest.raises(AssertionError):
        getattr(suite, test)(tmp_path, *more)


def test_a_field_without_a_description_is_found() -> None:
    suite = type("Suite", (RuleContract,), {"rule": {"bad": "x"}})()
    with pytest.raises(AssertionError):
        suite.test_settings()
