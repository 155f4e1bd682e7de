from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset.uid import HALVES, halves, usable_halves
from curate.dataset.workspace import Workspace
from curate.errors import DataError
from curate.samples.columns import columns_of
from curate.samples.folded import FoldedPool
from curate.samples.pool import Pool, Uids
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORE_TYPES,
    SCORER,
    cut_in_shards,
    uid_from,
    write_pool,
    write_scores,
)

NAMES = ["similarity", "text_length", "text_score", "text_lang", "text", "width"]


def rows_of(count: int, seed: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for i in range(count):
        row: dict[str, Any] = {"uid": uid_from(((i * 7919 + seed) % 1009) << 112), "text": f"größe {i}"}
        row["text_score"] = [None, float("nan"), i / 3][i % 3]
        row["text_lang"] = [None, "en", "de"][i % 3]
        row["similarity"] = i / 100 if i % 4 else None
        row["width"] = i
        found.append(row)
    return found


def pools(workspace: Workspace, shards: Sequence[str], batch_rows: int = 10) -> tuple[Pool, FoldedPool]:
    columns = columns_of(workspace, shards[0], [MODEL], [SCORER])
    given = (workspace, tuple(shards), columns)
    return Pool(*given, batch_rows=batch_rows), FoldedPool(*given, batch_rows=batch_rows)


def scanned(
    pool: Pool, names: Sequence[str], uids: Uids = Uids.TEXT
) -> tuple[pa.Table, list[list[tuple[str, int]]]]:
    batches = list(pool.scan(names, uids))
    # Texts may be numbers and a dictionary.
    tables = [
        b.table.cast(pa.schema([(f.name, plain_type(f.type)) for f in b.table.schema])) for b in batches
    ]
    return pa.concat_tables(tables), [list(b.shards) for b in batches]


def plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def names_in(workspace: Workspace) -> list[str]:
    root = Path(workspace.url) / ".curate" / "columns"
    return sorted(p.name.rpartition("-")[0] for p in root.rglob("*.arrow"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 60), st.permutations(NAMES), st.integers(0, 6))
def test_a_folded_pool_is_the_pool(
    tmp_path_factory: pytest.TempPathFactory, count: int, shards: int, batch: int, names: list[str], few: int
) -> None:
    workspace = write_pool(tmp_path_factory.mktemp("w"), cut_in_shards(rows_of(count), shards))
    plain, folded = pools(workspace, [f"{i:05d}" for i in range(shards)], batch)
    for _ in range(2):  # made, then mapped
        expected, found = (scanned(p, names[:few]) for p in (plain, folded))
        assert found[0].equals(expected[0])
        assert found[1] == expected[1]
    assert names_in(workspace) == sorted({"uid", *({"text": "caption"}.get(n, n) for n in names[:few])})


def test_what_has_changed_is_made_again_and_the_old_removed(tmp_path: Path) -> None:
    rows = rows_of(30)
    workspace = write_pool(tmp_path, cut_in_shards(rows, 2))
    _, folded = pools(workspace, ["00000", "00001"])
    before, _ = scanned(folded, ["text_length", "width"])
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / ".curate" / "columns").rglob("*.arrow")}
    for i, part in enumerate(cut_in_shards(rows, 2)):
        changed = [{**row, "text_length": 5} for row in part]
        write_scores(workspace, f"{i:05d}", changed, SCORER, SCORE_TYPES)
    after, _ = scanned(folded, ["text_length", "width"])
    assert set(after["text_length"].to_pylist()) == {5}
    assert after["width"].equals(before["width"])
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / ".curate" / "columns").rglob("*.arrow")}
    assert len(now) == len(files) == 3
    assert sum(files.get(p) == t for p, t in now.items()) == 2


def test_other_samples_make_everything_again(tmp_path: Path) -> None:
    workspace = write_pool(tmp_path, cut_in_shards(rows_of(30), 1))
    _, folded = pools(workspace, ["00000"])
    scanned(folded, ["text_length"])
    workspace = write_pool(tmp_path, cut_in_shards(rows_of(31), 1))
    found, _ = scanned(folded, ["text_length"])
    assert found.num_rows == 31


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "end", "another", "folder"])
def test_a_file_that_cannot_be_read_is_made_again(tmp_path: Path, damage: str) -> None:
    workspace = write_pool(tmp_path, cut_in_shards(rows_of(30), 1))
    _, folded = pools(workspace, ["00000"])
    # The file is mapped.
    expected = scanned(folded, ["width", "text_length"])[0].to_pylist()
    (file,) = (tmp_path / ".curate" / "columns").rglob("width-*.arrow")
    (other,) = (tmp_path / ".curate" / "columns").rglob("*length-*.arrow")
    data = file.read_bytes()
    if damage == "folder":
        file.unlink()
        (file / "inside").mkdir(parents=True)
    else:
        damaged = {
            "cut": data[:200],
            "empty": b"",
            "garbage": b"x" * 5000,
            "end": data[:-60] + b"\0" * 60,
            "another": other.read_bytes(),
        }
        file.write_bytes(damaged[damage])
    assert scanned(folded, ["width", "text_length"])[0].to_pylist() == expected
    assert file.read_bytes() == data


def test_a_batch_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    workspace = write_pool(tmp_path, cut_in_shards(rows_of(30), 1))
    _, folded = pools(workspace, ["00000"])
    scanned(folded, ["text"])
    (file,) = (tmp_path / ".curate" / "columns").rglob("caption-*.arrow")
    data = file.read_bytes()
    ends = np.cumsum([0, *(len(row["text"].encode()) for row in sorted(rows_of(30), key=lambda r: r["uid"]))])
    right = ends[:11].astype(np.int32).tobytes()
    assert data.count(right) == 1
    wrong = np.where(np.arange(11) == 5, 1 << 30, ends[:11]).astype(np.int32).tobytes()
    file.write_bytes(data.replace(right, wrong))
    with pytest.raises(DataError, match=r"caption-.*texts outside of the file.*remove it, it is made again"):
        scanned(folded, ["text"])


def test_a_batch_of_nothing(tmp_path: Path) -> None:
    workspace = write_pool(tmp_path, [*cut_in_shards(rows_of(20), 1), []])
    plain, folded = pools(workspace, ["00000", "00001"])
    expected, found = (scanned(p, ["width", "text_lang", "text_score"]) for p in (plain, folded))
    assert found[0].equals(expected[0])
    assert found[1] == expected[1] == [[("00000", 20)], [("00001", 0)]]


def test_raw_uids_are_those_of_the_text(tmp_path: Path) -> None:
    workspace = write_pool(tmp_path, cut_in_shards(rows_of(30), 3))
    _, folded = pools(workspace, ["00000", "00001", "00002"])
    text, _ = scanned(folded, ["width"])
    raw, _ = scanned(folded, ["width"], Uids.RAW)
    assert raw["uid"].type == HALVES
    assert np.array_equal(usable_halves(raw["uid"]), halves(text["uid"]))
    assert raw["width"].equals(text["width"])
    assert scanned(folded, ["width"], Uids.NONE)[0].column_names == ["width"]
    assert scanned(folded, [], Uids.NONE)[0].num_rows == 30
    assert scanned(folded, ["uid"], Uids.RAW)[0]["uid"].equals(text["uid"])
