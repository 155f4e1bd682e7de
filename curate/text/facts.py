"""What is known of a caption by itself: its length, its words, its language."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from curate.text.counts import lengths, word_counts
from curate.text.language import detect

TYPES = {"length": pa.int32(), "words": pa.int32(), "lang": pa.string(), "lang_score": pa.float32()}


def text_facts(
    texts: pa.Array | pa.ChunkedArray, names: Collection[str] = tuple(TYPES)
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Columns of n alt texts; a null text has null everywhere.

    ``length``: characters (Unicode code points), int32. ``words``: runs between white space, what
    Python's ``str.split`` counts and DataComp's basic filter uses, int32. ``lang``: code of lid.176,
    null when the text tells nothing. ``lang_score``: its probability, float32, 0 when it tells nothing.

    Args:
        names: those that are wanted; the language takes a thousand times as long as the others.
    """
    found: dict[str, pa.Array | pa.ChunkedArray] = {}
    if "length" in names:
        found["length"] = lengths(texts)
    if "words" in names:
        found["words"] = word_counts(texts)
    if "lang" in names or "lang_score" in names:
        lang, probability = detect(texts)
        missing = pc.is_null(texts)
        found["lang"] = lang
        found["lang_score"] = pc.if_else(missing, pa.scalar(None, pa.float32()), probability)
    return {name: found[name] for name in TYPES if name in names}
