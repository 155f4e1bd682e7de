from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from curate.clip.batches import LEAST, pieces


@given(st.integers(0, 5000), st.integers(1, 600))
def test_every_row_once_in_few_shapes_with_little_filling(rows: int, size: int) -> None:
    found = list(pieces(rows, size))
    assert [row for start, stop, _ in found for row in range(start, stop)] == list(range(rows))
    assert all(0 < stop - start <= fill <= size for start, stop, fill in found)
    assert sum(fill - (stop - start) for start, stop, fill in found) < LEAST
    shapes = {fill for _, _, fill in found}
    assert all(fill == size or fill & (fill - 1) == 0 for fill in shapes)
    assert not any(fill < min(4, size) for fill in shapes) or size < LEAST
