"""What classifiers of texts and of images share: where they run, what their outputs are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import DataError, UserError

Floats = npt.NDArray[np.floating[Any]]
Activation = Literal["sigmoid", "softmax"]

MOST_LABELS = 64
"""More outputs than that are stored only when they are chosen by name."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a classifier that are stored.

    Attributes:
        labels: column → index of the output.
        activation: what turns outputs into probabilities.
    """

    labels: dict[str, int]
    activation: Activation

    def chosen(self, logits: Floats) -> npt.NDArray[np.float32]:
        """Outputs (n, classes) → probabilities of the labels, float32 (n, labels)."""
        return probabilities(logits, self.activation)[:, list(self.labels.values())]

    def columns(self, values: Floats, missing: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
        """Probabilities (n, labels) → a column per label, float32 (n,), null where missing."""
        return {
            label: pa.array(np.ascontiguousarray(values[:, i]), mask=missing)
            for i, label in enumerate(self.labels)
        }


def choose_outputs(
    count: int,
    given: Sequence[str],
    named: Sequence[str],
    keep: Sequence[str],
    activation: Activation,
    place: str,
) -> Outputs:
    """Which of ``count`` outputs become which columns.

    Args:
        count: outputs of the model.
        given: names of the first outputs by the settings; when there are none, ``named`` by the model.
        named: the model's own names; ``class_<i>`` where it has none.
        keep: names to store; all when empty.
        activation: what turns outputs into probabilities.
        place: the config key, for messages.

    Raises:
        UserError: more names than outputs, equal names, an unknown name, or far too many columns.
    """
    if len(given) > count:
        raise UserError(f"{place}.labels: {len(given)} labels, but the model has {count} outputs")
    names = list(given) or [_column(name) or f"class_{i}" for i, name in enumerate(named)]
    names = names or [f"class_{i}" for i in range(count)]
    labels = {name: i for i, name in enumerate(names)}
    if len(labels) != len(names):
        raise UserError(f"{place}: two outputs of the model have one name; name them with `labels`")
    unknown = [name for name in keep if name not in labels]
    if unknown:
        known = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        raise UserError(f"{place}.keep: no label '{unknown[0]}' (labels: {known})")
    if not keep and len(labels) > MOST_LABELS:
        raise UserError(f"{place}: the model has {len(labels)} outputs; say which to store with `keep`")
    return Outputs({name: labels[name] for name in keep or names}, activation)


def probabilities(logits: Floats, activation: Activation) -> npt.NDArray[np.float32]:
    """Outputs (n, classes) → probabilities, computed in float64.

    Raises:
        DataError: outputs that are not finite.
    """
    wide = logits.astype(np.float64)
    if not np.isfinite(wide).all():
        raise DataError("a classifier makes outputs that are not finite")
    if activation == "sigmoid":
        small = np.exp(-np.abs(wide))
        return np.asarray(np.where(wide >= 0, 1.0, small) / (1.0 + small), np.float32)
    weights = np.exp(wide - wide.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def fetch_from_hub(repository: str, files: Sequence[Sequence[str]], revision: str | None, place: str) -> Path:
    """Folder in the hub's cache that holds files of a repository.

    Args:
        repository: ``org/name``.
        files: groups of patterns; the first group with a match is fetched, and the groups before it
            are then not there.
        revision: commit or tag.
        place: the config key, for messages.

    Raises:
        UserError: no such repository, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        for patterns in files:
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
            if folder.is_dir() and any(file for pattern in patterns for file in folder.glob(pattern)):
                return folder
    except Exception as error:  # noqa: BLE001 - errors of the hub, of HTTP and of the cache have no common base
        reason = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{place}: no folder '{repository}', and the hub has none for it ({''.join(reason)[:200]})"
        ) from None
    raise UserError(f"{place}: '{repository}' has none of the files {', '.join(files[-1])}")


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


def _column(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
