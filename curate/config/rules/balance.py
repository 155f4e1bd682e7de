"""Settings of the rule ``balance``: captions by the entries of a metadata list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from curate.config.rules.base import Digest, RuleSettings, Seed


class BalanceRule(RuleSettings):
    """MetaCLIP's balancing: captions by the entries they contain, no entry much more often than `t` times."""

    kind = "balance"
    implementation = "curate.rules.kinds.balance:Balance"
    file_keys: ClassVar[Mapping[str, str]] = {"entries": "digest"}

    balance: str = Field(description="Column or expression with the caption.")
    entries: str = Field(description="File of the metadata: text with an entry a line, or a JSON list.")
    t: int = Field(20_000, ge=1, description="Entries that match more captions than this are thinned out.")
    seed: Seed = 0
    digest: Digest = None

    def transferable(self) -> bool:
        """The counts of the entries say how rare each is."""
        return True
