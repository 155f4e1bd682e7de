"""A comparison as files of the workspace, written and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from curate.config.filters.grid import Point, text_of
from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.errors import DataError
from curate.filter.grid_counts import Counts, Totals

FACTS, TABLE, OVERLAP = "grid.json", "comparison.parquet", "overlap.npy"
LANGUAGES, POINTS = "languages.parquet", "points.yaml"

SPOKEN = pa.schema([("point", pa.string()), ("language", pa.string()), ("rows", pa.int64())])

_COLUMNS = ("point", "experiment", "kept", "total", "share")
_DIGITS = 12
"""Of a mean: what the order of a sum may change is behind them."""


@dataclass(frozen=True)
class Compared:
    """What was counted.

    Attributes:
        repeated: by how many rows repeats make each point longer, shape (points,).
        means: columns that were averaged.
        language: column that the languages are from.
        thresholds: of each point what its rules cut at.
    """

    totals: Totals
    repeated: Counts
    means: tuple[str, ...]
    language: str | None
    thresholds: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Comparison:
    """What is stored.

    Attributes:
        name: of the grid.
        rows: of the pool.
        any: rows that some point keeps.
        parameters: names of the columns of ``table`` that have parameters.
        means: columns that were averaged; ``mean_<column>`` in the table.
        thresholds: names of the columns of ``table`` that have what rules cut at.
        table: a row for every point.
        overlap: rows that two points both keep, int64, shape (points, points).
        languages: of each point language → rows, most frequent first.
    """

    name: str
    description: str
    rows: int
    any: int
    parameters: tuple[str, ...]
    means: tuple[str, ...]
    thresholds: tuple[str, ...]
    table: pa.Table
    overlap: npt.NDArray[np.int64]
    languages: tuple[dict[str, int], ...]

    def jaccard(self) -> npt.NDArray[np.float64]:
        """Of what either of two points keeps the share that both keep; NaN where neither keeps any."""
        kept = np.diagonal(self.overlap)
        either = kept[:, None] + kept[None, :] - self.overlap
        with np.errstate(invalid="ignore"):
            return self.overlap / either


def write_comparison(
    workspace: Workspace, name: str, description: str, points: Sequence[Point], compared: Compared
) -> list[FileRef]:
    """Commit everything of a grid."""
    totals = compared.totals
    parameters = _parameter_columns(points)
    thresholds = list(dict.fromkeys(key for found in compared.thresholds for key in found))
    columns: dict[str, Any] = {
        "point": pa.array([p.name for p in points], pa.string()),
        "experiment": pa.array([p.title for p in points], pa.string()),
        **{column: _values([p.parameters.get(key) for p in points]) for key, column in parameters.items()},
        "kept": pa.array(totals.kept),
        "total": pa.array(totals.kept + compared.repeated),
        "share": pa.array(totals.kept / max(totals.rows, 1)),
    }
    for i, column in enumerate(compared.means):
        columns[f"mean_{column}"] = pa.array([_mean(v) for v in totals.means()[:, i]], pa.float64())
    for key in thresholds:
        columns[f"at_{key}"] = pa.array([found.get(key) for found in compared.thresholds], pa.float64())
    facts = {
        "grid": name,
        "description": description,
        "rows": totals.rows,
        "any": totals.any,
        "parameters": list(parameters.values()),
        "means": list(compared.means),
        "thresholds": [f"at_{key}" for key in thresholds],
        "language": compared.language,
    }
    refs = [
        workspace.write_json(layout.grid_file(name, FACTS), facts),
        workspace.write_table(layout.grid_file(name, TABLE), pa.table(columns)),
        workspace.write_table(layout.grid_file(name, LANGUAGES), _spoken(points, totals)),
        workspace.write_bytes(layout.grid_file(name, POINTS), _experiments(points).encode()),
    ]
    path = layout.grid_file(name, OVERLAP)
    with workspace.writing(path) as temporary:
        with temporary.open("wb") as stream:
            np.save(stream, totals.overlap)
        refs.append(ref_of(temporary, path))
    return refs


def read_comparison(workspace: Workspace, name: str) -> Comparison:
    """What was stored of a grid.

    Raises:
        DataError: it is not there, or broken.
    """
    facts = workspace.read_json(layout.grid_file(name, FACTS))
    table = workspace.read_table(layout.grid_file(name, TABLE))
    path = layout.grid_file(name, OVERLAP)
    with workspace.open(path) as stream:
        try:
            overlap = np.load(stream, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{workspace.url}/{path}: not a whole npy file ({error})") from None
    languages: dict[str, dict[str, int]] = {point: {} for point in table["point"].to_pylist()}
    for row in workspace.read_table(layout.grid_file(name, LANGUAGES)).to_pylist():
        languages[row["point"]][row["language"]] = row["rows"]
    return Comparison(
        name,
        facts["description"],
        facts["rows"],
        facts["any"],
        tuple(facts["parameters"]),
        tuple(facts["means"]),
        tuple(facts["thresholds"]),
        table,
        overlap,
        tuple(languages.values()),
    )


def _parameter_columns(points: Sequence[Point]) -> dict[str, str]:
    """Parameter → name of its column."""
    names = dict.fromkeys(key for point in points for key in point.parameters)
    return {n: f"over_{n}" if n in _COLUMNS or n.startswith(("mean_", "at_")) else n for n in names}


def _values(values: list[Any]) -> pa.Array:
    """Numbers or truth values as such, everything else as text."""
    present = [v for v in values if v is not None]
    kinds = {type(v) for v in present}
    if len(kinds) == 1 and kinds <= {bool, int, float}:
        return pa.array(values)
    if kinds == {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array([None if v is None else text_of(v) for v in values], pa.string())


def _mean(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.{_DIGITS}g}")


def _spoken(points: Sequence[Point], totals: Totals) -> pa.Table:
    """Point, language and rows, of each point the most frequent language first."""
    rows = []
    for i, point in enumerate(points):
        counts = [(name, int(count[i])) for name, count in totals.languages.items() if count[i]]
        counts.sort(key=lambda item: (-item[1], item[0]))
        rows += [{"point": point.name, "language": name, "rows": count} for name, count in counts]
    return pa.Table.from_pylist(rows, SPOKEN)


def _experiments(points: Sequence[Point]) -> str:
    """YAML to paste under ``filter.experiments``."""
    found = {}
    for point in points:
        facts = point.experiment.model_dump(mode="json", exclude_defaults=True)
        about = point.experiment.description or point.name
        found[point.title] = {"description": about, **{k: v for k, v in facts.items() if k != "description"}}
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True)
