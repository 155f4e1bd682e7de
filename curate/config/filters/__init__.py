"""Filter experiments as data: named rules over columns, and how they combine.

A rule is a mapping that is told by its first key, see ``curate.config.rules``::

    clip:   {where: "similarity >= 0.3"}          # a SQL boolean expression (DuckDB)
    top:    {top: similarity, fraction: 0.3}      # the best 30 %, exactly floor(f * n)
    unique: {dedup: [sha256], highest: similarity}  # one row per key
    other:  {experiment: basic}                   # what another experiment kept

``keep`` combines rule names with ``all``, ``any``, ``not`` and ``then``; without it every rule must hold.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from curate.config.base import RuleName, Settings
from curate.config.filters.frozen import Frozen
from curate.config.filters.keep import Keep, rule_names, scopes
from curate.config.rules.base import Rule

__all__ = ["Experiment", "Frozen", "Keep", "Rule", "rule_names", "scopes"]


class Experiment(Settings):
    """Named rules and their combination."""

    description: str = Field("", description="One line for the report.")
    rules: dict[RuleName, Rule] = Field(min_length=1, description="Name → rule; the name is the drop reason.")
    keep: Keep | None = Field(None, description="Combination by all/any/not/then. Default: all rules.")
    frozen: Frozen | None = Field(
        None, description="URL of another workspace: quantiles, cuts and counts are those it learned there."
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _keep_combines(cls, value: Any) -> Any:
        """Told in its own words, before pydantic tells in how many ways it is none."""
        if value is not None:
            rule_names(value)
        return value

    @model_validator(mode="after")
    def _keep_names_rules(self) -> Experiment:
        for name in rule_names(self.combination()):
            if name not in self.rules:
                have = ", ".join(self.rules)
                raise ValueError(f"keep: no rule named '{name}' (rules: {have})")
        return self

    @model_validator(mode="after")
    def _something_is_frozen(self) -> Experiment:
        if self.frozen is not None and not self.transferable():
            raise ValueError(
                "frozen: no rule here learns anything that says something about another pool; score (with a "
                "quantile), top, cap, equal, sample, frequency and balance do"
            )
        return self

    def transferable(self) -> tuple[str, ...]:
        """Names of the rules whose learned numbers can judge another pool, in their order."""
        return tuple(name for name, rule in self.rules.items() if rule.transferable())

    def combination(self) -> Keep:
        """The combination in force: ``keep``, or all rules in their order."""
        return self.keep if self.keep is not None else {"all": list(self.rules)}

    def uses(self) -> tuple[str, ...]:
        """Names of the experiments this one builds on."""
        return tuple(name for rule in self.rules.values() for name in rule.experiments())
