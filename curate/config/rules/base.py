"""What the settings of every kind of rule have in common."""

from __future__ import annotations

from curate.config.kinds import KindSettings, OpenSet


class RuleSettings(KindSettings):
    """Settings of one kind of rule. The first key of a rule in a config is its ``kind``."""


RULES = OpenSet("rule", RuleSettings, "curate.config.rules", "curate.rules")
