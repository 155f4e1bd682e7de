"""What the settings of every kind of rule have in common, and fields that several of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from curate.config.base import Settings
from curate.config.kinds import KindOf, KindSettings, OpenSet

CODE_VERSION = "code-version"
"""Key of facts: no name of a field has a hyphen."""


class RuleSettings(KindSettings):
    """Settings of one kind of rule. The first of its keys is its kind.

    ``implementation`` names a ``curate.rules.contract.Rule``, whose ``compile`` makes a rule of these
    settings.

    Attributes:
        code_version: to be raised when the same rows get another verdict than before.
        file_keys: keys that name files outside the workspace → the keys that have the digests of what is in
            them, which decides the verdicts. Both are keys of these settings; the digest a user gives is
            checked, the one that is found is recorded.
    """

    code_version: ClassVar[int] = 1
    file_keys: ClassVar[Mapping[str, str]] = {}

    def facts(self) -> dict[str, Any]:
        """See ``KindSettings.facts``; also the version of the code, where it is not the first."""
        facts = super().facts()
        return facts if self.code_version == 1 else {**facts, CODE_VERSION: self.code_version}

    def transferable(self) -> bool:
        """Whether what it learns of one pool says anything about the rows of another.

        Of a rule that only knows which uids of its own pool go, it does not.
        """
        return False

    def urls_of(self, key: str) -> tuple[str, ...]:
        """The files that one of ``file_keys`` names; none when it is not given."""
        url = getattr(self, key)
        return () if url is None else (url,)

    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments whose selections it builds on."""
        return ()


RULES = OpenSet(
    "rule",
    RuleSettings,
    "curate.config.rules",
    "curate.rules",
    text="where",
    first=("where", "top", "dedup", "experiment", "score"),
)

Rule = Annotated[RuleSettings, KindOf(RULES)]
"""A field that is a rule of any kind; a bare text is a ``where``."""

Number = Annotated[str, Field(description="Column or numeric SQL expression.")]
Fraction = Annotated[
    float | None, Field(gt=0, le=1, description="In (0, 1]: exactly floor(fraction * rows) rows.")
]
Count = Annotated[int | None, Field(ge=1, description="Instead: this many rows, or all if there are fewer.")]
Highest = Annotated[
    str | None,
    Field(description="Prefer rows where this is highest. Default, and of equals: the smallest uid."),
]
Lowest = Annotated[str | None, Field(description="Instead: prefer rows where this is lowest.")]
Seed = Annotated[int, Field(ge=0, description="Another seed draws other rows.")]
Digest = Annotated[
    str | None,
    Field(
        description="128-bit BLAKE2b of the file: another file is an error. Default: whatever is there; it "
        "is recorded."
    ),
]


def give_one(settings: Settings, *keys: str) -> None:
    """Raises ValueError unless exactly one of these keys has a value."""
    if sum(getattr(settings, key) is not None for key in keys) != 1:
        raise ValueError("give either " + " or ".join(f"`{key}`" for key in keys))


def give_one_preference(settings: Any) -> Any:
    """Raises ValueError when settings have both ``highest`` and ``lowest``."""
    if settings.highest is not None and settings.lowest is not None:
        raise ValueError("give `highest` or `lowest`, not both")
    return settings
