"""An experiment whose rules are checked against the columns of a pool."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from curate.config.filters import Experiment, Keep, rule_names, scopes
from curate.errors import UserError
from curate.reasons import FilterReason
from curate.rules.contract import CompiledRule, Compiling
from curate.rules.sql.expressions import Checker
from curate.samples.columns import Column
from curate.samples.database import Database
from curate.samples.pool import Uids


@dataclass(frozen=True)
class Program:
    """A checked experiment.

    Attributes:
        scopes: what a row has to pass before a rule looks at it; rules that look at the whole pool are
            not in it.
    """

    name: str
    rules: tuple[CompiledRule, ...]
    keep: Keep
    scopes: Mapping[str, tuple[Keep, ...]]

    def columns(self, rules: Collection[str] | None = None) -> list[str]:
        """Columns that judging reads, of all rules or of some; sorted."""
        judged = (
            e for r in self.rules if rules is None or r.name in rules for e in r.expressions[: r.judged]
        )
        return sorted({c for e in judged for c in e.columns})

    def uids(self, rules: Collection[str] | None = None) -> Uids:
        """The form of uids that judging needs, by all rules or by some."""
        return max((r.judges_uids for r in self.rules if rules is None or r.name in rules), default=Uids.RAW)

    def all_columns(self) -> list[str]:
        """Every column that any rule reads, sorted."""
        return sorted(set().union(*(r.columns for r in self.rules)))

    def vectors(self) -> list[tuple[str, str]]:
        """Alias and modality of all stored embeddings that rules read, sorted."""
        return sorted({v for r in self.rules for v in r.vectors})

    @property
    def any_order(self) -> bool:
        """Whether rows may come in any order."""
        return all(r.any_order for r in self.rules)

    @property
    def learns(self) -> bool:
        """Whether any rule has to see other rows first."""
        return any(r.learns for r in self.rules)

    def passes(self, given: Collection[str] = ()) -> list[list[CompiledRule]]:
        """The rules that learn, in the order of the passes over the pool that they need.

        A rule behind a rule that learns has to wait for it: it learns in the next pass. So do rules that
        hold the rows in memory, for each other.

        Args:
            given: rules that know already; nobody waits for them.
        """
        learning = {r.name: r for r in self.rules if r.learns and r.name not in given}
        level: dict[str, int] = {}

        def level_of(name: str) -> int:
            if name not in level:
                before = {n for part in self.scopes.get(name, ()) for n in rule_names(part)}
                level[name] = max((level_of(n) + 1 for n in before if n in learning), default=0)
            return level[name]

        found: list[list[CompiledRule]] = []
        for name, rule in learning.items():
            found += [[] for _ in range(level_of(name) + 1 - len(found))]
            found[level_of(name)].append(rule)
        return [rules for level in found for rules in _parted(level)]


def _parted(rules: Sequence[CompiledRule]) -> Iterator[list[CompiledRule]]:
    """Passes in which no two rules hold the rows in memory; the first one does all the rest as well."""
    later = [r for r in rules if r.holds_rows][1:]
    names = {r.name for r in later}
    yield [r for r in rules if r.name not in names]
    yield from ([r] for r in later)


def compile_experiment(
    name: str, experiment: Experiment, columns: dict[str, Column], connection: Database
) -> Program:
    """Check every rule of an experiment against the columns of a pool.

    Raises:
        UserError: a rule cannot be used; names the rule and the fix.
    """
    return compile_checked(name, experiment, Checker(connection, columns), f"filter.experiments.{name}")


def compile_checked(name: str, experiment: Experiment, checker: Checker, place: str) -> Program:
    """Check every rule of an experiment.

    Args:
        place: key path of the experiment, begins every message.

    Raises:
        UserError: see ``compile_experiment``.
    """
    rules: list[CompiledRule] = []
    for rule_name, rule in experiment.rules.items():
        at = f"{place}.rules.{rule_name}"
        if rule_name in set(FilterReason):
            raise UserError(f"{at}: '{rule_name}' is a reason of its own; give the rule another name")
        rules.append(rule.load_implementation().compile(rule, Compiling(rule_name, checker, at)))
    keep = experiment.combination()
    program = Program(name, tuple(rules), keep, _scopes(place, keep, rules))
    refuse_twins(program.all_columns(), place)
    return program


def _scopes(place: str, keep: Keep, rules: list[CompiledRule]) -> dict[str, tuple[Keep, ...]]:
    """The scope of every rule that learns inside a ``then``: it can have but one."""
    learning = {r.name for r in rules if r.learns}
    found: dict[str, tuple[Keep, ...]] = {}
    for rule, scope in scopes(keep):
        if rule in learning and found.setdefault(rule, scope) != scope:
            raise UserError(
                f"{place}.keep: '{rule}' looks at the rows that reach it and stands in two "
                "places that other rows reach; write the rule twice, under two names"
            )
    return {rule: scope for rule, scope in found.items() if scope}


def refuse_twins(columns: Iterable[str], place: str) -> None:
    """Raises UserError when SQL would take two columns for one."""
    seen: dict[str, str] = {}
    for column in columns:
        twin = seen.setdefault(column.lower(), column)
        if twin != column:
            raise UserError(
                f"{place}: columns '{twin}' and '{column}' differ in case only, "
                "which SQL does not see; drop one of them at ingest"
            )
