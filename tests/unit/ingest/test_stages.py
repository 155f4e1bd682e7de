from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileOpener
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import curate.ingest.parse as parse_module
import curate.ingest.stage as stage_module
from curate.config.models import IngestSettings, RunSettings
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.uid import shard_of, uid_of
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.errors import BudgetExceededError, UserError
from curate.ingest.parse import ParseStage
from curate.ingest.sorting import drop_duplicates, sort_by_uid
from curate.ingest.stage import IngestStage
from tests.unit.ingest.damage import records_of
from tests.unit.ingest.wat_files import img, page, wat


def ingest(folder: Path, paths: list[str], **options: Any) -> Workspace:
    source = {"paths": paths, **options.pop("source", {})}
    facts = IngestSettings(sources=(source,), **options)  # type: ignore[arg-type]
    space = Workspace(str(folder))
    settings = RunSettings(cluster="synchronous", retries=0)
    Engine(space, settings, Console(quiet=True)).run([ParseStage(facts), IngestStage(facts)])
    return space


def write(path: Path, pairs: list[tuple[str, str]]) -> str:
    pq.write_table(pa.table({"url": [u for u, _ in pairs], "text": [t for _, t in pairs]}), path)
    return str(path)


def candidates(space: Workspace) -> dict[str, list[dict[str, Any]]]:
    shards = sorted(space.sizes("candidates"))
    return {path: space.read_table(path).to_pylist() for path in shards}


def digest(space: Workspace) -> str:
    hasher = hashlib.sha256()
    for path in sorted(space.sizes("candidates")):
        hasher.update(path.encode() + space.read_bytes(path))
    return hasher.hexdigest()


pairs = st.lists(
    st.tuples(st.integers(0, 30).map(lambda n: f"http://h{n % 5}.example/{n}.jpg"), st.sampled_from("abc")),
    max_size=60,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(pairs, min_size=1, max_size=4), st.integers(1, 9))
def test_shards_hold_each_pair_once_in_uid_order(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, str]]], shard_size: int
) -> None:
    folder = tmp_path_factory.mktemp("in")
    for i, rows in enumerate(files):
        write(folder / f"{i}.parquet", rows)
    expected = {uid_of(t, u): (u, t) for rows in files for u, t in rows}
    if not expected:
        with pytest.raises(UserError, match="no candidates are left"):
            ingest(folder / "w", [str(folder / "*.parquet")])
        return
    space = ingest(folder / "w", [str(folder / "*.parquet")], shard_size=shard_size)
    shards = space.read_json(layout.DATASET)["shards"]
    assert shards == max(1, round(len(expected) / shard_size))
    seen = []
    for path, rows in candidates(space).items():
        index = int(path.split("/")[1].removesuffix(".parquet"))
        for row in rows:
            assert shard_of(row["uid"], shards) == index
            assert expected[row["uid"]] == (row["url"], row["text"])
            seen.append(row["uid"])
    assert seen == sorted(expected)
    store = RecordStore(space)
    for name in ("parse", "ingest"):
        for record in store.iterate(name):
            assert record.rows_in == record.rows_out + sum(record.drops.values())
    read = sum(r.rows_in for r in store.iterate("parse"))
    assert read == sum(len(rows) for rows in files)


def test_bytes_do_not_depend_on_file_order_memory_or_units(tmp_path: Path) -> None:
    rows = [(f"http://h{i % 7}.example/{i % 400}.jpg", f"text {i % 300}") for i in range(3000)]
    one = write(tmp_path / "one.parquet", rows)
    first = ingest(tmp_path / "w1", [one], shard_size=100)
    small = ingest(tmp_path / "w2", [one], shard_size=100, rows_in_memory=1000, batch_rows=64)
    assert len(small.sizes(".curate/spill")) > 1
    assert digest(first) == digest(small)


def test_many_ranges_give_the_same_shards_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", [(f"http://h.example/{i}.jpg", f"text {i}") for i in range(2000)])
    whole = ingest(tmp_path / "w1", [path], shard_size=50)
    monkeypatch.setattr(stage_module, "RANGE_ROWS", 300)
    monkeypatch.setattr(stage_module, "COUNTED_UIDS", 500)
    cut = ingest(tmp_path / "w2", [path], shard_size=50)
    units = [r.unit for r in RecordStore(cut).iterate("ingest")]
    assert len(units) > 3
    shards = cut.read_json(layout.DATASET)["shards"]
    assert abs(shards - 40) <= 4, "the count of distinct uids is estimated from a part of them"
    assert sorted(r["uid"] for rows in candidates(cut).values() for r in rows) == sorted(
        r["uid"] for rows in candidates(whole).values() for r in rows
    )


def test_the_survivor_of_duplicates_does_not_depend_on_order() -> None:
    rows = [
        {"uid": "a", "url": "u", "text": "t", "page_url": p, "source": s}
        for p, s in [("p2", "s1"), ("p1", "s2"), ("p1", "s1"), (None, "s0")]
    ]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        table = pa.Table.from_pylist([rows[i] for i in order])
        kept, duplicates, collisions = drop_duplicates(sort_by_uid(table))
        assert kept.to_pylist() == [rows[2]]
        assert (duplicates, collisions) == (3, 0)


def test_pairs_that_only_share_a_uid_are_called_collisions(tmp_path: Path) -> None:
    url = "http://h.example/x.jpg"
    path = write(tmp_path / "x.parquet", [(url, "ab"), (url, "ab"), ("http://h.example/y.jpg", "z")])
    table = pa.table({"uid": ["1", "1", "2"], "url": [f"b{url}", url, "v"], "text": ["a", "ab", "w"]})
    kept, duplicates, collisions = drop_duplicates(sort_by_uid(table))
    assert (kept.num_rows, duplicates, collisions) == (2, 0, 1)
    space = ingest(tmp_path / "w", [path])
    drops = [r.drops for r in RecordStore(space).iterate("parse")]
    assert drops == [{"duplicate": 1}]


def test_supplied_uids_and_extra_columns_are_kept(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uid": ["0" * 32, "f" * 32],
            "url": ["http://a.example/1", "http://a.example/2"],
            "caption": ["x y", "z"],
            "similarity": [0.25, None],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    options = {"uid_column": "uid", "extra_columns": ["similarity"]}
    space = ingest(tmp_path / "w", [str(tmp_path / "x.parquet")], source=options)
    rows = [r for rows in candidates(space).values() for r in rows]
    assert [(r["uid"], r["similarity"]) for r in rows] == [("0" * 32, 0.25), ("f" * 32, None)]


def test_rules_count_what_they_drop(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.parquet",
        [
            ("http://a.example/1.svg", "a drawing"),
            ("http://b.example/2.jpg", "tiny"),
            ("ftp://a.example/3", "a file"),
            ("http://sub.evil.example/4.jpg", "something long"),
            ("http://c.example/5.jpg", "a fine caption"),
        ],
    )
    space = ingest(
        tmp_path / "w",
        [path],
        min_text_length=5,
        blocked_extensions=[".svg"],
        blocked_domains=["evil.example"],
    )
    (record,) = RecordStore(space).iterate("parse")
    assert record.drops == {"bad_scheme": 1, "blocked_domain": 1, "blocked_extension": 1, "text_too_short": 1}
    assert [r["url"] for rows in candidates(space).values() for r in rows] == ["http://c.example/5.jpg"]


def test_lost_bytes_are_recorded_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = [
        gzip.compress(record, mtime=0)
        for record in records_of(
            wat(*(page([img(f"https://e.com/{n}.jpg", f"photo {n}")]) for n in range(9)))
        )
    ]
    (tmp_path / "good.warc.wat.gz").write_bytes(b"".join(members))
    members[5] = members[5][:-8] + bytes(8)
    (tmp_path / "bad.warc.wat.gz").write_bytes(b"".join(members))
    (tmp_path / "bad.csv.gz").write_bytes(gzip.compress(b"url,text\nhttps://e.com/x.jpg,x\n" * 2)[:-9])
    space = ingest(tmp_path / "w", [str(tmp_path / "*.gz")])
    records = {r.inputs[0].path.rpartition("/")[2]: r for r in RecordStore(space).iterate("parse")}
    assert records["good.warc.wat.gz"].stats["bytes_lost"] == 0
    assert not records["good.warc.wat.gz"].drops
    bad = records["bad.warc.wat.gz"]
    assert bad.stats["bytes_lost"] == len(members[5])
    assert bad.drops == {"damaged_record": 1}
    assert (bad.rows_in, bad.rows_out) == (9, 8)
    assert records["bad.csv.gz"].drops["truncated_input"] == 1
    said = [message for message in caplog.messages if "bad.warc.wat.gz" in message]
    assert said == [f"{tmp_path / 'bad.warc.wat.gz'}: damaged, {len(members[5])} bytes were lost"]
    assert not [message for message in caplog.messages if "good" in message]


def test_a_store_that_breaks_off_is_no_short_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_text("url,text\nhttps://e.com/1.jpg,one\nhttps://e.com/2.jpg,two\n")

    def short(self: LocalFileOpener, size: int = -1) -> bytes:
        data: bytes = self.f.read(40 - self.f.tell())
        return data

    monkeypatch.setattr(LocalFileOpener, "read", short, raising=False)
    with pytest.raises(BudgetExceededError, match=r"x\.csv.* only 40 of \d+ bytes came"):
        ingest(tmp_path / "w", [str(tmp_path / "x.csv")])


def test_long_rows_are_spilled_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"http://h.example/{n}.jpg", f"{n} " + "x" * 5000) for n in range(300)]
    path = write(tmp_path / "x.parquet", rows)
    one = ingest(tmp_path / "w1", [path], batch_rows=10)
    monkeypatch.setattr(parse_module, "MAX_SPILL_BYTES", 200_000)
    many = ingest(tmp_path / "w2", [path], batch_rows=10)
    assert len(one.sizes(".curate/spill")) == 1
    assert len(many.sizes(".curate/spill")) > 5
    assert digest(one) == digest(many)


def test_an_unreadable_input_stops_by_the_budget_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not a table")
    with pytest.raises(BudgetExceededError, match=r"x\.parquet"):
        ingest(tmp_path / "w", [str(tmp_path / "x.parquet")])


def test_a_pattern_without_files_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing-\*\.parquet"):
        ingest(tmp_path / "w", [str(tmp_path / "nothing-*.parquet")])


def test_another_input_needs_redo(tmp_path: Path) -> None:
    one = write(tmp_path / "1.parquet", [("http://a.example/1", "one")])
    two = write(tmp_path / "2.parquet", [("http://a.example/2", "two")])
    space = ingest(tmp_path / "w", [one])
    before = digest(space)
    with pytest.raises(UserError, match="--redo ingest"):
        ingest(tmp_path / "w", [one, two])
    assert digest(space) == before


def test_another_rule_is_refused_before_anything_is_parsed_again(tmp_path: Path) -> None:
    path = write(tmp_path / "1.parquet", [("http://a.example/1", "one"), ("http://a.example/2", "three")])
    space = ingest(tmp_path / "w", [path])
    spills = space.sizes(".curate/spill")
    with pytest.raises(UserError, match=r"min_text_length 1 → 4.*--redo ingest"):
        ingest(tmp_path / "w", [path], min_text_length=4)
    assert space.sizes(".curate/spill") == spills


def test_deleted_spills_are_made_again_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "1.parquet", [("http://a.example/1", "one"), ("http://a.example/2", "three")])
    space = ingest(tmp_path / "w", [path])
    before = [r.finished for r in RecordStore(space).iterate("ingest")]
    space.remove_tree(".curate/spill")
    ingest(tmp_path / "w", [path])
    assert space.sizes(".curate/spill")
    assert [r.finished for r in RecordStore(space).iterate("ingest")] == before


def test_the_real_laion_rows(tmp_path: Path, fixtures_dir: Path) -> None:
    space = ingest(tmp_path / "w", [str(fixtures_dir / "meta" / "test_10000.parquet")], shard_size=1000)
    total = sum(len(rows) for rows in candidates(space).values())
    drops: dict[str, int] = {}
    for name in ("parse", "ingest"):
        for record in RecordStore(space).iterate(name):
            for reason, n in record.drops.items():
                drops[reason] = drops.get(reason, 0) + n
    assert drops["bad_url"] == 1, "the row whose URL is the word UNLIKELY"
    assert total + sum(drops.values()) == 10_000
    assert len(candidates(space)) == 10
