"""Filter experiments as data: named rules over columns, and how they combine.

A rule is a mapping that is told by its first key::

    clip:   {where: "similarity >= 0.3"}          # a SQL boolean expression (DuckDB)
    top:    {top: similarity, fraction: 0.3}      # the best 30 % of all samples, exactly floor(f * n)
    unique: {dedup: [sha256], highest: similarity}  # one row per key
    other:  {experiment: basic}                   # what another experiment kept

``keep`` combines rule names with ``all``, ``any`` and ``not``; without it every rule must hold.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from curate.config.base import Settings


class WhereRule(Settings):
    """A SQL boolean expression over the columns of a sample. NULL and NaN never pass."""

    where: str = Field(min_length=1, description="DuckDB expression, e.g. `similarity >= 0.3`.")


class TopRule(Settings):
    """The best (or worst) fraction of all samples by a column: exactly floor(fraction * n) rows.

    Ties at the cut go to the smaller uid. Rows whose value is NULL or NaN are never kept; the
    fraction is still taken of all samples, as DataComp does.
    """

    top: str = Field(description="Column or numeric SQL expression.")
    fraction: float = Field(gt=0, le=1, description="Of the pool, in (0, 1].")
    lowest: bool = Field(False, description="Keep the lowest instead of the highest values.")


class DedupRule(Settings):
    """One row per key: the one with the best value of a column, ties to the smaller uid.

    Rows whose key is NULL are not duplicates of each other and pass.
    """

    dedup: tuple[str, ...] = Field(min_length=1, description="Columns or expressions that form the key.")
    highest: str | None = Field(
        None, description="Keep the row where this is highest. Default: smallest uid."
    )

    @field_validator("dedup", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ExperimentRule(Settings):
    """The selection of another experiment of the same config."""

    experiment: str


_RULES = {"where": "where", "top": "top", "dedup": "dedup", "experiment": "experiment"}


def _kind(value: Any) -> str | None:
    keys = value if isinstance(value, dict) else type(value).model_fields
    return next((tag for key, tag in _RULES.items() if key in keys), None)


Rule = Annotated[
    Annotated[WhereRule, Tag("where")]
    | Annotated[TopRule, Tag("top")]
    | Annotated[DedupRule, Tag("dedup")]
    | Annotated[ExperimentRule, Tag("experiment")],
    Discriminator(
        _kind,
        custom_error_type="unknown_rule",
        custom_error_message="a rule needs one of the keys: where, top, dedup, experiment",
    ),
]

Keep = str | dict[str, Any]


class Experiment(Settings):
    """Named rules and their combination."""

    description: str = Field("", description="One line for the report.")
    rules: dict[str, Rule] = Field(min_length=1, description="Name → rule; the name is the drop reason.")
    keep: Keep | None = Field(None, description="Combination by all/any/not. Default: all rules.")

    @model_validator(mode="before")
    @classmethod
    def _bare_sql(cls, value: Any) -> Any:
        """A rule given as a plain string is a ``where``."""
        if isinstance(value, dict) and isinstance(value.get("rules"), dict):
            rules = {k: {"where": v} if isinstance(v, str) else v for k, v in value["rules"].items()}
            return {**value, "rules": rules}
        return value

    @model_validator(mode="after")
    def _keep_names_rules(self) -> Experiment:
        for name in rule_names(self.combination()):
            if name not in self.rules:
                have = ", ".join(self.rules)
                raise ValueError(f"keep: no rule named '{name}' (rules: {have})")
        return self

    def combination(self) -> Keep:
        """The combination in force: ``keep``, or all rules in their order."""
        return self.keep if self.keep is not None else {"all": list(self.rules)}

    def uses(self) -> tuple[str, ...]:
        """Names of the experiments this one builds on."""
        return tuple(r.experiment for r in self.rules.values() if isinstance(r, ExperimentRule))


def rule_names(keep: Keep) -> list[str]:
    """Rule names in a combination, in order of appearance.

    Raises:
        ValueError: the combination is not made of names, ``all``, ``any`` and ``not``.
    """
    if isinstance(keep, str):
        return [keep]
    if not isinstance(keep, dict) or len(keep) != 1:
        raise ValueError(f"keep: expected a rule name or one of all/any/not, got {keep!r}")
    (word, parts), *_ = keep.items()
    if word == "not":
        return rule_names(parts)
    if word in ("all", "any") and isinstance(parts, list) and parts:
        return [name for part in parts for name in rule_names(part)]
    raise ValueError(f"keep: expected all: [..], any: [..] or not: name, got {word}: {parts!r}")
