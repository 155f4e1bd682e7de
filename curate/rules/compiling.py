"""From the rules of a config to rules that can be used: every expression checked, every file there.

Kinds of rules that most experiments do not have are imported where they are used: together they take
longer than a small experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from curate.config.filters import (
    BalanceRule,
    CapRule,
    DedupRule,
    EntitiesRule,
    EqualRule,
    ExperimentRule,
    FrequencyRule,
    HardCapRule,
    InRule,
    NearRule,
    NotInRule,
    Rule,
    SampleRule,
    ScoreRule,
    SemDedupRule,
    SoftCapRule,
    TopRule,
    WhereRule,
)
from curate.errors import UserError
from curate.rules.draws import salt_of
from curate.rules.expressions import Checker, Expression
from curate.rules.keys import key_text
from curate.rules.kinds import Compiled
from curate.rules.members import Members, checked_list
from curate.rules.preference import negated, preference
from curate.rules.scores import Sample, Score, Top
from curate.rules.simple import Other, Where

UNIFORM = "uniform"
HASHES = ("UBIGINT", "BIGINT")


def compile_rule(name: str, rule: Rule, checker: Checker, place: str) -> Compiled:
    """Check a rule.

    Args:
        name: also decides what the rule draws, with its seed.
        place: key path of the rule, begins every message.

    Raises:
        UserError: see ``Checker.check``; a file is missing; a column is of a type that the rule cannot use.
    """
    return _COMPILERS[type(rule)](rule, _Place(name, checker, place))


class _Place:
    """A rule that is being compiled."""

    def __init__(self, name: str, checker: Checker, place: str) -> None:
        self.name, self.checker, self.place = name, checker, place

    def number(self, text: str, key: str = "") -> Expression:
        return self.checker.check(text, self._at(key), "number")

    def key(self, text: str, key: str = "") -> Expression:
        return self.checker.check(text, self._at(key), "key")

    def caption(self, text: str, key: str) -> Expression:
        """An expression that is text."""
        found = self.key(text, key)
        if found.type != "VARCHAR":
            raise UserError(f"{self._at(key)}: '{text}' is {found.type}, not text")
        return found

    def _at(self, key: str) -> str:
        return f"{self.place}.{key}" if key else self.place


def _where(rule: WhereRule, at: _Place) -> Compiled:
    condition = at.checker.check(rule.where, at.place, "condition")
    return Where(at.name, at.place, condition.text, (condition,), 1)


def _score(rule: ScoreRule, at: _Place) -> Compiled:
    value = at.number(rule.score)
    signs = {"min": ">=", "above": ">", "max": "<=", "below": "<"}
    words = [
        f"{rule.score} {sign} {getattr(rule, k):g}"
        for k, sign in signs.items()
        if getattr(rule, k) is not None
    ]
    if rule.min_quantile is not None:
        words.append(f"{rule.score} >= its quantile {rule.min_quantile:g}")
    if rule.max_quantile is not None:
        words.append(f"{rule.score} <= its quantile {rule.max_quantile:g}")
    return Score(at.name, at.place, " and ".join(words), (value,), 1, rule=rule)


def _share(rule: TopRule | SampleRule) -> str:
    return f"{rule.fraction:g}" if rule.fraction is not None else f"{rule.count:,} rows"


def _top(rule: TopRule, at: _Place) -> Compiled:
    value = at.number(rule.top)
    text = f"{'lowest' if rule.lowest else 'highest'} {_share(rule)} by {value.text}"
    if rule.by is None:
        text += " of the pool" if rule.of == "pool" else ""
        return Top(
            at.name, at.place, text, (value,), 1,
            fraction=rule.fraction, count=rule.count, lowest=rule.lowest, of=rule.of,
        )  # fmt: skip
    from curate.rules.groups import TopBy

    group = key_text(at.key(rule.by, "by"))
    best = negated(value) if rule.lowest else value
    prefer = preference(at.checker, at.place, None, None)
    return TopBy(
        at.name, at.place, f"{text} of each {rule.by}", (group, best), 2,
        group=group, prefer=prefer, fraction=rule.fraction, count=rule.count,
    )  # fmt: skip


def _dedup(rule: DedupRule, at: _Place) -> Compiled:
    from curate.rules.duplicates import Dedup

    keys = tuple(at.key(k, "dedup") for k in rule.dedup)
    prefer = preference(at.checker, at.place, rule.highest, rule.lowest)
    text = f"one row per {', '.join(rule.dedup)}" + (f", {prefer.text}" if prefer.by else "")
    return Dedup(at.name, at.place, text, keys + prefer.expressions, 0, keys=keys, best=prefer.by)


def _near(rule: NearRule, at: _Place) -> Compiled:
    from curate.rules.near import Near

    hashes = at.key(rule.near)
    if hashes.type not in HASHES:
        raise UserError(f"{at.place}: '{rule.near}' is {hashes.type}, not a 64-bit hash (UBIGINT)")
    prefer = preference(at.checker, at.place, rule.highest, rule.lowest)
    text = f"one row of those within {rule.distance} bits of {rule.near}, {prefer.text}"
    expressions = (hashes, *prefer.expressions)
    return Near(at.name, at.place, text, expressions, 0, distance=rule.distance, prefer=prefer)


def _semdedup(rule: SemDedupRule, at: _Place) -> Compiled:
    from curate.rules.semdedup import SemDedup

    cluster = at.number(rule.cluster, "cluster")
    prefer = preference(at.checker, at.place, rule.highest, rule.lowest)
    text = (
        f"one row of those in a {rule.cluster} with a cosine above {1 - rule.epsilon:g} by {rule.semdedup}, "
        f"{prefer.text}"
    )
    expressions = (cluster, *prefer.expressions)
    return SemDedup(
        at.name, at.place, text, expressions, 0,
        model=rule.semdedup, modality=rule.modality, epsilon=rule.epsilon, prefer=prefer,
    )  # fmt: skip


def _experiment(rule: ExperimentRule, at: _Place) -> Compiled:
    return Other(at.name, at.place, f"kept by {rule.experiment}", (), 0, experiment=rule.experiment)


def _in(rule: InRule, at: _Place) -> Compiled:
    return _members(rule, rule.in_, True, at)


def _not_in(rule: NotInRule, at: _Place) -> Compiled:
    return _members(rule, rule.not_in, False, at)


def _members(rule: InRule | NotInRule, text: str, inside: bool, at: _Place) -> Compiled:
    value = at.key(text)
    checked_list(value, rule.values, at.place)
    listed = rule.file or ", ".join(str(v) for v in rule.values or ())
    return Members(
        at.name, at.place, f"{text} {'in' if inside else 'not in'} {listed}", (value,), 1,
        values=rule.values, file=rule.file, column=rule.column, digest=rule.digest, inside=inside,
    )  # fmt: skip


def _entities(rule: EntitiesRule, at: _Place) -> Compiled:
    from curate.rules.entities import Entities

    caption = at.caption(rule.column, "column")
    text = f"{rule.column} has a word of {rule.entities}"
    return Entities(
        at.name, at.place, text, (caption,), 1, file=rule.entities, wordnet=rule.wordnet, digest=rule.digest
    )


def _frequency(rule: FrequencyRule, at: _Place) -> Compiled:
    from curate.rules.frequency import Frequency

    value = key_text(at.key(rule.frequency))
    bounds = [f"at most {rule.at_most}"] * (rule.at_most is not None)
    bounds += [f"at least {rule.at_least}"] * (rule.at_least is not None)
    text = f"{rule.frequency} occurs {' and '.join(bounds)} times"
    return Frequency(at.name, at.place, text, (value,), 1, at_most=rule.at_most, at_least=rule.at_least)


def _cap(rule: CapRule, at: _Place) -> Compiled:
    from curate.rules.groups import Cap

    group = key_text(at.key(rule.cap))
    prefer = preference(at.checker, at.place, rule.highest, rule.lowest, salt_of(at.name, rule.seed))
    expressions = (group, *prefer.expressions)
    text = f"at most {rule.at_most} of each {rule.cap}, {prefer.text}"
    return Cap(
        at.name, at.place, text, expressions, len(expressions),
        group=group, prefer=prefer, at_most=rule.at_most,
    )  # fmt: skip


def _equal(rule: EqualRule, at: _Place) -> Compiled:
    from curate.rules.groups import Equal

    group = key_text(at.key(rule.equal))
    prefer = preference(at.checker, at.place, rule.highest, rule.lowest, salt_of(at.name, rule.seed))
    expressions = (group, *prefer.expressions)
    text = f"as many of each {rule.equal} as of the rarest, {prefer.text}"
    return Equal(at.name, at.place, text, expressions, len(expressions), group=group, prefer=prefer)


def _balance(rule: BalanceRule, at: _Place) -> Compiled:
    from curate.rules.balance import Balance

    caption = at.caption(rule.balance, "")
    text = f"{rule.balance} balanced by {rule.entries}, t = {rule.t:,}"
    return Balance(
        at.name, at.place, text, (caption,), 1,
        file=rule.entries, digest=rule.digest, t=rule.t, salt=salt_of(at.name, rule.seed),
    )  # fmt: skip


def _sample(rule: SampleRule, at: _Place) -> Compiled:
    weight = () if rule.sample == UNIFORM else (at.number(rule.sample),)
    text = f"{_share(rule)} drawn" + (f" by {rule.sample}" if weight else "")
    return Sample(
        at.name, at.place, text, weight, len(weight),
        fraction=rule.fraction, count=rule.count, salt=salt_of(at.name, rule.seed),
    )  # fmt: skip


def _draws(count: int | None) -> str:
    return "as many draws as rows" if count is None else f"{count:,} draws"


def _soft_cap(rule: SoftCapRule, at: _Place) -> Compiled:
    from curate.rules.repeated import SoftCap

    score = at.number(rule.soft_cap)
    text = f"{_draws(rule.count)} by {rule.soft_cap}, {rule.alpha:g} less for each"
    return SoftCap(
        at.name, at.place, text, (score,), 1,
        count=rule.count, salt=salt_of(at.name, rule.seed), alpha=rule.alpha, batch=rule.batch,
    )  # fmt: skip


def _hard_cap(rule: HardCapRule, at: _Place) -> Compiled:
    from curate.rules.repeated import HardCap

    score = at.number(rule.hard_cap)
    text = f"{_draws(rule.count)} by {rule.hard_cap}, at most {rule.at_most} of a row"
    return HardCap(
        at.name, at.place, text, (score,), 1,
        count=rule.count, salt=salt_of(at.name, rule.seed), at_most=rule.at_most,
    )  # fmt: skip


_COMPILERS: Mapping[type, Callable[[Any, _Place], Compiled]] = {
    WhereRule: _where,
    ScoreRule: _score,
    TopRule: _top,
    DedupRule: _dedup,
    NearRule: _near,
    SemDedupRule: _semdedup,
    ExperimentRule: _experiment,
    InRule: _in,
    NotInRule: _not_in,
    EntitiesRule: _entities,
    FrequencyRule: _frequency,
    CapRule: _cap,
    EqualRule: _equal,
    BalanceRule: _balance,
    SampleRule: _sample,
    SoftCapRule: _soft_cap,
    HardCapRule: _hard_cap,
}
