"""Existing embeddings against the rows that they were made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.uid import uid_of
from curate.dataset.workspace import Workspace
from curate.embed.stored import spills, stages
from curate.embed.stored.stages import JoinStage, SortStage
from curate.engine.engine import Engine
from curate.errors import DataError, IncompleteError, UserError
from tests.unit.embed.clip_shards import SYNCHRONOUS, run_stage
from tests.unit.embed.stored_pools import (
    Row,
    rows_of,
    settings,
    take,
    taken,
    webdataset_columns,
    write_clip_retrieval,
    write_datacomp,
    write_pool,
)

KEPT_AT_30 = [0, 1, 2, 3, 5, 6, 8]
PEER_COSINES = [0.324, 0.348, 0.336, 0.350, 0.295, 0.302, 0.316, 0.289, 0.301]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "work"))


def check_rows(workspace: Workspace, rows: list[Row], arrays: str = "b32", shards: int = 3) -> None:
    """Every row of the pool has its own vectors, of unit length, and the cosine before rounding."""
    found = taken(workspace, shards, arrays)
    by_uid = {r.uid: r for r in rows}
    uids = found.table["uid"].to_pylist()
    assert uids == sorted(by_uid)
    for i, uid in enumerate(uids):
        for ours, kind in ((found.image[i], "img"), (found.text[i], "txt")):
            theirs = by_uid[uid].vectors[f"{arrays}_{kind}"].astype(np.float64)
            np.testing.assert_allclose(
                ours.astype(np.float64), theirs / np.linalg.norm(theirs), atol=2**-11, rtol=0
            )
        assert found.table["similarity"][i].as_py() == pytest.approx(by_uid[uid].cosine(arrays), abs=2e-7)
    assert found.table["reason"].null_count == len(rows)
    assert found.image.dtype == found.text.dtype == np.float16


def test_a_real_clip_retrieval_folder(fixtures_dir: Path, workspace: Workspace) -> None:
    folder = fixtures_dir / "embeddings/clip_retrieval_output/embeddings"
    metadata = pq.read_table(folder / "metadata/metadata_0.parquet").to_pylist()
    rows = [
        Row(uid_of(m["caption"], m["image_path"]), m["image_path"], m["caption"], 0, 0, {}) for m in metadata
    ]
    write_pool(workspace, rows, shards=2)
    # Its metadata have no URL: the path of the image is what stands for it.
    take(workspace, settings(folder.parent, url_column="image_path", model="ViT-B/32", pretrained="openai"))
    found = taken(workspace, 2)
    similarity = [found.column("similarity")[r.uid] for r in rows]
    assert np.round(similarity, 3).tolist() == PEER_COSINES
    assert [i for i, s in enumerate(similarity) if s >= 0.30] == KEPT_AT_30
    assert all(s >= 0.28 for s in similarity)
    order = [found.table["uid"].to_pylist().index(r.uid) for r in rows]
    theirs = np.load(folder / "img_emb/img_emb_0.npy")
    np.testing.assert_allclose(found.image[order].astype(float), theirs.astype(float), atol=2e-4)
    assert found.facts | {"source": ""} == {
        "model": "ViT-B/32",
        "pretrained": "openai",
        "precision": "float16",
        "dim": 512,
        "weights": "stored",
        "checkpoint": "stored",
        "format": "clip_retrieval",
        "arrays": None,
        "modalities": ["image", "text"],
        "source": "",
    }


def test_its_paths_are_no_uids(fixtures_dir: Path, workspace: Workspace) -> None:
    write_pool(workspace, rows_of(5))
    source = settings(fixtures_dir / "embeddings/clip_retrieval_output/embeddings")
    with pytest.raises(UserError, match=r"none of its 9 rows says which sample.*url_column"):
        take(workspace, source)


@pytest.mark.parametrize("arrays", ["b32", "l14"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_datacomp(workspace: Workspace, tmp_path: Path, arrays: str, save: Callable[..., None]) -> None:
    rows = rows_of(700)
    write_datacomp(tmp_path / "metadata", rows, save=save)
    write_pool(workspace, rows)
    take(workspace, settings(tmp_path / "metadata", format="datacomp", arrays=arrays), arrays)
    check_rows(workspace, rows, arrays)


def test_more_rows_than_a_spill_and_a_block(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(1_000)
    write_datacomp(tmp_path / "metadata", rows, files=6)
    write_pool(workspace, rows, shards=5)
    monkeypatch.setattr(spills, "SPILL_BYTES", 88 * 37)
    monkeypatch.setattr(stages, "BLOCK_ROWS", 50)
    monkeypatch.setattr(stages, "UNIT_BYTES", 60_000)
    take(workspace, settings(tmp_path / "metadata", format="datacomp"))
    check_rows(workspace, rows, shards=5)
    units = list(RecordStore(workspace).iterate("stored/b32"))
    assert len(units) > 1
    assert sum(len(u.outputs) for u in units) > 2 * len(units)
    assert sum(u.rows_in for u in units) == len(rows)


def uid_columns(rows: Any) -> dict[str, Any]:
    return {"image_path": ["x"] * len(rows), "caption": ["y"] * len(rows), "uid": [r.uid for r in rows]}


def named_columns(rows: Any) -> dict[str, Any]:
    return {"id": [r.uid.upper() for r in rows], "uid": ["no uid"] * len(rows)}


def member_columns(rows: Any) -> dict[str, Any]:
    return {"image_path": [f"{r.uid}-0" for r in rows], "caption": [r.text for r in rows]}


def laion_columns(rows: Any) -> dict[str, Any]:
    return {"URL": [r.url for r in rows], "TEXT": [r.text for r in rows]}


@pytest.mark.parametrize(
    ("columns", "more"),
    [
        (webdataset_columns, {}),
        (uid_columns, {}),
        (named_columns, {"uid_column": "id"}),
        (member_columns, {}),
        (laion_columns, {}),
        (webdataset_columns, {"url_column": "url", "text_column": "caption"}),
    ],
)
def test_what_says_which_sample_a_row_is(
    workspace: Workspace, tmp_path: Path, columns: Any, more: dict[str, str]
) -> None:
    rows = rows_of(60)
    write_clip_retrieval(tmp_path / "embeddings", rows, columns=columns)
    write_pool(workspace, rows)
    take(workspace, settings(tmp_path / "embeddings", **more))
    check_rows(workspace, rows)


def test_numbers_pair_by_value_whatever_their_zeros(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(300)
    folder = tmp_path / "embeddings"
    write_clip_retrieval(folder, rows, files=12)
    for i in range(12):
        (folder / f"metadata/metadata_{i}.parquet").rename(folder / f"metadata/metadata_{i:04d}.parquet")
    write_pool(workspace, rows)
    take(workspace, settings(folder))
    check_rows(workspace, rows)


def test_a_sample_without_a_row_and_a_row_without_a_sample(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(90)
    write_clip_retrieval(tmp_path / "embeddings", rows[10:])
    write_pool(workspace, rows[:60])
    take(workspace, settings(tmp_path / "embeddings"))
    found = taken(workspace)
    reasons, similarity = found.column("reason"), found.column("similarity")
    missing = {r.uid for r in rows[:10]}
    assert {uid for uid, reason in reasons.items() if reason} == missing
    assert {reasons[uid] for uid in missing} == {"not_stored"}
    assert {uid for uid, value in similarity.items() if value is None} == missing
    at = [uid in missing for uid in found.table["uid"].to_pylist()]
    assert np.isnan(found.image[at]).all()
    assert not np.isnan(found.image[~np.array(at)]).any()
    records = list(RecordStore(workspace).iterate("embed/b32"))
    assert sum(r.rows_in for r in records) == 60
    assert sum(r.rows_out for r in records) == 50
    assert sum(r.drops.get("not_stored", 0) for r in records) == 10
    assert sum(r.stats.get("unused", 0) for r in records) == 30


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("kind", ["img", "txt"])
def test_a_bad_vector_is_no_embedding(workspace: Workspace, tmp_path: Path, value: float, kind: str) -> None:
    rows = rows_of(30)
    bad = np.full(16, value, np.float16)
    rows[7] = replace(rows[7], vectors={**rows[7].vectors, f"b32_{kind}": bad})
    write_clip_retrieval(tmp_path / "embeddings", rows)
    write_pool(workspace, rows)
    take(workspace, settings(tmp_path / "embeddings"))
    found = taken(workspace)
    assert {u for u, reason in found.column("reason").items() if reason == "bad_vector"} == {rows[7].uid}
    assert found.column("similarity")[rows[7].uid] is None
    row = found.table["uid"].to_pylist().index(rows[7].uid)
    ours, other = (found.image, found.text) if kind == "img" else (found.text, found.image)
    assert np.isnan(ours[row]).all()
    assert np.isfinite(other[row]).all()
    assert np.isfinite(np.delete(ours, row, axis=0)).all()


def test_float32_of_any_length_is_normalised_before_it_is_rounded(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = rows_of(40)
    scaled = [
        replace(r, vectors={k: v.astype(np.float32) * (1e6 if i % 2 else 1e-3) for k, v in r.vectors.items()})
        for i, r in enumerate(rows)
    ]
    write_clip_retrieval(tmp_path / "embeddings", scaled)
    write_pool(workspace, rows)
    take(workspace, settings(tmp_path / "embeddings"))
    check_rows(workspace, rows)
    assert taken(workspace).facts["precision"] == "float32"


def test_rows_that_come_twice(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(50)
    nan = {k: np.full_like(v, np.nan) for k, v in rows[3].vectors.items()}
    other = {k: -v for k, v in rows[4].vectors.items()}
    again = [rows[2], replace(rows[3], vectors=nan), replace(rows[4], vectors=other)]
    write_clip_retrieval(tmp_path / "embeddings", [*again[1:], *rows, again[0]], files=2)
    write_pool(workspace, rows)
    take(workspace, settings(tmp_path / "embeddings"))
    found = taken(workspace)
    # The same vectors again change nothing, a good row wins over a bad one, disagreement is no embedding.
    assert {u: r for u, r in found.column("reason").items() if r} == {rows[4].uid: "conflicting_vectors"}
    assert found.column("similarity")[rows[3].uid] == pytest.approx(rows[3].cosine("b32"), abs=2e-7)
    assert found.column("similarity")[rows[4].uid] is None
    records = RecordStore(workspace).iterate("embed/b32")
    assert sum(r.stats.get("repeated", 0) for r in records) == 3


def test_rows_without_an_identity_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(30)

    def columns(part: Any) -> dict[str, Any]:
        return {"uid": [None if r is rows[0] else "zz" if r is rows[1] else r.uid for r in part]}

    write_clip_retrieval(tmp_path / "embeddings", rows, columns=columns)
    write_pool(workspace, rows)
    take(workspace, settings(tmp_path / "embeddings"))
    assert sum(r.drops.get("no_uid", 0) for r in RecordStore(workspace).iterate("stored/b32")) == 2
    gone = {u for u, r in taken(workspace).column("reason").items() if r == "not_stored"}
    assert gone == {rows[0].uid, rows[1].uid}


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 32)


def fewer_rows(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def integers(path: Path) -> None:
    np.save(path, np.load(path).astype(np.int8))


def flat(path: Path) -> None:
    np.save(path, np.load(path).ravel())


def fortran(path: Path) -> None:
    np.save(path, np.asfortranarray(np.load(path)))


def objects(path: Path) -> None:
    np.save(path, np.array([[{}]], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half, "half written"),
        (longer, "but its header says"),
        (fewer_rows, "do not belong together"),
        (integers, "expected vectors of float16"),
        (flat, "expected vectors of float16"),
        (fortran, "Fortran order"),
        (objects, "expected vectors of float16"),
        (lambda p: p.write_bytes(b""), "not an npy array"),
    ],
)
def test_a_file_that_is_not_whole_is_an_error(
    workspace: Workspace, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    write_clip_retrieval(tmp_path / "embeddings", rows_of(60))
    damage(tmp_path / "embeddings/img_emb/img_emb_1.npy")
    write_pool(workspace, rows_of(60))
    with pytest.raises(DataError, match=words) as caught:
        take(workspace, settings(tmp_path / "embeddings"))
    assert "img_emb_1.npy" in str(caught.value)


def test_a_broken_archive_and_a_missing_array(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(60)
    first, second, *_ = write_datacomp(tmp_path / "metadata", rows)
    write_pool(workspace, rows)
    with pytest.raises(UserError, match=r"has no array 'b16_img' \(it has b32_img, b32_txt, l14_img"):
        take(workspace, settings(tmp_path / "metadata", format="datacomp", arrays="b16"))
    half(second.with_suffix(".npz"))
    with pytest.raises(DataError, match="cannot be read"):
        take(workspace, settings(tmp_path / "metadata", format="datacomp"))
    second.unlink()
    with pytest.raises(UserError, match=r"has no .*\.parquet beside it"):
        take(workspace, settings(f"{first.parent}/*.npz", format="datacomp"))


def test_one_broken_file_costs_that_file(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(200)
    folder = tmp_path / "embeddings"
    write_clip_retrieval(folder, rows, files=4)
    half(folder / "text_emb/text_emb_0.npy")
    write_pool(workspace, rows)
    model = settings(folder)
    budget = SYNCHRONOUS.model_copy(update={"error_budget": 0.5})
    monkeypatch.setattr(stages, "UNIT_BYTES", 1)
    with pytest.raises(IncompleteError, match="quarantined"):
        Engine(workspace, budget, Console(quiet=True)).run([SortStage("b32", model), JoinStage("b32", model)])
    lost = {r.uid for r in rows[: 200 // 16]}
    assert {u for u, r in taken(workspace).column("reason").items() if r == "not_stored"} == lost
    write_clip_retrieval(folder, rows, files=4)
    Engine(workspace, budget, Console(quiet=True)).run([SortStage("b32", model), JoinStage("b32", model)])
    check_rows(workspace, rows)


def test_tables_that_are_not_of_their_vectors_are_found_out(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(100)
    (table,) = write_datacomp(tmp_path / "metadata", rows, files=1)
    shifted = pq.read_table(table)
    pq.write_table(pa.concat_tables([shifted[1:], shifted[:1]]), table)
    write_pool(workspace, rows)
    with pytest.raises(DataError, match="do not hold the same samples"):
        take(workspace, settings(tmp_path / "metadata", format="datacomp"))


@pytest.mark.parametrize("unit_bytes", [stages.UNIT_BYTES, 1])
def test_mixed_lengths_are_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit_bytes: int
) -> None:
    monkeypatch.setattr(stages, "UNIT_BYTES", unit_bytes)  # all files in one unit, or each in its own
    rows = rows_of(40)
    write_clip_retrieval(tmp_path / "a", rows[:20], arrays="b32")
    write_clip_retrieval(tmp_path / "b", rows[20:], arrays="l14")
    write_pool(workspace, rows)
    with pytest.raises(UserError, match=r"several lengths: 16 in .* and 24 in"):
        take(workspace, settings([str(tmp_path / "a"), str(tmp_path / "b")]))


def test_only_images(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(60)
    write_clip_retrieval(tmp_path / "embeddings", rows)
    shutil.rmtree(tmp_path / "embeddings/text_emb")
    write_pool(workspace, rows)
    with pytest.raises(UserError, match=r"no text_emb file .*`modalities: \[image\]`"):
        take(workspace, settings(tmp_path / "embeddings"))
    take(workspace, settings(tmp_path / "embeddings", modalities=["image"]))
    path = Family.embeddings("b32").path("00001")
    table = workspace.read_table(path)
    by_uid = {r.uid: r.vectors["b32_img"] for r in rows}
    theirs = np.stack([by_uid[uid] for uid in table["uid"].to_pylist()])
    ours = np.load(workspace.location(layout.embedding("b32", "image", "00001")))
    np.testing.assert_allclose(ours.astype(float), theirs.astype(float), atol=1e-3)
    assert "similarity" not in table.column_names  # it takes two
    assert table["reason"].null_count == table.num_rows > 0
    assert not workspace.exists(layout.embedding("b32", "text", "00001"))


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B/32", "demo"])
def test_a_model_of_another_length_is_refused(workspace: Workspace, tmp_path: Path, name: str) -> None:
    rows = rows_of(20)
    write_clip_retrieval(tmp_path / "embeddings", rows)
    write_pool(workspace, rows)
    with pytest.raises(UserError, match=rf"16 dimensions, but those of '{name}' have \d+"):
        take(workspace, settings(tmp_path / "embeddings", model=name))


def test_uids_of_other_texts_fit_nothing(workspace: Workspace, tmp_path: Path) -> None:
    rows = rows_of(20)
    write_clip_retrieval(tmp_path / "embeddings", [replace(r, text=r.text + " ") for r in rows])
    write_pool(workspace, rows)
    with pytest.raises(UserError, match=r"none of the 20 samples is among the 20 stored rows.*text_repair"):
        take(workspace, settings(tmp_path / "embeddings"))


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda f: (f / "x.txt").write_text("x"), r"has no \.npy"),
        (lambda f: np.save(f / "vectors.npy", np.zeros((2, 2))), "no img_emb_<n>.npy"),
        (lambda f: write_datacomp(f, rows_of(20), 1), "is it `datacomp`"),
        (
            lambda f: (write_clip_retrieval(f, rows_of(20)), (f / "text_emb/text_emb_1.npy").unlink()),
            "number 1 has no text_emb file",
        ),
    ],
)
def test_a_source_that_lacks_something(
    workspace: Workspace, tmp_path: Path, prepare: Callable[[Path], Any], words: str
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    prepare(folder)
    write_pool(workspace, rows_of(5))
    with pytest.raises(UserError, match=words):
        take(workspace, settings(folder))


def test_no_such_source(workspace: Workspace, tmp_path: Path) -> None:
    write_pool(workspace, rows_of(5))
    with pytest.raises(UserError, match=r"embed\.models\.b32\.source: .*nowhere': no such file or folder"):
        take(workspace, settings(tmp_path / "nowhere"))


def test_a_changed_file_is_read_again_and_an_equal_one_changes_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = rows_of(60)
    folder = tmp_path / "embeddings"
    write_clip_retrieval(folder, rows)
    write_pool(workspace, rows)
    model = settings(folder)
    take(workspace, model)
    before = {r.unit: r.finished for r in RecordStore(workspace).iterate("embed/b32")}
    path = folder / "img_emb/img_emb_2.npy"
    path.write_bytes(path.read_bytes())  # another time, the same bytes
    take(workspace, model)
    assert {r.unit: r.finished for r in RecordStore(workspace).iterate("embed/b32")} == before
    changed = [replace(r, vectors={k: np.roll(v, 1) for k, v in r.vectors.items()}) for r in rows]
    write_clip_retrieval(folder, changed)
    take(workspace, model)
    check_rows(workspace, changed)


def test_the_same_bytes_whatever_the_order_of_the_source(tmp_path: Path) -> None:
    rows = rows_of(200)
    images = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        write_clip_retrieval(tmp_path / name / "embeddings", order, files=5)
        workspace = Workspace(str(tmp_path / name / "work"))
        write_pool(workspace, rows)
        take(workspace, settings(tmp_path / name / "embeddings"))
        paths = [layout.embedding("b32", "image", f"0000{i}") for i in range(3)]
        paths += [Family.embeddings("b32").path(f"0000{i}") for i in range(3)]
        images.append([workspace.read_bytes(path) for path in paths])
    assert images[0] == images[1]


def test_what_there_is_to_join_is_listed(workspace: Workspace, tmp_path: Path) -> None:
    write_clip_retrieval(tmp_path / "embeddings", rows_of(30))
    write_pool(workspace, rows_of(30))
    run_stage(workspace, SortStage("b32", settings(tmp_path / "embeddings")))
    facts = json.loads(workspace.read_bytes(layout.stored_list("b32")))
    assert (facts["dim"], facts["rows"], facts["types"]) == (16, 30, ["float16"])
    assert len(facts["names"]) == 1
