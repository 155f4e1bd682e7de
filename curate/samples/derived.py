"""Columns that are computed when they are read: what a row says about itself.

The scorers `text` and `image` look at nothing but the caption and the sizes, so their columns need no
scores of their own to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

from curate.samples import geometry
from curate.text import facts as captions

Arrays = dict[str, pa.Array | pa.ChunkedArray]


@dataclass(frozen=True)
class Derived:
    """A kind of scorer whose columns can be computed on the spot.

    Attributes:
        inputs: columns that it reads.
        types: name without the scorer's prefix → type.
        compute: from a table of the inputs and the names that are wanted to these columns, (n,) each.
    """

    inputs: tuple[str, ...]
    types: Mapping[str, pa.DataType]
    compute: Callable[[pa.Table, Collection[str]], Arrays]


def _of_caption(table: pa.Table, names: Collection[str]) -> Arrays:
    texts = table["text"]
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.string())
    return captions.text_facts(texts, names)


def _of_sizes(table: pa.Table, names: Collection[str]) -> Arrays:
    return geometry.image_facts(table["original_width"], table["original_height"])


DERIVED: Mapping[str, Derived] = {
    "text": Derived(("text",), captions.TYPES, _of_caption),
    "image": Derived(("original_width", "original_height"), geometry.TYPES, _of_sizes),
}
"""Type of scorer → what it computes."""
