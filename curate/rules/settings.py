"""What decides the bytes of a selection, as JSON values."""

from __future__ import annotations

from typing import Any

from curate.config.filters import Experiment
from curate.rules.digests import with_digest


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """What decides the bytes of a selection, as JSON values: also the digests of the files that rules name.

    Raises:
        UserError: such a file is missing, or not the one whose digest the rule has.
    """
    facts = experiment.facts()
    if facts["frozen"] is None:
        del facts["frozen"]
    rules = {name: with_digest(name, facts["rules"][name], rule) for name, rule in experiment.rules.items()}
    # The order of the rules decides reasons; mappings lose theirs in a fingerprint.
    return {**facts, "rules": rules, "order": list(rules)}
