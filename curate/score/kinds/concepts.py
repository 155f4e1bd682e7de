"""``type: concepts``: is a sample near to any of a list? As CiT curates (Xu et al., arXiv 2301.02241).

CiT compares a caption's embedding with those of the task's class names, without a template, and keeps
what has a cosine above 0.55 (0.7 in one run), or the best 0.3 to 5 % of a batch if none has. Its rounds
of training in between are not part of this static filter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.base import fingerprint
from curate.config.scorers.concepts import ConceptsScorer
from curate.dataset import external
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, Shard, cosine
from curate.score.devices import device_of, one_thread
from curate.score.kinds.held_out import nearest
from curate.score.vectors.compute import floats
from curate.score.vectors.files import Arrays, find_vectors


class Concepts(ColumnScorer[ConceptsScorer]):
    """Similarity with the nearest concept, its number and its name."""

    gpu = True

    def __init__(self, name: str, settings: ConceptsScorer) -> None:
        super().__init__(name, settings)
        self.vectors = ((settings.model, settings.modality),)
        self.stored = (
            find_vectors(settings.vectors, settings.key, f"{self.place}.vectors", "text")
            if settings.vectors
            else None
        )
        self.digest = external.digest(settings.file, f"{self.place}.file") if settings.file else None
        outputs = [cosine("score"), pa.field("index", pa.int32())]
        self.outputs = pa.schema([*outputs, pa.field("concept", pa.string())] if self._names() else outputs)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with digests in place of paths."""
        found = {**self.settings.facts(), "file": None, "vectors": self.stored and self.stored.digest}
        if self.digest is not None:
            found["concepts"] = fingerprint(self._names())
        return found

    def score(self, shard: Shard) -> Columns:
        """Against the encoded list, or the stored vectors."""
        ((alias, _), vectors) = next(iter(shard.vectors.items()))
        device = device_of(self.settings.device, self.place)
        names = self._names()
        with one_thread():
            if self.stored is None:
                texts = tuple(self.settings.template.replace("{}", name) for name in names)
                values, numbers = nearest(vectors, [shard.encode(alias, texts)[0]], device)
            else:
                self.stored.check_model(alias, shard.facts[alias])
                with self.stored.open(vectors.shape[1]) as arrays:
                    self._check_names(names, arrays)
                    values, numbers = nearest(vectors, arrays, device)
        return self._columns(names, values, numbers)

    def _columns(
        self, names: tuple[str, ...], values: npt.NDArray[np.float64], numbers: npt.NDArray[np.int64]
    ) -> Columns:
        missing = np.isnan(values)
        if bool((numbers[~missing] < 0).any()):
            raise UserError(f"{self.place}.vectors: no row has an embedding (all are zero or not finite)")
        index = pa.array(numbers.astype(np.int32), pa.int32(), mask=missing)
        columns: dict[str, pa.Array] = {"score": floats(values, missing), "index": index}
        if names:
            columns["concept"] = pa.array(names, pa.string()).take(index)
        return columns

    def _check_names(self, names: tuple[str, ...], arrays: Arrays) -> None:
        rows = sum(len(array) for array in arrays)
        if names and rows != len(names):
            raise UserError(f"{self.place}: `file` has {len(names)} concepts, `vectors` {rows} rows")

    def _names(self) -> tuple[str, ...]:
        """Concepts in order; read where they are used, since a list may be long."""
        if self.settings.file is None:
            return self.settings.concepts
        place = f"{self.place}.file"
        try:
            text = external.read(self.settings.file, place, self.digest).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{place}: {self.settings.file} is not UTF-8 ({error})") from None
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
        if not names:
            raise UserError(f"{place}: {self.settings.file} holds no concept; write one a line")
        return names
