"""The samples of pools with and without images."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curate.dataset import layout
from curate.dataset.family import CANDIDATES, IMAGES, Family, base_family, base_files
from curate.dataset.workspace import Workspace
from curate.errors import DataError, UserError
from curate.samples.columns import columns_of, read_samples
from tests.unit.filter.filter_pool import commit

UIDS = [f"{i:032x}" for i in range(4)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Candidates of two shards and images of one of them, the second of its rows without one."""
    space = Workspace(str(tmp_path / "work"))
    candidates = {"url": ["u0", "u1"], "text": ["t0", "t1"], "similarity": [0.1, 0.2]}
    for i, shard in enumerate(("00000", "00001")):
        table = pa.table({"uid": UIDS[2 * i : 2 * i + 2], **candidates})
        ref = space.write_table(CANDIDATES.path(shard), table)
        commit(space, "ingest", shard, [ref])
    images = {"uid": UIDS[:2], "url": ["u0", "u1"], "caption": ["c0", "c1"], "key": UIDS[:2]}
    table = pa.table({**images, "status": ["success", "failed_to_download"], "width": [3, None]})
    ref = space.write_table(IMAGES.path("00000"), table)
    commit(space, "download", "00000", [ref])
    return space


def without_images(workspace: Workspace) -> Workspace:
    workspace.write_json(layout.DATASET, {"shards": 2, "images": False})
    return workspace


def test_images_are_the_base_unless_the_pool_says_that_it_has_none(workspace: Workspace) -> None:
    assert base_family(workspace) == IMAGES
    workspace.write_json(layout.DATASET, {"shards": 1})
    assert base_family(workspace) == IMAGES
    assert list(base_files(workspace)) == ["00000"]
    workspace.write_json(layout.DATASET, {"shards": 2})
    with pytest.raises(
        UserError, match=r"download has made 1 of 2 shards \(not 00001\).*run `curate download`"
    ):
        base_files(workspace)
    without_images(workspace)
    assert base_family(workspace) == CANDIDATES
    assert list(base_files(workspace)) == ["00000", "00001"]
    assert [ref.path for ref in base_files(workspace).values()] == [
        CANDIDATES.path("00000"),
        CANDIDATES.path("00001"),
    ]


def test_samples_are_the_candidates(workspace: Workspace) -> None:
    columns = columns_of(without_images(workspace), "00001", (), ())
    assert list(columns) == ["uid", "url", "text", "similarity"]
    assert {column.family.stage for column in columns.values()} == {"ingest"}
    table = read_samples(workspace, "00001", ["text", "similarity"], columns)
    assert table.to_pydict() == {"uid": UIDS[2:], "text": ["t0", "t1"], "similarity": [0.1, 0.2]}


def test_samples_are_the_images_that_are_there(workspace: Workspace) -> None:
    columns = columns_of(workspace, "00000", (), ())
    assert list(columns) == ["uid", "url", "text", "width"]
    table = read_samples(workspace, "00000", ["text", "width"], columns)
    assert table.to_pydict() == {"uid": UIDS[:1], "text": ["c0"], "width": [3]}


@pytest.mark.parametrize("uids", [UIDS[2:3], UIDS[3:1:-1]])
def test_a_family_with_other_rows_than_the_candidates_is_an_error(
    workspace: Workspace, uids: list[str]
) -> None:
    table = pa.table({"uid": uids, "t_length": list(range(len(uids)))})
    workspace.write_table(Family.scores("t").path("00001"), table)
    columns = columns_of(without_images(workspace), "00001", (), ("t",))
    with pytest.raises(DataError, match=r"its rows are not those of candidates/00001\.parquet"):
        read_samples(workspace, "00001", ["t_length"], columns)


def test_a_column_of_the_source_and_of_a_model(workspace: Workspace) -> None:
    table = pa.table({"uid": UIDS[2:], "similarity": pa.array([0.5, 0.6], pa.float32())})
    workspace.write_table(Family.embeddings("b32").path("00001"), table)
    with pytest.raises(UserError, match="column 'similarity' is in candidates and in embeddings/b32"):
        columns_of(without_images(workspace), "00001", ("b32",), ())
