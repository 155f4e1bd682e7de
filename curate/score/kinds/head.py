"""``type: head``: the outputs of a classifier head on stored image embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curate.config.scorers.head import HeadScorer
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, Shard
from curate.score.heads.head import Head
from curate.score.heads.load import digests, read_head


class ClassifierHead(ColumnScorer[HeadScorer]):
    """One float32 column per output."""

    def __init__(self, name: str, settings: HeadScorer) -> None:
        super().__init__(name, settings)
        self.vectors = ((settings.model, "image"),)
        self.digests = digests(settings.file, f"{self.place}.file")
        self.outputs = pa.schema([(output, pa.float32()) for output in self._head().outputs])

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with digests in place of the file's path."""
        return {**self.settings.facts(), "file": list(self.digests)}

    def score(self, shard: Shard) -> Columns:
        """Null where there is no embedding, or a score that no float32 holds."""
        head = self._head()
        check_fits(head, shard.facts[self.settings.model], self.settings, self.place)
        (vectors,) = shard.vectors.values()
        scores = head(vectors)
        return {name: pa.array(scores[:, i], from_pandas=True) for i, name in enumerate(head.outputs)}

    def _head(self) -> Head:
        settings = self.settings
        return read_head(settings.file, self.digests, settings.published_kind, f"{self.place}.file")


def check_fits(head: Head, facts: Mapping[str, Any], settings: HeadScorer, place: str) -> None:
    """Refuse embeddings that the head was not trained on.

    Raises:
        UserError: other dimensions; or another model, or one that cannot be told, without
            ``any_model: true``.
    """
    made = str(facts["model"]) + (f" ({facts['pretrained']})" if facts.get("pretrained") else "")
    if head.dim != int(facts["dim"]):
        wants = f", those of {head.space}" if head.space else ""
        raise UserError(
            f"{place}.model: {settings.file} takes embeddings of {head.dim} dimensions{wants}, but "
            f"'{settings.model}' is {made} with {facts['dim']}; name a model of `embed.models` that fits"
        )
    if settings.any_model or (head.space is not None and head.space.made(facts)):
        return
    if head.space is None:
        raise UserError(
            f"{place}: {settings.file} does not say which CLIP it was trained on; if it was "
            f"'{settings.model}' ({made}), set `any_model: true`"
        )
    raise UserError(
        f"{place}.model: {settings.file} was trained on embeddings of {head.space}, but '{settings.model}' "
        f"is {made}; embed with {head.space}, or set `any_model: true` if these are the same weights"
    )
