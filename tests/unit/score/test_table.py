from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dataset.records import RecordStore
from curate.errors import ConfigError, UserError
from curate.score.contract import make_scorer
from curate.score.kinds.table import read_range
from curate.score.stage import ScoreStage
from tests.unit.embed.clip_shards import run_stage
from tests.unit.score.vector_shards import EMBED, Pool, settings


def write(path: Path, uids: list[str], **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"uid": pa.array(uids, pa.string()), **columns}), path, row_group_size=16)
    return str(path)


def test_columns_are_joined_by_uid(tmp_path: Path) -> None:
    """In any order, from several files, with rows of other pools among them; the rest is null."""
    pool = Pool(tmp_path / "w", 60, 3)
    rng = np.random.default_rng(0)
    there = [uid for i, uid in enumerate(pool.uids) if i % 5]
    others = [f"{i:032x}" for i in range(20)]
    order = list(rng.permutation([*there, *others]))
    value = {uid: i / 7 for i, uid in enumerate(order)}
    for part, uids in enumerate((order[:30], order[30:])):
        write(
            tmp_path / "scores" / f"{part}.parquet",
            uids,
            quality=[value[uid] for uid in uids],
            label=pa.array([f"l{int(value[uid])}" for uid in uids]).dictionary_encode(),
            count=pa.array([int(value[uid]) for uid in uids], pa.int64()),
            unused=[0] * len(uids),
        )
    for name, path in (("f", "scores"), ("g", "scores/*.parquet")):
        columns = ["quality", "label", "count"]
        pool.score(**{name: {"type": "table", "paths": str(tmp_path / path), "columns": columns}})
        expected = [value.get(uid) for uid in pool.uids]
        found = pool.column(name, "quality")
        assert found == [None if v is None else float(np.float32(v)) for v in expected]
        assert pool.column(name, "label") == [None if v is None else f"l{int(v)}" for v in expected]
        assert pool.column(name, "count") == [None if v is None else int(v) for v in expected]
    nulls = [r.stats["null"]["f_quality"] for r in RecordStore(pool.workspace).iterate("score/f")]
    assert sum(nulls) == 12, "rows without a score are counted"
    assert pool.workspace.read_table("scores/f/00000.parquet").schema.field("f_quality").type == pa.float32()


def test_nothing_becomes_nan(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 4, 1)
    values = pa.array([float("nan"), float("inf"), None, 0.5], pa.float64())
    path = write(tmp_path / "t.parquet", pool.uids, v=values)
    pool.score(t={"type": "table", "paths": path, "columns": "v"})
    assert pool.column("t", "v") == [None, None, None, 0.5]


def test_a_uid_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 20, 2)
    one = write(tmp_path / "a.parquet", pool.uids, v=[1.0] * 20)
    two = write(tmp_path / "b.parquet", pool.uids[12:13], v=[2.0])
    words = rf"score\.scorers\.t\.paths: uid {pool.uids[12]} is there more than once"
    with pytest.raises(UserError, match=words):
        pool.score(t={"type": "table", "paths": [one, two], "columns": ["v"]})


def test_only_row_groups_of_the_shard_are_read(tmp_path: Path) -> None:
    """Of a sorted file: a page of another shard's rows may even be broken."""
    uids = [f"{i:032x}" for i in range(64_000)]
    path = tmp_path / "t.parquet"
    table = pa.table({"uid": uids, "v": np.arange(64_000, dtype=np.float32)})
    pq.write_table(table, path, row_group_size=16_000, compression="none", use_dictionary=False)
    last = pq.ParquetFile(path).metadata.row_group(3)
    data = bytearray(path.read_bytes())
    start = last.column(0).data_page_offset
    data[start : start + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    made = settings(t={"type": "table", "paths": str(path), "columns": ["v"]})["t"]
    found = read_range([str(path)], made, "p", pa.array(uids[100:1000]))
    assert found["v"].to_pylist() == list(range(100, 1000))
    with pytest.raises(UserError, match=r"p\.paths: .*t\.parquet: cannot be read as parquet"):
        read_range([str(path)], made, "p", pa.array(uids[50_000:51_000]))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", ["0" * 32], v=[1.0], nested=[[1.0]])
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"uid": [1], "v": [1.0]}), tmp_path / "numbers.parquet")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"paths": good, "columns": ["w"]}, r"columns: .*good\.parquet has no column 'w'; it has uid, v"),
        ({"paths": good, "columns": ["v"], "uid_column": "key"}, r"uid_column: .* has no column 'key'"),
        (
            {"paths": good, "columns": ["nested"]},
            r"columns: .*'nested' is list.*take columns of single values",
        ),
        ({"paths": str(tmp_path / "text.parquet"), "columns": ["v"]}, r"paths: .*cannot be read as parquet"),
        ({"paths": str(tmp_path / "empty"), "columns": ["v"]}, r"paths: .*no parquet file there"),
        ({"paths": str(tmp_path / "gone*.parquet"), "columns": ["v"]}, r"paths: .*no parquet file there"),
        ({"paths": str(tmp_path / "numbers.parquet"), "columns": ["v"]}, r"uid_column: .*uids are 32 hex"),
    ]
    for facts, words in cases:
        with pytest.raises(UserError, match=rf"^score\.scorers\.t\.{words}"):
            make_scorer("t", settings(t={"type": "table", **facts})["t"])
    with pytest.raises(ConfigError, match="a column is named twice"):
        settings(t={"type": "table", "paths": good, "columns": ["v", "v"]})


def test_other_bytes_are_other_scores(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["0" * 32], v=[1.0])
    facts = {"type": "table", "paths": path, "columns": ["v"]}
    before = make_scorer("t", settings(t=facts)["t"]).facts
    write(tmp_path / "moved.parquet", ["0" * 32], v=[1.0])
    moved = make_scorer("t", settings(t={**facts, "paths": str(tmp_path / "moved.parquet")})["t"]).facts
    write(tmp_path / "a.parquet", ["0" * 32], v=[2.0])
    after = make_scorer("t", settings(t=facts)["t"]).facts
    assert before == moved
    assert before != after


def test_a_file_that_changes_under_way_is_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 4, 1)
    path = write(tmp_path / "a.parquet", pool.uids, v=[1.0] * 4)
    stage = ScoreStage("t", settings(t={"type": "table", "paths": path, "columns": ["v"]})["t"], EMBED)
    write(tmp_path / "a.parquet", pool.uids, v=[2.0] * 4, more=[1] * 4)
    with pytest.raises(UserError, match="has changed"):
        run_stage(pool.workspace, stage)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_uids_in_any_string_type(tmp_path: Path, kind: pa.DataType) -> None:
    pool = Pool(tmp_path / "w", 20, 2)
    table = pa.table({"id": pa.array(pool.uids, pa.string()).cast(kind), "v": list(range(20))})
    pq.write_table(table, tmp_path / "a.parquet")
    facts = {"paths": str(tmp_path / "a.parquet"), "columns": ["v"], "uid_column": "id"}
    pool.score(t={"type": "table", **facts})
    assert pool.column("t", "v") == list(range(20))


def test_a_shard_without_rows(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 2, 6)
    path = write(tmp_path / "a.parquet", pool.uids, v=[1.0, 2.0], name=["a", "b"])
    pool.score(t={"type": "table", "paths": path, "columns": ["v", "name"]})
    assert pool.column("t", "v") == [1.0, 2.0]
    schemas = {pool.workspace.read_table(f"scores/t/{shard}.parquet").schema for shard in pool.shards}
    assert len(schemas) == 1, "a shard without rows has the columns of the others"


def test_files_of_different_types_are_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 4, 1)
    paths = [
        write(tmp_path / "a.parquet", pool.uids[:2], v=[1.0, 2.0]),
        write(tmp_path / "b.parquet", pool.uids[2:], v=["x", "y"]),
    ]
    with pytest.raises(UserError, match=r"score\.scorers\.t\.columns: the files have a column in different"):
        pool.score(t={"type": "table", "paths": paths, "columns": ["v"]})


def test_a_table_of_an_object_store(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 20, 2)
    path = write(tmp_path / "a.parquet", pool.uids, v=list(range(20)))
    folder = f"/tables-{tmp_path.name}"
    fsspec.filesystem("memory").pipe_file(f"{folder}/a.parquet", Path(path).read_bytes())
    pool.score(t={"type": "table", "paths": f"memory:/{folder}", "columns": ["v"]})
    assert pool.column("t", "v") == list(range(20))
