"""What the recall of an index is measured with: queries of every kind that it will be asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curate.clip.vectors import Vectors
from curate.dataset import external
from curate.errors import UserError
from curate.index.prompts import prompts
from curate.index.recall import Rows

QueryKind = Literal["text", "image"]
KINDS: tuple[QueryKind, ...] = ("text", "image")
COUNT = 512
"""Queries of a kind. Their recall at 10 has a standard error below 0.01."""
KEY = "index.queries"


@dataclass(frozen=True)
class Queries:
    """Queries of one kind.

    Attributes:
        vectors: unit vectors, float32 (q, dim).
        source: ``captions`` or ``images`` of the pool, ``prompts`` or a ``file``.
        rows: of the index that they belong to, int64 (q,), None when they are of no pool.
    """

    vectors: Vectors
    source: str
    rows: Rows | None = None

    def own(self, same: bool) -> Rows:
        """The rows that are left out of the answers: a query's own, where it is the ``same`` vector."""
        return self.rows if same and self.rows is not None else np.full(len(self.vectors), -1, np.int64)


def texts_of(setting: str, seed: int) -> tuple[str, list[str]]:
    """The source and the texts of ``index.queries``: prompts, or a file's, at most ``COUNT`` of its lines.

    Raises:
        UserError: no such file, or one without texts.
    """
    if setting in ("auto", "prompts"):
        return "prompts", prompts()
    try:
        lines = external.read(setting, KEY).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{KEY}: {setting}: not UTF-8 ({error.reason} at byte {error.start})") from None
    texts = list(dict.fromkeys(text for line in lines if (text := line.strip())))
    if not texts:
        raise UserError(f"{KEY}: {setting}: no text in it; write one on each line")
    if len(texts) > COUNT:
        drawn = np.random.default_rng(seed).choice(len(texts), COUNT, replace=False)
        texts = [texts[i] for i in np.sort(drawn)]
    return "file", texts


def digest_of(texts: list[str]) -> str:
    """128-bit hex digest of texts in their order."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()
