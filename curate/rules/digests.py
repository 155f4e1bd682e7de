"""Files that rules name, told by what is in them."""

from __future__ import annotations

import hashlib
from typing import Any

from curate.config.filters import BalanceRule, EntitiesRule, InRule, NotInRule, Rule
from curate.dataset import external
from curate.errors import UserError
from curate.rules.wordnet import FILES


def with_digest(name: str, facts: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """The facts of a rule, with the digest of its file when it names one.

    Raises:
        UserError: no such file, or another one than the rule says.
    """
    if isinstance(rule, InRule | NotInRule):
        return _checked(name, "file", facts, rule.file, rule.digest)
    if isinstance(rule, BalanceRule):
        return _checked(name, "entries", facts, rule.entries, rule.digest)
    if isinstance(rule, EntitiesRule):
        facts = _checked(name, "entities", facts, rule.entities, rule.digest)
        if rule.wordnet is not None:
            folder = rule.wordnet.rstrip("/")
            parts = [external.digest(f"{folder}/{file}", f"rules.{name}.wordnet") for file in FILES]
            digest = hashlib.blake2b("".join(parts).encode(), digest_size=16).hexdigest()
            return {
                **facts,
                "wordnet_digest": _same(f"rules.{name}.wordnet: {folder}", digest, rule.wordnet_digest),
            }
    return facts


def _checked(
    name: str, key: str, facts: dict[str, Any], url: str | None, expected: str | None
) -> dict[str, Any]:
    if url is None:
        return facts
    digest = external.digest(url, f"rules.{name}.{key}")
    return {**facts, "digest": _same(f"rules.{name}.{key}: {url}", digest, expected)}


def _same(place: str, digest: str, expected: str | None) -> str:
    if expected is not None and digest != expected:
        raise UserError(f"{place} has the digest {digest}, not {expected}")
    return digest
