from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.errors import DataError, UserError
from curate.ingest import delimited, unpack
from curate.ingest.tables import iter_table_batches
from curate.reasons import IngestReason

U = "https://e.com/{}.jpg"


def read(path: Path, batch_rows: int = 1000, **options: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    counts: Counter[str] = Counter()
    batches = list(iter_table_batches(str(path), batch_rows=batch_rows, counts=counts, **options))
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()], dict(counts)


def put(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def parquet(folder: Path, row_group_size: int = 100, name: str = "t.parquet", **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / name, row_group_size=row_group_size)
    return folder / name


def test_laion_columns_and_the_swap(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        SAMPLE_ID=[1, 2],
        URL=[U.format(1), U.format(2)],
        TEXT=["one", "two"],
        HEIGHT=pa.array([640, None], pa.int32()),
        WIDTH=pa.array([480, 100], pa.int32()),
        similarity=[0.31, None],
        NSFW=["UNLIKELY", None],
    )
    extra = ["WIDTH", "HEIGHT", "similarity", "NSFW"]
    rows, counts = read(path, extra_columns=extra)
    assert counts == {}
    first = {"url": U.format(1), "text": "one", "similarity": 0.31, "NSFW": "UNLIKELY"}
    assert rows[0] == first | {"WIDTH": 480, "HEIGHT": 640}
    swapped, _ = read(path, extra_columns=extra, swap_width_height=True)
    assert swapped[0] == first | {"WIDTH": 640, "HEIGHT": 480}
    assert (swapped[1]["WIDTH"], swapped[1]["HEIGHT"]) == (None, 100)
    (batch,) = iter_table_batches(str(path), extra_columns=extra, batch_rows=10, counts=Counter())
    assert [str(field.type) for field in batch.schema] == [
        "string",
        "string",
        "int32",
        "int32",
        "double",
        "string",
    ]
    with pytest.raises(UserError, match="swap_width_height needs WIDTH and HEIGHT"):
        read(path, swap_width_height=True)


def test_a_supplied_uid_is_kept(tmp_path: Path) -> None:
    path = parquet(
        tmp_path, uid=["A" * 32, "b" * 31, None], url=[U.format(n) for n in range(3)], text=["x"] * 3
    )
    rows, counts = read(path, uid_column="uid")
    assert rows == [{"url": U.format(0), "text": "x", "uid": "a" * 32}]
    assert counts == {IngestReason.UNREADABLE_RECORD: 2}
    assert "uid" not in read(path)[0][0]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_any_kind_of_text_column(tmp_path: Path, kind: pa.DataType) -> None:
    path = parquet(tmp_path, url=pa.array([U.format(1)]).cast(kind), caption=pa.array(["größe"]).cast(kind))
    assert read(path)[0] == [{"url": U.format(1), "text": "größe"}]


def test_text_that_is_not_utf8_costs_the_row(tmp_path: Path) -> None:
    path = parquet(tmp_path, url=[U.format(n) for n in range(3)], text=pa.array([b"a", b"\xff", b"c"]))
    rows, counts = read(path)
    assert [row["text"] for row in rows] == ["a", "c"]
    assert counts == {IngestReason.UNREADABLE_RECORD: 1}


BAD = [
    None,
    "",
    " ",
    "UNLIKELY",
    "http://",
    "ftp://e.com/a.jpg",
    "data:,x",
    U.format(1),
    "HTTP://E.com/a.jpg",
]


def test_each_bad_url_has_its_reason(tmp_path: Path) -> None:
    expected = {IngestReason.NO_URL: 3, IngestReason.BAD_URL: 2, IngestReason.BAD_SCHEME: 2}
    rows, counts = read(parquet(tmp_path, url=BAD, text=["x"] * len(BAD)))
    assert [row["url"] for row in rows] == BAD[-2:]  # verbatim: the uid is of exact strings
    assert counts == expected
    lines = "".join(json.dumps({"url": url, "text": "x"}) + "\n" for url in BAD)
    assert read(put(tmp_path, "t.jsonl", lines)) == (rows, counts)


def test_missing_text_is_counted_after_the_url(tmp_path: Path) -> None:
    path = parquet(tmp_path, url=[U.format(1), U.format(2), None], text=[None, "", None])
    assert read(path) == ([], {IngestReason.NO_TEXT: 2, IngestReason.NO_URL: 1})


def test_parquet_is_read_by_row_group_and_batch(tmp_path: Path) -> None:
    path = parquet(tmp_path, 7, url=[U.format(n) for n in range(50)], text=[str(n) for n in range(50)])
    assert [row["text"] for row in read(path, batch_rows=3)[0]] == [str(n) for n in range(50)]


def test_a_damaged_row_group_costs_no_other(tmp_path: Path) -> None:
    path = parquet(tmp_path, 10, url=[U.format(n) for n in range(30)], text=[f"text {n}" for n in range(30)])
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    rows, counts = read(put(tmp_path, "bad.parquet", bytes(data)))
    assert [row["text"] for row in rows] == [f"text {n}" for n in [*range(10), *range(20, 30)]]
    assert counts == {IngestReason.UNREADABLE_RECORD: 1}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_a_file_that_is_no_parquet(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match=r"t\.parquet: not a readable parquet file"):
        read(put(tmp_path, "t.parquet", data))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = parquet(tmp_path, image_link=[U.format(1)], capt=["x"], number=[1])
    with pytest.raises(UserError, match=r"t\.parquet: no column looks like the text; there are image_link"):
        read(path)
    with pytest.raises(UserError, match=r"text_column 'caption' is not a column; .*did you mean 'capt'\?"):
        read(path, text_column="caption")
    with pytest.raises(UserError, match="column 'number' holds int64, not text"):
        read(path, text_column="number")
    with pytest.raises(UserError, match="extra_columns 'similarity' is not a column"):
        read(path, text_column="capt", extra_columns=["similarity"])
    assert read(path, text_column="capt")[0] == [{"url": U.format(1), "text": "x"}]
    with pytest.raises(UserError, match="the name does not say the format"):
        read(put(tmp_path, "t.txt", "x"))


CSV = (
    "\ufeffurl,TEXT,similarity,WIDTH\r\n"
    f'{U.format(1)},"a ""quoted"", text",0.3,640\r\n'
    f'{U.format(2)},"two\r\nlines",x,1e2\r\n'
    "\r\n"
    f"{U.format(3)},too,many,cells,here\r\n"
    f'{U.format(4)},no closing " quote,,9.5\r\n'
    f'{U.format(5)},"never closed,0.5,1\r\n'
    f"{U.format(6)},last,nan,"
)


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lambda b: gzip.compress(b[:50]) + gzip.compress(b[50:])]
)
@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_csv(tmp_path: Path, pack: Any, rows_at_once: int) -> None:
    path = put(tmp_path, "t.csv", pack(CSV.encode()))
    rows, counts = read(path, rows_at_once, extra_columns=["similarity", "WIDTH"])
    assert counts == {IngestReason.UNREADABLE_RECORD: 1}
    assert [row["text"] for row in rows] == [
        'a "quoted", text',
        "two\r\nlines",
        'no closing " quote',
        '"never closed',
        "last",
    ]
    assert [row["WIDTH"] for row in rows] == [640, 100, None, 1, None]
    assert [row["similarity"] for row in rows][:4] == [0.3, None, None, 0.5]


@pytest.mark.parametrize(("first", "second"), [("{u}\t{t}", "url, text"), ("{t}\t{u}", "text, url")])
def test_a_tsv_without_header_as_cc12m_and_cc3m(tmp_path: Path, first: str, second: str) -> None:
    lines = [first.format(u=U.format(n), t=f'"stray quote {n}') for n in range(3)]
    rows, counts = read(put(tmp_path, "cc.tsv", "\n".join(lines)))
    assert rows == [{"url": U.format(n), "text": f'"stray quote {n}'} for n in range(3)], second
    assert counts == {}


def test_a_wide_table_without_header_needs_names(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", f"1,{U.format(1)},first,x:int64\n")
    with pytest.raises(UserError, match="no column looks like the text; there are 0, 1, 2, 3"):
        read(path)
    rows, _ = read(path, text_column="2", extra_columns=["0:int64"])
    assert rows == [{"url": U.format(1), "text": "first", "0": 1}]


def test_lines_that_are_not_utf8_or_too_long_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "MAX_LINE_BYTES", 200)
    monkeypatch.setattr(unpack, "_SEGMENT", 64)
    lines = [b"url\ttext", U.format(1).encode() + b"\ta", U.format(2).encode() + b"\t\xff"]
    lines += [U.format(3).encode() + b"\t" + b"x" * 1000, U.format(4).encode() + b"\td", b"x" * 1000]
    rows, counts = read(put(tmp_path, "t.tsv", b"\n".join(lines)))
    assert [row["text"] for row in rows] == ["a", "d"]
    assert counts == {IngestReason.UNREADABLE_RECORD: 3}


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"url": "https://e.com/1.jpg", "caption": "a\\u2028b", "punsafe": 0.5, '
        b'"tags": ["x"], "n": 7}',
        b"",
        b"not json",
        b'["a list"]',
        b'{"url": "https://e.com/2.jpg"',
        b'{"url": "https://e.com/3.jpg", "caption": "\xff"}',
        b'{"url": "https://e.com/4.jpg"}',
        b'{"url": 5, "caption": "x"}',
        b'{"caption": "c", "url": "https://e.com/5.jpg", "punsafe": "high", "n": "9"}',
    ]
    path = put(tmp_path, "t.jsonl.gz", gzip.compress(b"\n".join(lines)))
    rows, counts = read(path, 2, extra_columns=["punsafe", "tags", "n:int32"])
    assert rows == [
        {"url": "https://e.com/1.jpg", "text": "a\u2028b", "punsafe": 0.5, "tags": None, "n": 7},
        {"url": "https://e.com/5.jpg", "text": "c", "punsafe": None, "tags": None, "n": 9},
    ]
    assert counts == {
        IngestReason.UNREADABLE_RECORD: 4,
        IngestReason.NO_TEXT: 1,
        IngestReason.BAD_URL: 1,
    }


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("data", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
def test_empty_files_have_no_rows(tmp_path: Path, suffix: str, data: bytes) -> None:
    assert read(put(tmp_path, f"t.{suffix}", data)) == ([], {})


def test_a_truncated_gzip_keeps_whole_lines(tmp_path: Path) -> None:
    lines = ["url,text"] + [f"{U.format(n)},text {n * 7919 % 1000}" for n in range(5000)]
    packed = gzip.compress("\n".join(lines).encode())
    whole, _ = read(put(tmp_path, "t.csv.gz", packed))
    assert len(whole) == 5000
    for cut in (len(packed) // 2, len(packed) - 1, len(packed) - 9):
        rows, counts = read(put(tmp_path, "cut.csv.gz", packed[:cut]))
        assert rows == whole[: len(rows)]
        assert len(rows) > 1000
        assert counts == {IngestReason.TRUNCATED_INPUT: 1}
    broken = bytearray(packed)
    broken[len(broken) // 2] ^= 0xFF
    rows, counts = read(put(tmp_path, "bad.csv.gz", bytes(broken)))
    assert rows[:100] == whole[:100]
    assert counts[IngestReason.TRUNCATED_INPUT] == 1


def test_a_damaged_member_costs_its_lines_and_those_across_its_ends(tmp_path: Path) -> None:
    lines = ["url,text"] + [f"{U.format(n)},text {n * 7919 % 1000}" for n in range(3000)]
    text = "\n".join(lines).encode()
    members = [gzip.compress(text[at : at + 10_007], mtime=0) for at in range(0, len(text), 10_007)]
    whole, _ = read(put(tmp_path, "t.csv.gz", b"".join(members)))
    assert len(whole) == 3000
    for broken in range(1, len(members)):
        damaged = [*members[:broken], members[broken][:-8] + b"wrong!!!", *members[broken + 1 :]]
        stats: Counter[str] = Counter()
        rows, counts = read(put(tmp_path, "bad.csv.gz", b"".join(damaged)), stats=stats)
        first, last = text[: 10_007 * broken].count(b"\n"), text[: 10_007 * (broken + 1)].count(b"\n")
        assert rows[: first - 1] == whole[: first - 1]
        behind = whole[last:]
        assert rows[len(rows) - len(behind) :] == behind
        end = broken == len(members) - 1
        assert counts == {IngestReason.TRUNCATED_INPUT if end else IngestReason.DAMAGED_RECORD: 1}
        assert len(members[broken]) <= stats["bytes_lost"] < len(members[broken]) + 200


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_line_is_made_up_behind_damage(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = ["url,text"] + [f"{U.format(n)},{n * 7919 % 1000}" for n in range(300)]
    text = "\n".join(lines).encode()
    size = data.draw(st.integers(200, 3000))
    members = [gzip.compress(text[at : at + size], mtime=0) for at in range(0, len(text), size)]
    gone = data.draw(st.sets(st.integers(0, len(members) - 1), max_size=3))
    kept = [b"damage" if n in gone else member for n, member in enumerate(members)]
    path = put(tmp_path_factory.mktemp("t"), "t.csv.gz", b"".join(kept))
    try:
        rows, _ = read(path, url_column="url", text_column="text")
    except UserError:
        assert 0 in gone  # and the header with it
        return
    pairs = {(U.format(n), str(n * 7919 % 1000)) for n in range(300)}
    assert {(row["url"], row["text"]) for row in rows} <= pairs


def test_half_a_surrogate_pair_in_a_line(tmp_path: Path) -> None:
    lines = [
        rb'{"url": "https://e.com/1.jpg", "caption": "a\ud800b \ud83d\ude00", "n": 9007199254740993}',
        rb'{"url": "https://e.com/2\udfff.jpg", "caption": "x\\ud800", "n": NaN}',
        b'{"url": "https://e.com/3.jpg", "caption": "c\x00\x01", "n": ' + b"9" * 5000 + b"}",
    ]
    rows, counts = read(put(tmp_path, "t.jsonl", b"\n".join(lines)), extra_columns=["n:int64"])
    assert rows == [
        {"url": "https://e.com/1.jpg", "text": "a\ufffdb \U0001f600", "n": 9007199254740993},
        {"url": "https://e.com/2\ufffd.jpg", "text": "x\\ud800", "n": None},
        {"url": "https://e.com/3.jpg", "text": "c\x00\x01", "n": None},
    ]
    assert counts == {}


def test_surrogates_in_other_tables_cost_the_row(tmp_path: Path) -> None:
    lines = [b"url,text", U.format(1).encode() + b",\xed\xa0\x80", U.format(2).encode() + b",\\ud800"]
    rows, counts = read(put(tmp_path, "t.csv", b"\n".join(lines)))
    assert [row["text"] for row in rows] == ["\\ud800"]
    assert counts == {IngestReason.UNREADABLE_RECORD: 1}
    raw = pa.array([b"\xed\xa0\x80", b"fine"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"url": [U.format(1), U.format(2)], "text": raw}), tmp_path / "t.parquet")
    rows, counts = read(tmp_path / "t.parquet")
    assert [row["text"] for row in rows] == ["fine"]
    assert counts == {IngestReason.UNREADABLE_RECORD: 1}


def test_a_missing_file_is_not_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.csv")


LINE = st.one_of(
    st.binary(max_size=30),
    st.text('ab,"\t\r\\{}:', max_size=30).map(str.encode),
    st.builds(lambda t: f"{U.format(1)},{t}".encode(), st.text(max_size=20)),
    st.builds(lambda t: json.dumps({"url": U.format(1), "text": t}).encode(), st.text(max_size=20)),
).map(lambda line: line.replace(b"\n", b""))


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, max_size=80), st.sampled_from(["csv", "tsv", "jsonl"]))
@example([b'"'] * 80, "csv")
def test_fuzzed_lines_never_raise_and_add_up(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], suffix: str
) -> None:
    first = {"csv": b"url,text", "tsv": b"url\ttext", "jsonl": b'{"url": "https://e.com/0.jpg", "text": "t"}'}
    path = put(tmp_path_factory.mktemp("fuzz"), f"t.{suffix}", b"\n".join([first[suffix], *lines]) + b"\n")
    rows, counts = read(path, 7)
    found = len(rows) + sum(counts.values())
    filled = sum(bool(line.strip() if suffix == "jsonl" else line.removesuffix(b"\r")) for line in lines)
    if suffix == "jsonl":
        assert found == filled + 1
    elif not any(b'"' in line for line in lines):
        assert found == filled
    else:  # records in quotes may span lines
        assert found <= filled
    assert set(counts) <= set(IngestReason)


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=15)


@settings(max_examples=200, deadline=None)
@given(st.lists(FIELD.filter(bool), min_size=1, max_size=20), st.sampled_from([",", "\t"]))
def test_what_a_csv_writer_wrote_comes_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], delimiter: str
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["url", "text"], *([U.format(n), text] for n, text in enumerate(texts))])
    path = put(
        tmp_path_factory.mktemp("csv"), "t.csv" if delimiter == "," else "t.tsv", out.getvalue().encode()
    )
    rows, counts = read(path, 3)
    assert counts == {}
    assert [row["text"] for row in rows] == texts


def test_the_row_that_is_no_row(fixtures_dir: Path) -> None:
    rows, counts = read(fixtures_dir / "meta/test_10000.parquet")
    assert counts == {IngestReason.BAD_URL: 1}
    assert len(rows) == 9999
    assert all(row["url"].startswith("http") for row in rows)
