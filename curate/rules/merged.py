"""Many experiments as one program, so that a pool is read once for all of them.

Rules that say the same about the same rows are one rule. Each is compiled under the name that its user
gave it, because draws depend on that, and renamed afterwards: an experiment keeps in company exactly what
it keeps alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curate.config.filters import Experiment, Keep, rule_names
from curate.rules.contract import CompiledRule
from curate.rules.program import Program, compile_checked, refuse_twins
from curate.rules.sql.expressions import Checker, Expression, Want
from curate.samples.columns import Column
from curate.samples.database import Database


@dataclass(frozen=True)
class Part:
    """One of the experiments in a merged program.

    Attributes:
        keep: its combination, over the names of the merged program.
        names: its own name of a rule → the name there. Rules that its combination leaves out are not in it.
    """

    keep: Keep
    names: Mapping[str, str]


@dataclass(frozen=True)
class Merged:
    """A program whose rows are those that any of its parts keeps."""

    program: Program
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Member:
    """An experiment that is to be merged; ``place`` is its key path, which begins every message."""

    place: str
    experiment: Experiment


def compile_merged(
    name: str,
    members: Sequence[Member],
    columns: dict[str, Column],
    connection: Database,
) -> Merged:
    """Check every rule of every experiment against the columns of a pool.

    Args:
        name: of the merged program; its rules keep their files under it.

    Raises:
        UserError: a rule cannot be used; names experiment, rule and fix.
    """
    checker = _Remembering(connection, columns)
    merging = _Merging()
    parts = []
    for member in members:
        program = compile_checked(name, member.experiment, checker, member.place)
        parts.append(merging.add(program, member))
    keep: Keep = {"any": [part.keep for part in parts]}
    merged = Program(name, tuple(merging.rules.values()), keep, merging.scopes)
    refuse_twins(merged.all_columns(), members[0].place)
    return Merged(merged, tuple(parts))


class _Merging:
    def __init__(self) -> None:
        self.rules: dict[str, CompiledRule] = {}
        """Name in the merged program → rule."""
        self.scopes: dict[str, tuple[Keep, ...]] = {}
        self._known: dict[str, str] = {}
        """What tells a rule from all others → its name."""

    def add(self, program: Program, member: Member) -> Part:
        """Take in one experiment."""
        mine = {rule.name: rule for rule in program.rules}
        names: dict[str, str] = {}

        def name_of(own: str) -> str:
            if own not in names:
                # What stands in a scope comes before the rule: this ends.
                scope = tuple(_renamed(part, name_of) for part in program.scopes.get(own, ()))
                names[own] = self._named(mine[own], scope, _facts(member, own))
            return names[own]

        for own in rule_names(program.keep):
            name_of(own)
        return Part(_renamed(program.keep, name_of), names)

    def _named(self, rule: CompiledRule, scope: tuple[Keep, ...], facts: Any) -> str:
        # A rule's own name decides what it draws.
        key = json.dumps([rule.name, facts, scope], sort_keys=True, default=str)
        if key not in self._known:
            name, number = rule.name, 1
            while name in self.rules:
                number += 1
                name = f"{rule.name}#{number}"
            self._known[key] = name
            self.rules[name] = replace(rule, name=name)
            if scope:
                self.scopes[name] = scope
        return self._known[key]


def _facts(member: Member, rule: str) -> Any:
    """What decides the verdicts of a rule, besides its name and the rows in its scope."""
    experiment = member.experiment
    # What a frozen rule knows is its experiment's own.
    frozen = experiment.frozen is not None and rule in experiment.transferable()
    return [experiment.rules[rule].facts(), member.place if frozen else None]


def _renamed(keep: Keep, name_of: Callable[[str], str]) -> Keep:
    if isinstance(keep, str):
        return name_of(keep)
    ((word, inner),) = keep.items()
    return {word: _renamed(inner, name_of) if word == "not" else [_renamed(part, name_of) for part in inner]}


class _Remembering(Checker):
    """Checks an expression once, wherever it stands."""

    def __init__(self, connection: Database, columns: dict[str, Column]) -> None:
        super().__init__(connection, columns)
        self._checked: dict[tuple[str, Want], Expression] = {}

    def check(self, text: str, place: str, want: Want) -> Expression:
        """See ``Checker.check``."""
        if (text, want) not in self._checked:
            self._checked[text, want] = super().check(text, place, want)
        return replace(self._checked[text, want], place=place)
