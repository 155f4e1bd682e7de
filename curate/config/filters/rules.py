"""The kinds of rules as data. Each is told by its first key; ``docs/filters.md`` has an example of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from curate.config.base import Settings

_SEED = "Another seed draws other rows."
_DIGEST = "128-bit BLAKE2b of the file: another file is an error. Default: whatever is there; it is recorded."


_FRACTION = Field(None, gt=0, le=1, description="In (0, 1]: exactly floor(fraction * rows) rows.")
_COUNT = Field(None, ge=1, description="Instead: this many rows, or all if there are fewer.")
_HIGHEST = Field(
    None, description="Prefer rows where this is highest. Default, and of equals: the smallest uid."
)
_LOWEST = Field(None, description="Instead: prefer rows where this is lowest.")
_VALUES = Field(None, min_length=1, description="The values themselves.")
_FILE = Field(
    None, description="Instead: `.npy` (also DataComp's u8,u8 uids), `.parquet`, or text, a value a line."
)
_COLUMN = Field(None, description="Column of a parquet file. Default: its only one, or `uid`.")


def _one_of(rule: Settings, *names: str) -> None:
    if sum(getattr(rule, name) is not None for name in names) != 1:
        raise ValueError("give either " + " or ".join(f"`{name}`" for name in names))


def _no_booleans(values: Any) -> Any:
    """YAML takes a bare ``no`` (Norwegian) for a truth value."""
    if isinstance(values, list | tuple) and any(isinstance(v, bool) for v in values):
        raise ValueError("yes, no, on, off, true and false are truth values in YAML: put them in quotes")
    return values


def _one_preference(rule: DedupRule | NearRule | SemDedupRule | CapRule | EqualRule) -> None:
    if rule.highest is not None and rule.lowest is not None:
        raise ValueError("give `highest` or `lowest`, not both")


class WhereRule(Settings):
    """A SQL boolean expression over the columns of a sample. NULL and NaN never pass."""

    where: str = Field(min_length=1, description="DuckDB expression, e.g. `similarity >= 0.3`.")


class ScoreRule(Settings):
    """Bounds of one column, as numbers or as quantiles of the rows that it looks at."""

    score: str = Field(description="Column or numeric SQL expression.")
    min: float | None = Field(None, allow_inf_nan=False, description="Keeps values >= this.")
    max: float | None = Field(None, allow_inf_nan=False, description="Keeps values <= this.")
    above: float | None = Field(None, allow_inf_nan=False, description="Keeps values > this.")
    below: float | None = Field(None, allow_inf_nan=False, description="Keeps values < this.")
    min_quantile: float | None = Field(
        None, ge=0, lt=1, description="Keeps values >= this quantile; 0.7 keeps the upper 30 % and ties."
    )
    max_quantile: float | None = Field(
        None, gt=0, le=1, description="Keeps values <= this quantile; 0.7 keeps the lower 70 % and ties."
    )

    @model_validator(mode="after")
    def _has_bounds(self) -> ScoreRule:
        given = {
            n: v for n in type(self).model_fields if n != "score" and (v := getattr(self, n)) is not None
        }
        if not given:
            raise ValueError("a score needs a bound: min, max, above, below, min_quantile or max_quantile")
        for low, high in (("min", "max"), ("min_quantile", "max_quantile")):
            if low in given and high in given and given[low] > given[high]:
                raise ValueError(f"`{low}` is greater than `{high}`: nothing could pass")
        return self


class TopRule(Settings):
    """The best (or worst) fraction of the rows by a column: exactly floor(fraction * n) rows.

    Ties at the cut go to the smaller uid. Rows whose value is NULL or NaN are never kept; the
    fraction is still taken of all rows, as DataComp does.
    """

    top: str = Field(description="Column or numeric SQL expression.")
    fraction: float | None = _FRACTION
    count: int | None = _COUNT
    lowest: bool = Field(False, description="Keep the lowest instead of the highest values.")
    by: str | None = Field(None, description="Column or expression: so many of each group.")
    of: Literal["left", "pool"] = Field(
        "left",
        description="Inside a `then`, what the fraction is of: what the parts before left, or the pool.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> TopRule:
        _one_of(self, "fraction", "count")
        if self.by is not None and self.of == "pool":
            raise ValueError("`of: pool` and `by` do not go together: a group is counted where it is cut")
        return self


class DedupRule(Settings):
    """One row per key: the one with the best value of a column, ties to the smaller uid.

    Rows whose key is NULL are not duplicates of each other and pass.
    """

    dedup: tuple[str, ...] = Field(min_length=1, description="Columns or expressions that form the key.")
    highest: str | None = _HIGHEST
    lowest: str | None = _LOWEST

    @field_validator("dedup", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> DedupRule:
        _one_preference(self)
        return self


class NearRule(Settings):
    """One row of those whose 64-bit hashes (pHash, dHash) differ in few bits.

    In order of preference a row stays unless one that stays already is within the distance.
    """

    near: str = Field(description="Column of 64-bit hashes.")
    distance: int = Field(ge=0, le=16, description="So many differing bits are still one picture.")
    highest: str | None = _HIGHEST
    lowest: str | None = _LOWEST

    @model_validator(mode="after")
    def _consistent(self) -> NearRule:
        _one_preference(self)
        return self


class SemDedupRule(Settings):
    """SemDeDup: one row of those in a cluster whose embeddings are nearly the same."""

    semdedup: str = Field(description="Alias of a model of `embed.models`.")
    cluster: str = Field(description="Column with the number of a row's cluster, of a `cluster` scorer.")
    epsilon: float = Field(
        gt=0, le=2, description="Drops a row whose cosine with a better one is > 1 - this."
    )
    modality: Literal["image", "text"] = Field("image", description="Which embedding of the sample.")
    highest: str | None = _HIGHEST
    lowest: str | None = _LOWEST

    @model_validator(mode="after")
    def _consistent(self) -> SemDedupRule:
        _one_preference(self)
        return self


class ExperimentRule(Settings):
    """The selection of another experiment of the same config, with its repeats."""

    experiment: str


class InRule(Settings):
    """Rows whose value is listed: languages, hosts, uids, clusters that hold a target."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    in_: str = Field(alias="in", description="Column or SQL expression: text or whole number.")
    values: Annotated[tuple[int | str, ...] | None, BeforeValidator(_no_booleans)] = _VALUES
    file: str | None = _FILE
    column: str | None = _COLUMN
    digest: str | None = Field(None, description=_DIGEST)

    @model_validator(mode="after")
    def _consistent(self) -> InRule:
        _one_of(self, "values", "file")
        return self

    def facts(self) -> dict[str, Any]:
        """As it is written: with the key ``in``."""
        facts = super().facts()
        return {"in": facts.pop("in_"), **facts}


class NotInRule(Settings):
    """Rows whose value is not listed: block lists, removal requests."""

    not_in: str = Field(description="Column or SQL expression: text or whole number.")
    values: Annotated[tuple[int | str, ...] | None, BeforeValidator(_no_booleans)] = _VALUES
    file: str | None = _FILE
    column: str | None = _COLUMN
    digest: str | None = Field(None, description=_DIGEST)

    @model_validator(mode="after")
    def _consistent(self) -> NotInRule:
        _one_of(self, "values", "file")
        return self


class EntitiesRule(Settings):
    """Captions with a word of a list; with WordNet, DataComp's text-based filter."""

    entities: str = Field(
        description="File: a word a line or, with `wordnet`, synset ids such as `n02084071`."
    )
    wordnet: str | None = Field(
        None,
        description="WordNet's `dict` folder (index.noun, noun.exc, …): words stand for their first synset.",
    )
    column: str = Field("text", description="Column or expression with the caption.")
    digest: str | None = Field(None, description=_DIGEST)
    wordnet_digest: str | None = Field(None, description="The same for all WordNet files together.")


class FrequencyRule(Settings):
    """Rows whose value occurs so many times among the rows that it looks at."""

    frequency: str = Field(description="Column or expression whose values are counted, e.g. `text`.")
    at_most: int | None = Field(None, ge=1, description="Keeps values that occur at most this often.")
    at_least: int | None = Field(None, ge=1, description="Keeps values that occur at least this often.")

    @model_validator(mode="after")
    def _has_bounds(self) -> FrequencyRule:
        if self.at_most is None and self.at_least is None:
            raise ValueError("give `at_most`, `at_least` or both")
        if self.at_most is not None and self.at_least is not None and self.at_most < self.at_least:
            raise ValueError("`at_least` is greater than `at_most`: nothing could pass")
        return self


class CapRule(Settings):
    """At most so many rows of each group: of a cluster, of a host. Drawn, or the best by a column."""

    cap: str = Field(description="Column or expression that names the group.")
    at_most: int = Field(ge=1, description="Rows of a group.")
    highest: str | None = _HIGHEST
    lowest: str | None = _LOWEST
    seed: int = Field(0, ge=0, description=_SEED)

    @model_validator(mode="after")
    def _consistent(self) -> CapRule:
        _one_preference(self)
        return self


class EqualRule(Settings):
    """As many rows of each group as the smallest group has. Drawn, or the best by a column."""

    equal: str = Field(description="Column or expression that names the group, e.g. `source`.")
    highest: str | None = _HIGHEST
    lowest: str | None = _LOWEST
    seed: int = Field(0, ge=0, description=_SEED)

    @model_validator(mode="after")
    def _consistent(self) -> EqualRule:
        _one_preference(self)
        return self


class BalanceRule(Settings):
    """MetaCLIP's balancing: captions by the entries they contain, no entry much more often than `t` times."""

    balance: str = Field(description="Column or expression with the caption.")
    entries: str = Field(description="File of the metadata: text with an entry a line, or a JSON list.")
    t: int = Field(20_000, ge=1, description="Entries that match more captions than this are thinned out.")
    seed: int = Field(0, ge=0, description=_SEED)
    digest: str | None = Field(None, description=_DIGEST)


class SampleRule(Settings):
    """Rows drawn without replacement."""

    sample: str = Field(description="`uniform`, or a column or expression with the weight of a row.")
    fraction: float | None = _FRACTION
    count: int | None = _COUNT
    seed: int = Field(0, ge=0, description=_SEED)

    @model_validator(mode="after")
    def _consistent(self) -> SampleRule:
        _one_of(self, "fraction", "count")
        return self


class SoftCapRule(Settings):
    """Soft cap sampling: rows drawn again and again by softmax, each time a little less likely."""

    soft_cap: str = Field(description="Column or expression with the score, a logit.")
    count: int | None = Field(
        None, ge=1, le=2**40, description="Draws in all. Default: one for each row it looks at."
    )
    alpha: float = Field(0.15, ge=0, allow_inf_nan=False, description="What a draw takes from the score.")
    batch: int = Field(100_000, ge=1, description="Different rows that are drawn together.")
    seed: int = Field(0, ge=0, description=_SEED)


class HardCapRule(Settings):
    """Hard cap sampling: rows drawn with replacement by softmax, each at most so many times."""

    hard_cap: str = Field(description="Column or expression with the score, a logit.")
    count: int | None = Field(None, ge=1, description="Draws in all. Default: one for each row it looks at.")
    at_most: int = Field(15, ge=1, le=10_000, description="Copies of a row.")
    seed: int = Field(0, ge=0, description=_SEED)


RULE_KEYS = {
    "where": "where",
    "top": "top",
    "dedup": "dedup",
    "experiment": "experiment",
    "score": "score",
    "in": "in_",
    "in_": "in_",
    "not_in": "not_in",
    "entities": "entities",
    "frequency": "frequency",
    "cap": "cap",
    "equal": "equal",
    "balance": "balance",
    "sample": "sample",
    "soft_cap": "soft_cap",
    "hard_cap": "hard_cap",
    "near": "near",
    "semdedup": "semdedup",
}
"""The key that tells a rule → the tag of its kind: the name of that field."""


def _kind(value: Any) -> str | None:
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", ())
    return next((tag for key, tag in RULE_KEYS.items() if key in keys), None)


Rule = Annotated[
    Annotated[WhereRule, Tag("where")]
    | Annotated[TopRule, Tag("top")]
    | Annotated[DedupRule, Tag("dedup")]
    | Annotated[ExperimentRule, Tag("experiment")]
    | Annotated[ScoreRule, Tag("score")]
    | Annotated[InRule, Tag("in_")]
    | Annotated[NotInRule, Tag("not_in")]
    | Annotated[EntitiesRule, Tag("entities")]
    | Annotated[FrequencyRule, Tag("frequency")]
    | Annotated[CapRule, Tag("cap")]
    | Annotated[EqualRule, Tag("equal")]
    | Annotated[BalanceRule, Tag("balance")]
    | Annotated[SampleRule, Tag("sample")]
    | Annotated[SoftCapRule, Tag("soft_cap")]
    | Annotated[HardCapRule, Tag("hard_cap")]
    | Annotated[NearRule, Tag("near")]
    | Annotated[SemDedupRule, Tag("semdedup")],
    Discriminator(
        _kind,
        custom_error_type="unknown_rule",
        custom_error_message="a rule needs one of the keys: "
        + ", ".join(key for key in RULE_KEYS if key != "in_"),
    ),
]
