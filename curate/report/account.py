"""What the page shows of an experiment's account: what rules drop together, and rows by their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from curate.rules.account.reading import Overlap, Part, Parts

LISTED = 12
"""Values with a line of their own."""


def overlap_table(overlap: Overlap | None) -> dict[str, Any]:
    """A line for every rule: of what it drops, how much the others drop as well. Empty for a rule alone."""
    if overlap is None or len(overlap.rules) < 2 or not any(map(any, overlap.both)):
        return {}
    lines = []
    for i, (name, both) in enumerate(zip(overlap.rules, overlap.both, strict=True)):
        cells = [
            {"n": n, "share": n / both[i] if both[i] else None, "own": i == j} for j, n in enumerate(both)
        ]
        lines.append({"name": name, "cells": cells})
    return {"rules": overlap.rules, "lines": lines}


def parts_table(parts: Parts) -> dict[str, Any]:
    """A line for each of the most frequent values, one for all others and one for none.

    Reasons are columns, the most frequent first; shares are of the rows of a line.
    """
    few, rest = parts.values[:LISTED], [*parts.values[LISTED:], parts.other]
    together = _together(_others(parts), rest)
    nothing = _together("no value", [parts.unknown])
    shown = [*few, *(p for p in (together, nothing) if p.rows)]
    dropped: Counter[str] = Counter()
    for part in shown:
        dropped.update(part.reasons)
    reasons = sorted(dropped, key=lambda r: (-dropped[r], r))
    most = max((p.rows for p in shown), default=0)
    return {
        "column": parts.column,
        "reasons": reasons,
        "repeats": any(p.total != p.kept for p in shown),
        "lines": [{**_line(part, reasons, most), "value": i < len(few)} for i, part in enumerate(shown)],
    }


def _others(parts: Parts) -> str:
    if parts.others is None:
        return "all others"
    return f"{len(parts.values[LISTED:]) + parts.others:,} others"


def _together(name: str, parts: Iterable[Part]) -> Part:
    rows = kept = total = 0
    reasons: Counter[str] = Counter()
    for part in parts:
        rows, kept, total = rows + part.rows, kept + part.kept, total + part.total
        reasons.update(part.reasons)
    return Part(name, rows, kept, total, reasons)


def _line(part: Part, reasons: Sequence[str], most: int) -> dict[str, Any]:
    counts = [part.reasons.get(reason, 0) for reason in reasons]
    return {
        "name": part.name,
        "n": part.rows,
        "kept": part.kept,
        "total": part.total,
        "share": part.kept / part.rows,
        "widths": [100 * part.kept / most, 100 * (part.rows - part.kept) / most],
        "cells": [{"n": n, "share": n / part.rows} for n in counts],
    }
