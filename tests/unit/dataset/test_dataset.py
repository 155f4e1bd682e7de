from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset import records
from curate.dataset.family import IMAGES, Family
from curate.dataset.records import Record, RecordStore
from curate.dataset.uid import (
    HALVES,
    from_halves,
    halves,
    is_uid,
    lower_bound,
    packed,
    shard_of,
    uid_of,
    usable_halves,
)
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError, UserError
from curate.samples.columns import columns_of, need, read_samples

uids = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")


def test_uid_is_md5_of_text_then_url() -> None:
    assert uid_of("a cat", "http://x/y.jpg") == hashlib.md5(b"a cathttp://x/y.jpg").hexdigest()
    assert is_uid(uid_of("\ud800", "u"))
    assert not is_uid("0" * 31)
    assert not is_uid("G" * 32)


@given(uids, st.integers(1, 10**6))
def test_a_shard_is_the_range_between_its_bounds(uid: str, shards: int) -> None:
    shard = shard_of(uid, shards)
    assert 0 <= shard < shards
    assert lower_bound(shard, shards) <= uid < lower_bound(shard + 1, shards)


@given(st.lists(uids, max_size=20))
def test_halves_round_trip_and_keep_order(values: list[str]) -> None:
    array = pa.array(sorted(values), pa.string())
    packed = halves(array)
    assert from_halves(packed).equals(array)
    pairs = [(int(v[:16], 16), int(v[16:], 16)) for v in sorted(values)]
    assert [tuple(int(x) for x in row) for row in packed] == pairs
    assert np.array_equal(np.sort(packed), packed)


@given(
    st.lists(
        st.lists(
            st.one_of(
                uids, st.none(), st.text(max_size=40), uids.map(str.upper), uids.map(lambda u: u[:-1] + "ß")
            ),
            max_size=8,
        ),
        max_size=4,
    ),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_is_no_uid_is_zeros(parts: list[list[str | None]], binary: bool, random: Random) -> None:
    texts = pa.chunked_array(parts, pa.string())
    given = texts.cast(pa.binary()) if binary else texts
    expected = [
        (int(v[:16], 16), int(v[16:], 16)) if v is not None and is_uid(v) else (0, 0)
        for part in parts
        for v in part
    ]
    assert usable_halves(given).tolist() == expected
    rows = np.array([random.random() < 0.5 for _ in expected], bool)
    chosen = [value for value, row in zip(expected, rows, strict=True) if row]
    assert usable_halves(given, rows).tolist() == chosen
    assert usable_halves(given.slice(1), rows[1:]).tolist() == (chosen[1:] if rows[:1].any() else chosen)


@given(st.lists(uids, max_size=20), st.integers(0, 5))
def test_packed_uids_are_read_like_text(values: list[str], start: int) -> None:
    text = pa.array(values, pa.string())
    stored = packed(text)
    assert stored.type == HALVES
    assert np.array_equal(halves(stored.slice(start)), halves(text.slice(start)))
    rows = np.arange(len(stored.slice(start))) % 2 == 0
    many = pa.chunked_array([stored.slice(start), stored])
    expected = np.concatenate([halves(text.slice(start))[rows], halves(text)])
    assert np.array_equal(usable_halves(many, np.concatenate([rows, np.ones(len(values), bool)])), expected)
    assert np.array_equal(halves(many), np.concatenate([halves(text.slice(start)), halves(text)]))


def test_halves_refuses_what_is_no_uid() -> None:
    for wrong in (None, "g" * 32, "0" * 31, "aB" * 16, "é" * 16):
        with pytest.raises(ValueError, match="not 32 hex digits"):
            halves(pa.array(["0" * 32, wrong]))
    assert halves(pa.array(["AB" * 16])).tolist() == halves(pa.array(["ab" * 16])).tolist()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path / "w"))
    space.write_bytes("a/b.bin", b"old")

    def interrupted() -> None:
        with space.writing("a/b.bin") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert space.read_bytes("a/b.bin") == b"old"
    assert list((tmp_path / "w" / ".curate" / "tmp").iterdir()) == []


def test_workspace_on_a_store_without_rename() -> None:
    space = Workspace("memory://bucket/w")
    ref = space.write_table("t/x.parquet", pa.table({"a": [1, 2]}))
    assert space.read_table("t/x.parquet")["a"].to_pylist() == [1, 2]
    assert space.sizes("t") == {"t/x.parquet": ref.size}
    with space.local("t/x.parquet") as path:
        assert path.stat().st_size == ref.size
    assert not path.exists()
    with pytest.raises(DataError, match=r"t/none\.parquet: no such file"):
        space.read_table("t/none.parquet")


def test_broken_parquet_and_json_are_data_errors(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    space.write_bytes("x.parquet", b"PAR1 not really")
    space.write_bytes("x.json", b"{")
    with pytest.raises(DataError, match=r"x\.parquet"):
        space.read_table("x.parquet")
    with pytest.raises(DataError, match=r"x\.json"):
        space.read_json("x.json")


def test_an_unknown_protocol_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="workspace: cannot open 'nope://x'"):
        Workspace("nope://x").exists("a")


def record(unit: str, key: str = "k", failed: bool = False) -> Record:
    return Record(
        stage="s/x",
        unit=unit,
        key=key,
        settings={"a": 1},
        code_version=1,
        inputs_digest="d",
        inputs=[FileRef("in", 1, "x")],
        outputs=[FileRef(f"out/{unit}", 2, "y")],
        rows_in=3,
        rows_out=2,
        drops={"timeout": 1},
        failed=failed,
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", "e"])), st.sets(st.sampled_from(["a", "b", "c", "d", "e"]))
)
def test_folded_and_single_records_read_as_one_list(
    tmp_path_factory, written: list[str], dropped: set[str]
) -> None:
    space = Workspace(str(tmp_path_factory.mktemp("w")))
    store = RecordStore(space)
    expected: dict[str, str] = {}
    at, records.FOLD_AT = records.FOLD_AT, 2
    try:
        for i, unit in enumerate(written):
            store.write(record(unit, key=str(i)))
            expected[unit] = str(i)
            if i % 3 == 2:
                store.fold("s/x")
        store.drop("s/x", dropped)
    finally:
        records.FOLD_AT = at
    expected = {u: k for u, k in expected.items() if u not in dropped}
    assert [(r.unit, r.key) for r in store.iterate("s/x")] == sorted(expected.items())
    for unit, key in expected.items():
        found = store.read("s/x", unit)
        assert found is not None
        assert found == record(unit, key=key)
    assert store.outputs("s/x") == {f"out/{u}": FileRef(f"out/{u}", 2, "y") for u in expected}
    if written:
        assert store.stages() in (["s/x"], [])


def fake_shard(space: Workspace) -> None:
    status = ["success", "failed_to_download", "success"]
    images = pa.table(
        {"uid": ["a", "b", "c"], "caption": ["x", "y", "z"], "status": status, "width": [1, None, 3]}
    )
    space.write_table(IMAGES.path("00000"), images)
    space.write_table(
        Family.embeddings("m").path("00000"), pa.table({"uid": ["a", "c"], "similarity": [0.5, 0.25]})
    )
    space.write_table(Family.scores("s").path("00000"), pa.table({"uid": ["a", "c"], "s_score": [1.0, 2.0]}))


def test_samples_are_the_rows_with_an_image_aligned_over_families(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    fake_shard(space)
    columns = columns_of(space, "00000", ["m"], ["s"])
    assert set(columns) == {"uid", "text", "width", "similarity", "m_similarity", "s_score"}
    table = read_samples(space, "00000", ["s_score", "text", "similarity"], columns)
    assert table.to_pylist() == [
        {"uid": "a", "s_score": 1.0, "text": "x", "similarity": 0.5},
        {"uid": "c", "s_score": 2.0, "text": "z", "similarity": 0.25},
    ]
    with pytest.raises(UserError, match="rule r: unknown column 's_scor'; did you mean s_score"):
        need(columns, "s_scor", "rule r")


def test_misaligned_rows_are_an_error_not_a_result(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    fake_shard(space)
    columns = columns_of(space, "00000", ["m"], ["s"])
    space.write_table(Family.scores("s").path("00000"), pa.table({"uid": ["c", "a"], "s_score": [1.0, 2.0]}))
    with pytest.raises(DataError, match="its rows are not those of"):
        read_samples(space, "00000", ["s_score"], columns)


def test_two_families_with_one_column_name(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    fake_shard(space)
    space.write_table(Family.scores("t").path("00000"), pa.table({"uid": ["a", "c"], "width": [1.0, 2.0]}))
    with pytest.raises(UserError, match=r"column 'width' is in images and in scores/t"):
        columns_of(space, "00000", ["m"], ["t"])


def test_local_tables_are_read_without_a_python_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's threads may still hold such a file when the process ends, and letting go of it aborts then."""
    workspace = Workspace(str(tmp_path))
    workspace.write_table("t.parquet", pa.table({"a": [1, 2], "b": ["x", None]}))
    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "open", None)
        assert workspace.read_table("t.parquet", ["b"]).to_pydict() == {"b": ["x", None]}
    with pytest.raises(DataError, match=r"t.parquet: has no column 'c'"):
        workspace.read_table("t.parquet", ["a", "c"])
    with pytest.raises(DataError, match=r"u.parquet: no such file"):
        workspace.read_table("u.parquet")
    workspace.write_bytes("u.parquet", b"PAR1")
    with pytest.raises(DataError, match=r"u.parquet: cannot be read as parquet"):
        workspace.read_table("u.parquet")


def test_remote_tables_are_read_too() -> None:
    workspace = Workspace("memory://tables-of-a-test")
    workspace.write_table("t.parquet", pa.table({"a": [1, 2]}))
    assert workspace.read_table("t.parquet").to_pydict() == {"a": [1, 2]}
    with pytest.raises(DataError, match=r"u.parquet: no such file"):
        workspace.read_table("u.parquet")
    workspace.remove_tree("")
