"""Columns that are computed when they are read: what follows from other columns of the same row.

Scorers whose settings say ``row_local`` make such columns, so that published tables can be filtered by them
without any scores being stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from curate.config.scorers.base import ScorerSettings
from curate.errors import ConfigError, UserError


@runtime_checkable
class Derived(Protocol):
    """What computes them; see ``curate.score.contract.RowScorer``.

    Attributes:
        columns: columns that it reads.
        outputs: names without the scorer's prefix and types of what it computes.
    """

    columns: tuple[str, ...]
    outputs: pa.Schema
    code_version: ClassVar[int]

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the values."""

    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Mapping[str, pa.Array | pa.ChunkedArray]:
        """The wanted columns, (n,) each, and maybe others."""


def derived_of(scorers: Mapping[str, ScorerSettings]) -> dict[str, Derived]:
    """Scorer → what computes its columns, of those that are computed on the spot.

    Raises:
        UserError: one cannot be made, or computes nothing.
    """
    found: dict[str, Derived] = {}
    for name, settings in scorers.items():
        if settings.row_local:
            found[name] = settings.load_implementation()(name, settings)
            if not isinstance(found[name], Derived):
                raise ConfigError(
                    f"'{settings.kind}' is `row_local`: {settings.implementation} is no RowScorer"
                )
    return found


def derived_facts(derived: Mapping[str, Derived]) -> dict[str, Any]:
    """Scorer → what decides its columns, as JSON values: its type alone where there is no more to say."""
    found: dict[str, Any] = {}
    for name, scorer in derived.items():
        facts = {**scorer.facts, **({"code-version": scorer.code_version} if scorer.code_version > 1 else {})}
        found[name] = facts["type"] if set(facts) == {"type"} else facts
    return found


def compute(
    scorer: str, derived: Derived, samples: pa.Table, wanted: Collection[str]
) -> dict[str, pa.ChunkedArray]:
    """The wanted columns of n samples, (n,) each.

    Raises:
        UserError: they are not what was declared.
    """
    made = derived.compute(samples, wanted)
    found = {}
    for name in wanted:
        values, kind = made[name], derived.outputs.field(name).type
        if values.type != kind or len(values) != len(samples):
            raise UserError(
                f"score.scorers.{scorer}: makes {len(values)} of '{name}: {values.type}' for {len(samples)} "
                f"rows, but declares {kind}"
            )
        found[name] = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return found
