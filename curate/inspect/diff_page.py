"""A comparison of two experiments as a page for the browser."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.diff import GROUPS, Difference, Example, Group
from curate.inspect.diff_text import columns_of, effect_text, mean_text
from curate.pages.html import render
from curate.pages.pictures import thumbnails
from curate.pages.words import host_of, number, plain_link, shortened
from curate.reasons import FilterReason
from curate.text.numbers import percent

ROWS = 12
"""Columns that are shown before one asks for the rest."""
FACTS = 4
"""Columns on a card, besides the similarity: those that differ most."""
TEXT = 260
"""Characters of a caption."""
ASKED = 80
"""Characters of a condition that a card repeats."""
WIDEST = 2.0
"""The effect that fills its half of the plot."""
KINDS = dict(zip(GROUPS, ("a", "b", "both"), strict=True))

NOTES = {
    FilterReason.MISSING_SCORE.value: "a rule had no value to judge by",
    FilterReason.NOT_SELECTED.value: "dropped by the combination of rules",
}


def check_place(path: Path) -> None:
    """Before the work is done for which there is no place.

    Raises:
        UserError: no file can be written there.
    """
    if path.is_dir():
        raise UserError(f"--html {path}: is a folder; name a file, e.g. {path / 'diff.html'}")
    if not path.parent.is_dir():
        raise UserError(f"--html {path}: there is no folder {path.parent}")


def write_page(path: Path, page: str) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        path.write_bytes(page.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"--html {path}: cannot be written ({error.strerror})") from None


def diff_page(workspace: Workspace, found: Difference) -> str:
    """The page: counts, reasons, columns, languages, and examples with their pictures.

    Reads the tars of the shards that examples are of; an example whose picture cannot be read has none.
    """
    pictures = _pictures(workspace, found) if found.pictures else None
    return render("curate.inspect", "diff", view(found, pictures), {"pct": _share})


def _share(share: float) -> str:
    return percent(share).replace(" ", "\N{NO-BREAK SPACE}")


def view(found: Difference, pictures: Mapping[str, str] | None) -> dict[str, Any]:
    """All values that the template reads.

    Args:
        pictures: uid → data URL of the examples that have one; None for a pool without images.
    """
    titles = found.titles()
    groups = {
        name: {"id": name, "kind": KINDS[name], "title": titles[name], "samples": found.groups[name].samples}
        for name in GROUPS
    }
    either = sum(group.samples for group in found.groups.values())
    shown = [groups[name] for name in GROUPS if found.groups[name].samples]
    compared = [groups[name] for name in found.compared or ()]
    galleries = [_gallery(found, name, groups[name], pictures) for name in GROUPS]
    rows = [_row(found, column) for column in columns_of(found)]
    return {
        "a": found.a,
        "b": found.b,
        "pool": found.pool,
        "kept_a": found.kept_a,
        "kept_b": found.kept_b,
        "share_a": found.kept_a / found.pool if found.pool else 0.0,
        "share_b": found.kept_b / found.pool if found.pool else 0.0,
        "jaccard": found.jaccard,
        "either": either,
        "same": either == found.groups["both"].samples,
        "notes": found.notes,
        "strip": _strip(groups, either),
        "shown": shown,
        "compared": compared,
        "rows": rows[:ROWS],
        "rest": rows[ROWS:],
        "language": found.language,
        "languages": _languages(found),
        "galleries": galleries,
        "pictures": pictures is not None,
        "veiled": sum(1 for g in galleries for c in g["cards"] if c["unsafe"] and c["picture"]),
    }


def _pictures(workspace: Workspace, found: Difference) -> dict[str, str]:
    by_shard: dict[str, list[str]] = {}
    for group in found.groups.values():
        for example in group.examples:
            by_shard.setdefault(example.shard, []).append(example.uid)
    made: dict[str, str] = {}
    for shard, uids in sorted(by_shard.items()):
        made |= thumbnails(workspace, shard, uids)
    return made


def _strip(groups: Mapping[str, Mapping[str, Any]], either: int) -> list[dict[str, Any]]:
    """The groups from left to right with what both keep in the middle, on a scale of 1000."""
    parts, x = [], 0.0
    there = sum(1 for group in groups.values() if group["samples"])
    room = 1000 - 4 * max(0, there - 1)
    for name in ("only_a", "both", "only_b"):
        group = groups[name]
        share = group["samples"] / either if either else 0.0
        # A group of a few samples among millions is still to be seen.
        parts.append({**group, "share": share, "width": max(3.0, share * room) if share else 0.0})
    scale = room / total if (total := sum(part["width"] for part in parts)) else 0.0
    for part in parts:
        part["x"], width = f"{x:.2f}", part["width"] * scale
        part["width"] = f"{width:.2f}"
        x += width + 4 if width else 0.0
    return parts


def _row(found: Difference, column: str) -> dict[str, Any]:
    means = {name: found.groups[name].means.get(column) for name in GROUPS if found.groups[name].samples}
    value = found.effects.get(column)
    larger = None
    if value and found.compared:
        larger = found.compared[0] if value > 0 else found.compared[1]
    width = 100 * min(1.0, abs(value or 0.0) / WIDEST)
    marked = larger if value is not None and abs(value) >= 0.2 else None
    return {
        "column": column,
        "means": [
            {"text": "–" if m is None else mean_text(m), "kind": KINDS[name], "larger": name == marked}
            for name, m in means.items()
        ],
        "known": value is not None,
        "effect": effect_text(value),
        "size": _size(value),
        "kind": KINDS[larger] if larger else "",
        # Towards the side where the group with the larger mean is named.
        "x": f"{-width if (value or 0.0) > 0 else 0.0:.2f}",
        "width": f"{width:.2f}",
    }


def _size(value: float | None) -> str:
    bounds = ((0.8, "large"), (0.5, "medium"), (0.2, "small"))
    return next((name for bound, name in bounds if abs(value or 0.0) >= bound), "tiny")


def _languages(found: Difference) -> list[dict[str, Any]]:
    there = [name for name in GROUPS if found.groups[name].samples]
    shares = {name: found.groups[name].languages for name in there}
    known = {language for counts in shares.values() for language in counts}

    def of(language: str, name: str) -> float:
        return shares[name].get(language, 0) / found.groups[name].samples

    ordered = sorted(known, key=lambda language: (-max(of(language, name) for name in there), language))
    rows = [(language, [of(language, name) for name in there]) for language in ordered]
    rest = [1 - sum(column) for column in zip(*(share for _, share in rows), strict=True)]
    if any(share > 1e-9 for share in rest):
        rows.append(("others", [max(0.0, share) for share in rest]))
    return [
        {
            "name": language,
            "shares": [{"share": s, "kind": KINDS[n]} for s, n in zip(listed, there, strict=True)],
        }
        for language, listed in rows
    ]


def _gallery(
    found: Difference, name: str, group: Mapping[str, Any], pictures: Mapping[str, str] | None
) -> dict[str, Any]:
    samples: Group = found.groups[name]
    mine, other = {"only_a": (found.a, found.b), "only_b": (found.b, found.a)}.get(name, ("both", ""))
    expressions = {rule["rule"]: rule["expression"] for rule in samples.rules}
    facts = [column for column in columns_of(found) if column != "similarity"]
    wanted = ["similarity"] + (facts[:FACTS] if name != "both" else [])
    chips = Counter(e.reason for e in samples.examples if e.reason)
    return {
        **group,
        "mine": mine,
        "other": other,
        "reasons": [
            {
                "name": reason,
                "n": n,
                "share": n / samples.samples,
                "note": NOTES.get(reason) or expressions.get(reason, ""),
            }
            for reason, n in samples.reasons.items()
        ],
        "rules": samples.rules,
        "chips": chips.most_common(),
        "cards": [_card(example, wanted, pictures or {}, found.language) for example in samples.examples],
    }


def _card(
    example: Example, wanted: Sequence[str], pictures: Mapping[str, str], language: str | None
) -> dict[str, Any]:
    url = example.url or ""
    facts = [(name, _value(example.values[name])) for name in wanted if name in example.values]
    if language:
        facts.append(("language", example.language or "unknown"))
    return {
        "uid": example.uid,
        "text": shortened(example.text, TEXT),
        "host": host_of(url),
        "link": plain_link(url),
        "picture": pictures.get(example.uid),
        "unsafe": example.unsafe,
        "facts": facts,
        "reason": example.reason,
        "because": _because(example),
        "passed": sum(rule["result"] == "pass" for rule in example.rules),
        "rules": [{**rule, "seen": _seen(rule)} for rule in example.rules],
    }


def _because(example: Example) -> str:
    """What the rule that decided saw; of a missing value or a combination, the rules that did not pass."""
    deciding = [rule for rule in example.rules if rule["rule"] == example.reason]
    if deciding:
        asks = deciding[0]["expression"]
        needs = f"needs {asks}" if deciding[0]["kind"] in ("where", "score") and len(asks) <= ASKED else ""
        return " · ".join(part for part in (_seen(deciding[0]), needs) if part)
    missing = example.reason == FilterReason.MISSING_SCORE.value
    named = [rule["rule"] for rule in example.rules if rule["result"] == ("missing" if missing else "fail")]
    return ("no value for " if missing and named else "") + ", ".join(named)


def _seen(rule: Mapping[str, Any]) -> str:
    """The values that a rule read, and what it had learned that matters."""
    values = [f"{name} {_value(value)}" for name, value in rule["values"].items() if name not in HIDDEN]
    # A cut is known by its value; the uid that decides between ties is for `curate explain`.
    note = _UID.sub(r"\1", re.sub(rf", uid {_UID.pattern}", "", rule["note"]))
    return shortened(", ".join([*values, *([note] if note else [])]), 120)


_UID = re.compile(r"([0-9a-f]{8})[0-9a-f]{24}")

HIDDEN = {"uid", "url", "text", "caption", "sha256"}
"""Values that a card shows elsewhere, or that say nothing to a reader."""


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(float(value)) if not math.isnan(value) else "–"
    return shortened(value, 40)
