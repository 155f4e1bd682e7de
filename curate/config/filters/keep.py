"""How rules combine: a name, or one of ``all``, ``any``, ``not``, ``then`` over combinations."""

from __future__ import annotations

from typing import Any

Keep = str | dict[str, Any]

WORDS = ("all", "any", "then")
"""The words that take a list."""


def rule_names(keep: Keep) -> list[str]:
    """Rule names in a combination, in order of appearance.

    Raises:
        ValueError: the combination is not made of names, ``all``, ``any``, ``not`` and ``then``.
    """
    if isinstance(keep, str):
        return [keep]
    if not isinstance(keep, dict) or len(keep) != 1:
        raise ValueError(
            "expected the name of a rule, or all/any/not/then of rules, e.g. {all: [a, b]}; got " + repr(keep)
        )
    (word, parts), *_ = keep.items()
    if word == "not":
        return rule_names(parts)
    if word in WORDS and isinstance(parts, list) and parts:
        return [name for part in parts for name in rule_names(part)]
    raise ValueError(f"expected all: [..], any: [..], then: [..] or not: name, got {word}: {parts!r}")


def scopes(keep: Keep, before: tuple[Keep, ...] = ()) -> list[tuple[str, tuple[Keep, ...]]]:
    """For each place of a rule what a row has passed when it gets there: the parts of ``then`` before it.

    Returns:
        Rule name and parts, in order of appearance; no parts: the whole pool.
    """
    if isinstance(keep, str):
        return [(keep, before)]
    ((word, inner),) = keep.items()
    found = []
    for part in [inner] if word == "not" else inner:
        found += scopes(part, before)
        if word == "then":
            before = (*before, part)
    return found
