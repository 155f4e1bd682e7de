"""The page of a grid: a table to sort, what a parameter does to the size, how points overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.filter.grid_files import Comparison
from curate.pages.html import render

HEAT = 120
"""Points up to which the overlap is drawn."""

LINES = 12
"""Lines of the plot: combinations of the other parameters."""

LANGUAGES = 4
WIDTH, HEIGHT = 640, 260


def page_of(found: Comparison) -> str:
    """One HTML file that loads nothing."""
    rows = found.table.to_pylist()
    numbers = [*found.thresholds, *(f"mean_{column}" for column in found.means)]
    values: dict[str, Any] = {
        "name": found.name,
        "description": found.description,
        "rows": found.rows,
        "any": found.any,
        "repeats": any(row["total"] != row["kept"] for row in rows),
        "parameters": found.parameters,
        "numbers": [(name, name.replace("mean_", "mean ", 1).removeprefix("at_")) for name in numbers],
        "points": [
            {**row, "languages": _spoken(languages, row["kept"])}
            for row, languages in zip(rows, found.languages, strict=True)
        ],
        "plot": _plot(found.parameters, rows),
        "heat": None if len(rows) > HEAT or len(rows) < 2 else _heat(found),
    }
    return render("curate.filter", "grid", values)


def _spoken(languages: dict[str, int], kept: int) -> str:
    return ", ".join(f"{name} {rows / kept:.0%}" for name, rows in list(languages.items())[:LANGUAGES])


def _heat(found: Comparison) -> list[list[dict[str, Any]]]:
    """For each pair of points the share of what either keeps that both keep."""
    points = found.table["point"].to_pylist()
    return [
        [
            {"share": 0.0 if share != share else float(share), "both": int(both), "pair": f"{a} and {b}"}
            for b, share, both in zip(points, shares, overlap, strict=True)
        ]
        for a, shares, overlap in zip(points, found.jaccard(), found.overlap, strict=True)
    ]


def _plot(parameters: Sequence[str], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Rows kept over the first numeric parameter, a line for each combination of the others."""
    inside = [row for row in rows if any(row[p] is not None for p in parameters)]
    numeric = [p for p in parameters if all(_is_number(row[p]) for row in inside)]
    if not inside or not numeric:
        return None
    over = numeric[0]
    lines: dict[str, list[tuple[float, int]]] = {}
    for row in inside:
        others = ", ".join(f"{p} = {row[p]}" for p in parameters if p != over)
        lines.setdefault(others, []).append((row[over], row["kept"]))
    low, high = min(row[over] for row in inside), max(row[over] for row in inside)
    most = max(row["kept"] for row in inside) or 1
    if len(lines) > LINES or low == high:
        return None

    def place(x: float, y: int) -> tuple[float, float]:
        return round((x - low) / (high - low) * WIDTH, 1), round(HEIGHT - y / most * HEIGHT, 1)

    drawn = [
        {
            "name": name,
            "path": " ".join(f"{x},{y}" for x, y in (place(*p) for p in sorted(points))),
            "dots": [(*place(x, y), f"{over} = {x}: {y:,}") for x, y in sorted(points)],
            "hue": round(170 + 360 * i / len(lines)) % 360,
        }
        for i, (name, points) in enumerate(lines.items())
    ]
    return {"over": over, "low": low, "high": high, "most": most, "lines": drawn}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
