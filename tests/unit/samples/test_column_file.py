"""Files of one column: what was written comes back, as texts or as numbers of texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.samples import column_file
from curate.samples.column_file import ColumnWriter, column_parts

texts = st.lists(st.one_of(st.none(), st.sampled_from(["", "en", "de", "größe", "x" * 400])), max_size=12)


def written(path: Path, batches: list[pa.ChunkedArray], few: int) -> list[column_file.Part]:
    writer = ColumnWriter(path, "c", few)
    for batch in batches:
        writer.add(batch, [len(chunk) for chunk in batch.chunks])
    writer.close()
    return list(column_parts(pa.py_buffer(path.read_bytes()), "c"))


@given(
    st.lists(st.lists(texts, min_size=1, max_size=3), min_size=1, max_size=5), st.sampled_from([-1, 1, 3, 99])
)
def test_texts_come_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[list[str | None]]], few: int
) -> None:
    given = [pa.chunked_array(batch, pa.string()) for batch in batches]
    found = written(tmp_path_factory.mktemp("c") / "c.arrow", given, few)
    assert [p.values.to_pylist() for p in found] == [b.to_pylist() for b in given]
    assert [p.rows for p in found] == [[len(chunk) for chunk in batch] for batch in batches]
    different = len(set(given[0].to_pylist()))
    assert {pa.types.is_dictionary(p.values.type) for p in found} == {different <= few}


@pytest.mark.parametrize(
    "kind",
    [pa.float32(), pa.bool_(), pa.binary(16), pa.list_(pa.int8()), pa.timestamp("s"), pa.large_string()],
)
def test_other_types_stay_what_they_are(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.chunked_array([pa.nulls(3, kind), pa.nulls(0, kind)])
    (part,) = written(tmp_path / "c.arrow", [values], 99)
    assert part.values.type == kind
    assert part.values.to_pylist() == [None] * 3
    assert part.rows == [3, 0]


@pytest.mark.parametrize("few", [-1, 99])
def test_what_is_too_large_for_one_array_stays_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(column_file, "LARGE", 1)
    batches = [pa.chunked_array([["a", "b"], [None], ["c"]]), pa.chunked_array([["d"]])]
    found = written(tmp_path / "c.arrow", batches, few)
    assert [p.values.to_pylist() for p in found] == [["a", "b", None, "c"], ["d"]]
    assert [p.rows for p in found] == [[2, 1, 1], [1]]
    assert found[0].values.num_chunks == (3 if few < 0 else 1)


def test_a_file_that_was_not_finished_cannot_be_read(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path / "c.arrow", "c")
    writer.add(pa.chunked_array([["a"]]), [1])
    with pytest.raises(pa.ArrowInvalid):
        column_parts(pa.py_buffer((tmp_path / "c.arrow").read_bytes()), "c")
    writer.close()
