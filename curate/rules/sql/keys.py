"""Values of any type as text, and looking them up in what was learned of each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.rules.sql.expressions import Expression


def key_sql(expression: Expression) -> str:
    """SQL of a key: NaN is NULL, and -0.0 is 0.0."""
    if expression.type in ("FLOAT", "DOUBLE"):
        return f"nullif(({expression.sql}\n) + 0.0, 'nan'::DOUBLE)"
    return f"{expression.sql}\n"


def key_text(expression: Expression) -> Expression:
    """A key as text; NULL stays NULL."""
    sql = f"CAST(({key_sql(expression)}) AS VARCHAR)"
    return Expression(sql, expression.text, expression.place, expression.columns, "VARCHAR")


def looked_up(values: pa.ChunkedArray, places: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """The place of each value, -1 for NULL and for what has none; int64, shape (n,)."""
    encoded = values.combine_chunks().dictionary_encode()
    found = [places.get(text, -1) for text in encoded.dictionary.to_pylist()]
    indices = np.asarray(encoded.indices.fill_null(len(found)), np.int64)
    return np.array([*found, -1], np.int64)[indices]
