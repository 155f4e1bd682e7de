"""Published tables as a pool: their columns, what is computed from them, and a sorted copy."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.config.scorers.image import ImageScorer
from curate.config.scorers.text import TextScorer
from curate.config.scorers.zero_shot import ZeroShotScorer
from curate.config.tables import TableSettings
from curate.dataset.uid import halves, usable_halves
from curate.dataset.workspace import Workspace
from curate.errors import DataError, UserError
from curate.samples.database import open_database
from curate.samples.pool import Uids
from curate.samples.sorting import sorted_copy
from curate.samples.tables import NO_UID, TablesPool, open_tables, table_files

SCORERS = {
    "text": TextScorer(type="text"),
    "image": ImageScorer(type="image"),
    "nsfw": ZeroShotScorer(type="zero_shot", model="m", prompts="watermark"),
}


def uid(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def rows_of(numbers: range) -> dict[str, list[Any]]:
    return {
        "uid": [uid(n) for n in numbers],
        "url": [f"https://example.com/{n}" for n in numbers],
        "text": [None if n % 7 == 0 else "two words"[: n % 11] for n in numbers],
        "original_width": [n * 10 for n in numbers],
        "original_height": [100 for _ in numbers],
        "score": [None if n % 5 == 0 else float("nan") if n % 5 == 1 else n / 10 for n in numbers],
    }


def write(folder: Path, name: str, rows: dict[str, Any], group: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), folder / name, row_group_size=group)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    write(folder, "b.parquet", rows_of(range(10, 20)))
    write(folder, "a.parquet", rows_of(range(10)))
    (folder / "_notes.txt").write_text("not a table")
    return folder


def opened(folder: Path, **settings: Any) -> TablesPool:
    tables = TableSettings(paths=(str(folder),), **settings)
    return open_tables(Workspace(str(folder.parent / "work")), tables, table_files(tables), SCORERS)


def everything(pool: TablesPool, names: list[str], **more: Any) -> pa.Table:
    return pa.concat_tables([batch.table for batch in pool.scan(names, **more)])


def test_rows_come_as_they_lie_in_the_files(published: Path) -> None:
    pool = opened(published)
    assert len(pool.shards) == 6  # row groups of 4, 4 and 2 rows
    batches = list(replace(pool, batch_rows=5).scan(["score", "url"]))
    assert [batch.table.num_rows for batch in batches] == [8, 6, 6]
    assert [sum(rows for _, rows in batch.shards) for batch in batches] == [8, 6, 6]
    table = pa.concat_tables([batch.table for batch in batches])
    assert table["uid"].to_pylist() == [uid(n) for n in range(20)]
    assert table["score"].to_pylist() == [None if n % 5 < 2 else n / 10 for n in range(20)]


def test_captions_and_sizes_are_looked_at_when_they_are_asked_for(published: Path) -> None:
    pool = opened(published)
    assert {"text_words", "text_lang", "image_aspect"} <= pool.columns.keys()
    table = everything(pool, ["text_words", "image_min_side", "text_length"], uids=Uids.NONE)
    assert table.column_names == ["text_words", "image_min_side", "text_length"]
    texts = [t for n in (range(10), range(10, 20)) for t in rows_of(n)["text"]]
    assert table["text_words"].to_pylist() == [None if t is None else len(t.split()) for t in texts]
    assert table["text_length"].to_pylist() == [None if t is None else len(t) for t in texts]
    assert table["image_min_side"].to_pylist() == [min(n * 10, 100) or None for n in range(20)]


def test_languages_are_computed_too(tmp_path: Path) -> None:
    rows = {"uid": [uid(1), uid(2)], "text": ["the house of my father and mother", "das Haus meiner Eltern"]}
    write(tmp_path / "p", "a.parquet", rows)
    assert everything(opened(tmp_path / "p"), ["text_lang"])["text_lang"].to_pylist() == ["en", "de"]


def test_columns_may_have_other_names_in_the_files(tmp_path: Path) -> None:
    write(
        tmp_path / "p", "a.parquet", {"TEXT": ["a b"], "URL": ["u"], "WIDTH": [9], "HEIGHT": [3], "text": [1]}
    )
    names = {"text": "TEXT", "url": "URL", "original_width": "WIDTH", "original_height": "HEIGHT"}
    pool = opened(tmp_path / "p", columns=names)
    assert "TEXT" not in pool.columns
    table = everything(pool, ["text_words", "image_aspect", "text"])
    expected = {"text_words": 2, "image_aspect": 3.0, "text": "a b"}
    assert table.to_pylist() == [{"uid": hashlib.md5(b"a bu").hexdigest(), **expected}]


@pytest.mark.parametrize("wrong", [None, "", "g" * 32, "A" * 32, "0" * 31, "0" * 33])
def test_what_is_no_uid_is_nobody(tmp_path: Path, wrong: str | None) -> None:
    write(tmp_path / "p", "a.parquet", {"uid": [uid(1), wrong, uid(2)], "x": [1, 2, 3]})
    table = everything(opened(tmp_path / "p"), ["x"])
    assert table["uid"].to_pylist() == [uid(1), NO_UID, uid(2)]
    raw = everything(opened(tmp_path / "p"), ["x"], uids=Uids.RAW)
    assert usable_halves(raw["uid"]).tolist() == halves(table["uid"]).tolist()


def test_numbers_are_no_uids(tmp_path: Path) -> None:
    write(tmp_path / "p", "a.parquet", {"uid": [1, 2], "x": [1, 2]})
    assert everything(opened(tmp_path / "p"), ["x"])["uid"].to_pylist() == [NO_UID, NO_UID]
    raw = everything(opened(tmp_path / "p"), ["x"], uids=Uids.RAW)
    assert usable_halves(raw["uid"], np.array([False, True])).tolist() == [(0, 0)]


def test_a_row_without_text_or_url_has_no_uid(tmp_path: Path) -> None:
    write(tmp_path / "p", "a.parquet", {"text": ["a", None, "b"], "url": ["u", "v", None]})
    found = everything(opened(tmp_path / "p"), [])["uid"].to_pylist()
    assert found == [hashlib.md5(b"au").hexdigest(), NO_UID, NO_UID]


def test_a_sorted_copy_has_each_uid_once(published: Path, tmp_path: Path) -> None:
    write(published, "c.parquet", {**rows_of(range(3)), "score": [90.0, 91.0, 92.0]})
    write(published, "d.parquet", {**rows_of(range(2)), "uid": [None, "no uid"]})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_database(scratch) as connection:
        found = sorted_copy(opened(published), ["score", "text"], connection, scratch)
        table = pa.concat_tables([batch.table for batch in found.scan(["score"])])
        assert connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]
    assert table["uid"].to_pylist() == sorted(uid(n) for n in range(20))
    scores = {uid(n): None if n % 5 < 2 else n / 10 for n in range(20)}
    assert table["score"].to_pylist() == [scores[u] for u in table["uid"].to_pylist()]
    assert (found.without_uid, found.repeated) == (2, 3)
    assert found.read(found.shards[0], ["text"]).column_names == ["uid", "text"]


def test_a_sorted_copy_is_cut_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p", "a.parquet", rows_of(range(50)))
    monkeypatch.setattr("curate.samples.sorting._SHARD_ROWS", 7)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_database(scratch) as connection:
        found = sorted_copy(opened(tmp_path / "p"), ["url"], connection, scratch)
    batches = list(replace(found, batch_rows=20).scan(["url"]))
    assert len(batches) > 1
    assert [u for b in batches for u in b.table["uid"].to_pylist()] == sorted(uid(n) for n in range(50))


def test_mistakes_are_named(published: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"filter.tables.paths: .*nowhere.*no such file"):
        table_files(TableSettings(paths=(str(tmp_path / "nowhere"),)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"filter.tables.paths: .*empty' has no .parquet file"):
        table_files(TableSettings(paths=(str(tmp_path / "empty"),)))
    with pytest.raises(UserError, match=r"filter.tables.uid_column: unknown column 'uidd'; did you mean uid"):
        opened(published, uid_column="uidd")
    with pytest.raises(UserError, match=r"filter.tables.columns.text: unknown column 'TEXT'"):
        opened(published, columns={"text": "TEXT"})
    write(tmp_path / "x", "a.parquet", {"x": [1]})
    with pytest.raises(UserError, match=r"no column 'uid', and no 'text' and 'url'"):
        opened(tmp_path / "x")
    write(tmp_path / "y", "a.parquet", {"uid": [uid(1)], "text": ["a"], "text_words": [1]})
    with pytest.raises(UserError, match=r"column 'text_words' is in .* and in scorer 'text'"):
        opened(tmp_path / "y")


def test_files_that_do_not_fit_are_named(published: Path) -> None:
    write(published, "c.parquet", {"uid": [uid(99)], "score": ["high"]})
    with pytest.raises(DataError, match=r"c.parquet: column 'score' is string, in the first file"):
        everything(opened(published), ["score"])
    with pytest.raises(DataError, match=r"c.parquet: has no column 'url'"):
        everything(opened(published), ["url"])
    (published / "d.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"d.parquet: cannot be read as parquet"):
        opened(published)


RAW = "00112233445566778899aabbccddeeff"


@pytest.mark.parametrize("uids", [Uids.RAW, Uids.TEXT])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary(32)]
)
def test_uids_of_any_type_of_text(tmp_path: Path, kind: pa.DataType, uids: Uids) -> None:
    stored = pa.array([RAW.encode(), None, uid(2).encode()], pa.binary()).cast(
        pa.string() if pa.types.is_string_view(kind) else kind
    )
    write(tmp_path / "p", "a.parquet", {"uid": stored.cast(kind), "x": [1, 2, 3]})
    table = everything(opened(tmp_path / "p"), ["x"], uids=uids)
    assert usable_halves(table["uid"]).tolist() == halves(pa.array([RAW, NO_UID, uid(2)])).tolist()
    assert table.take(pa.array([2, 0]))["x"].to_pylist() == [3, 1]


@pytest.mark.parametrize("uids", [Uids.RAW, Uids.TEXT])
def test_sixteen_bytes_are_their_hex_digits(tmp_path: Path, uids: Uids) -> None:
    stored = pa.array([bytes.fromhex(RAW), None], pa.binary(16))
    write(tmp_path / "p", "a.parquet", {"uid": stored, "x": [1, 2]})
    table = everything(opened(tmp_path / "p"), ["x"], uids=uids)
    assert usable_halves(table["uid"]).tolist() == halves(pa.array([RAW, NO_UID])).tolist()


def test_a_uid_that_is_no_text_costs_its_row(tmp_path: Path) -> None:
    stored = pa.array([b"\xff" * 32, RAW.encode(), b"\xff"], pa.binary())
    write(tmp_path / "p", "a.parquet", {"uid": stored, "x": [1, 2, 3]})
    table = everything(opened(tmp_path / "p"), ["x"])
    assert table["uid"].to_pylist() == [NO_UID, RAW, NO_UID]


@pytest.mark.parametrize(
    ("first", "second", "fine"),
    [
        (pa.array([0.5], pa.float32()), pa.array([0.25, None, np.nan, np.inf], pa.float64()), True),
        (pa.array([0.5], pa.float32()), pa.array([0.300000001], pa.float64()), False),
        (pa.array([0.5], pa.float64()), pa.array([0.3], pa.float32()), True),
        (pa.array([1], pa.int32()), pa.array([7, None], pa.int64()), True),
        (pa.array([1], pa.int32()), pa.array([1 << 40], pa.int64()), False),
        (pa.array([1], pa.int32()), pa.array(["12"]), False),
        (pa.array(["x"]), pa.array([12], pa.int64()), False),
        (pa.array(["x"]), pa.array(["y", None]).dictionary_encode(), True),
    ],
)
def test_another_type_is_read_when_nothing_is_lost(
    tmp_path: Path, first: pa.Array, second: pa.Array, fine: bool
) -> None:
    for name, values in (("a", first), ("b", second)):
        uids = [uid(i) for i in range(len(values))]
        write(tmp_path / "p", f"{name}.parquet", {"uid": uids, "x": values})
    pool = opened(tmp_path / "p")
    if not fine:
        with pytest.raises(DataError, match=r"b\.parquet: column 'x' is .*, in the first file it is"):
            everything(pool, ["x"])
        return
    found = everything(pool, ["x"])["x"]
    assert found.type == first.type
    wanted = [None if v is None or v != v else v for v in second.to_pylist()]
    assert found.to_pylist()[1:] == wanted


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([[uid(1)], [1], [2]], names=["uid", "x", "x"])
    (tmp_path / "p").mkdir()
    pq.write_table(table, tmp_path / "p" / "a.parquet")
    with pytest.raises(UserError, match="has two columns named 'x'"):
        opened(tmp_path / "p")


@pytest.mark.parametrize("numbers", [range(0), range(9)])
def test_a_sorted_copy_of_any_pool(tmp_path: Path, numbers: range) -> None:
    rows = {"uid": [uid(n) for n in numbers], "Row Number": pa.array(numbers, pa.int64())}
    write(tmp_path / "p", "a.parquet", {name: pa.array(values)[:0] for name, values in rows.items()} | rows)
    with open_database(tmp_path) as connection:
        found = sorted_copy(opened(tmp_path / "p"), ["Row Number"], connection, tmp_path)
        tables = [batch.table for batch in found.scan(["Row Number"])]
    got = [row for table in tables for row in table.to_pylist()]
    assert got == sorted(({"uid": uid(n), "Row Number": n} for n in numbers), key=lambda row: row["uid"])
