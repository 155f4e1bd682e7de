"""What decides the bytes of a selection, as JSON values."""

from __future__ import annotations

import hashlib
from typing import Any

from curate.config.filters import Experiment, Rule
from curate.dataset import external
from curate.errors import UserError


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """What decides the bytes of a selection, as JSON values: also the digests of the files that rules name.

    Raises:
        UserError: such a file is missing, or not the one whose digest the rule has.
    """
    facts = experiment.facts()
    if facts["frozen"] is None:
        del facts["frozen"]
    rules = {name: facts_of_rule(name, rule) for name, rule in experiment.rules.items()}
    # The order of the rules decides reasons; mappings lose theirs in a fingerprint.
    return {**facts, "rules": rules, "order": list(rules)}


def facts_of_rule(name: str, rule: Rule) -> dict[str, Any]:
    """The facts of a rule with the digests of the files that it names.

    Raises:
        UserError: no such file, or another one than the rule says.
    """
    facts = rule.facts()
    for key, digest_key in rule.file_keys.items():
        urls, place = rule.urls_of(key), f"rules.{name}.{key}"
        if urls:
            digest, expected = _digest(urls, place), getattr(rule, digest_key)
            if expected not in (None, digest):
                raise UserError(f"{place}: {getattr(rule, key)} has the digest {digest}, not {expected}")
            facts[digest_key] = digest
    return facts


def _digest(urls: tuple[str, ...], place: str) -> str:
    """The digest of a file, or of several in their order."""
    digests = [external.digest(url, place) for url in urls]
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()
