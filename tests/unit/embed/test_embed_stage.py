from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from curate.clip.vectors import open_vectors
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.embed import encoding
from curate.embed.stage import EmbedStage
from curate.engine.engine import Engine
from curate.engine.plan import make_plan
from curate.engine.stage import in_one_pass
from curate.errors import DataError, UserError
from curate.samples.columns import columns_of
from tests.unit.embed.clip_shards import (
    SYNCHRONOUS,
    FakeDownload,
    dataset,
    image_table,
    jpeg,
    run_stage,
    samples,
    save_clip,
    settings_of,
    tar_of,
)


def vectors(space: Workspace, kind: str, shard: str = "00000") -> np.ndarray:
    with open_vectors(space, layout.embedding("m", kind, shard)) as found:
        return np.array(found, np.float32)


def table(space: Workspace, shard: str = "00000") -> list[dict[str, object]]:
    return space.read_table(Family.embeddings("m").path(shard)).to_pylist()


def test_rows_are_the_samples_in_order_and_similarity_is_their_cosine(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    rows = samples(11)
    made = {
        "00000": (
            image_table(rows, failed=[2, 7]),
            tar_of([(r[0], jpeg(i)) for i, r in enumerate(rows) if i not in (2, 7)]),
        )
    }
    run_stage(space, FakeDownload(made))
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    expected = [r for i, r in enumerate(rows) if i not in (2, 7)]
    found = table(space)
    assert [(r["uid"], r["caption"], r["url"]) for r in found] == expected
    image, text = vectors(space, "image"), vectors(space, "text")
    assert image.shape == text.shape == (9, 32)
    cosines = (image * text).sum(axis=1)
    assert np.allclose([r["similarity"] for r in found], cosines, atol=2e-3)
    assert {r["reason"] for r in found} == {None}


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64}, {"decode_workers": 1}])
def test_numbers_do_not_depend_on_batches_or_threads(
    tmp_path: Path, tiny: Path, options: dict[str, int]
) -> None:
    found = []
    for i, more in enumerate([{}, options]):
        space = Workspace(str(tmp_path / str(i)))
        dataset(space, samples(20), shards=2)
        run_stage(space, EmbedStage("m", settings_of(tiny, **more)))
        found.append(
            (vectors(space, "image"), vectors(space, "text"), [r["similarity"] for r in table(space)])
        )
    for one, other in zip(*found, strict=True):
        assert np.allclose(one, other, atol=1e-3)


def test_numbers_do_not_depend_on_the_cut_into_shards(tmp_path: Path, tiny: Path) -> None:
    found = []
    for shards in (1, 3):
        space = Workspace(str(tmp_path / str(shards)))
        dataset(space, samples(40), shards=shards)
        run_stage(space, EmbedStage("m", settings_of(tiny)))
        names = [layout.shard_name(i, shards) for i in range(shards)]
        found.append([np.concatenate([vectors(space, k, n) for n in names]) for k in ("image", "text")])
        found[-1].append(np.array([r["similarity"] for n in names for r in table(space, n)]))
    for one, other in zip(*found, strict=True):
        assert np.allclose(one, other, atol=1e-3)


def test_two_runs_give_the_same_bytes(tmp_path: Path, tiny: Path) -> None:
    digests = []
    for name in "ab":
        space = Workspace(str(tmp_path / name))
        dataset(space, samples(20), shards=2)
        run_stage(space, EmbedStage("m", settings_of(tiny)))
        digests.append(sorted((p, r.digest) for p, r in RecordStore(space).outputs("embed/m").items()))
    assert digests[0] == digests[1]


def test_what_cannot_be_embedded_keeps_its_row_with_a_reason(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    rows: list[tuple[str, str | None, str]] = list(samples(6))
    rows[1] = (rows[1][0], "", rows[1][2])
    rows[2] = (rows[2][0], None, rows[2][2])
    images = [(r[0], jpeg(i)) for i, r in enumerate(rows)]
    images[3] = (rows[3][0], b"\xff\xd8 not a picture")
    del images[4]
    run_stage(space, FakeDownload({"00000": (image_table(rows), tar_of(images))}))
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    found = table(space)
    reasons = [None, "no_text", "no_text", "decode_error", "missing_member", None]
    assert [r["reason"] for r in found] == reasons
    assert [r["similarity"] is None for r in found] == [r is not None for r in reasons]
    image, text = vectors(space, "image"), vectors(space, "text")
    assert np.isnan(image[[3, 4]]).all()
    assert np.isfinite(image[[0, 1, 2, 5]]).all()
    assert np.isnan(text[[1, 2]]).all()
    (record,) = RecordStore(space).iterate("embed/m")
    assert record.rows_in == 6
    assert record.rows_out + sum(record.drops.values()) == 6


def test_a_tar_cut_short_costs_only_what_is_cut_off(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    rows = samples(8)
    tar = tar_of([(r[0], jpeg(i)) for i, r in enumerate(rows)])
    run_stage(space, FakeDownload({"00000": (image_table(rows), tar[: len(tar) // 2])}))
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    reasons = [r["reason"] for r in table(space)]
    assert set(reasons) == {None, "missing_member"}
    assert reasons == sorted(reasons, key=str, reverse=True) or reasons[0] is None


def test_an_empty_shard(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    run_stage(space, FakeDownload({"00000": (image_table([]), tar_of([]))}))
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    assert vectors(space, "image").shape == (0, 32)
    assert table(space) == []


def test_another_checkpoint_under_the_same_path_redoes_the_work(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip", seed=1)
    space = Workspace(str(tmp_path / "w"))
    dataset(space, samples(5), shards=1)
    run_stage(space, EmbedStage("m", settings_of(folder)))
    before = space.read_json(layout.embedding_model("m"))["weights"]
    assert make_plan(EmbedStage("m", settings_of(folder)), space, RecordStore(space)).jobs == []
    save_clip(folder, seed=2)
    stage = EmbedStage("m", settings_of(folder))
    assert len(make_plan(stage, space, RecordStore(space)).jobs) == 1
    run_stage(space, stage)
    assert space.read_json(layout.embedding_model("m"))["weights"] != before


def test_knobs_do_not_redo(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    dataset(space, samples(5), shards=1)
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    stage = EmbedStage("m", settings_of(tiny, batch_size=3, decode_workers=2))
    assert make_plan(stage, space, RecordStore(space)).jobs == []


def test_half_an_npy_and_a_wrong_dimension_are_errors(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    dataset(space, samples(5), shards=1)
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    path = layout.embedding("m", "image", "00000")
    with (
        pytest.raises(DataError, match="expected vectors of 64 dimensions, got 32"),
        open_vectors(space, path, 5, 64),
    ):
        pass
    space.write_bytes(path, space.read_bytes(path)[:200])
    with pytest.raises(DataError, match="not a whole npy file"), open_vectors(space, path):
        pass


def test_unsorted_images_are_an_error(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    rows = samples(4)[::-1]
    run_stage(space, FakeDownload({"00000": (image_table(rows), tar_of([]))}))
    with pytest.raises(DataError, match="not sorted"):
        run_stage(space, EmbedStage("m", settings_of(tiny)))


def test_a_model_that_is_not_there_stops_before_any_work(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    dataset(space, samples(4), shards=1)
    with pytest.raises(UserError, match="no such folder"):
        make_plan(EmbedStage("m", settings_of(tmp_path / "none")), space, RecordStore(space))


def test_the_layout_is_clip_retrievals(tmp_path: Path, tiny: Path, fixtures_dir: Path) -> None:
    """The same three kinds of file with the same types as a folder that clip-retrieval wrote."""
    space = Workspace(str(tmp_path))
    dataset(space, samples(5), shards=1)
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    theirs = fixtures_dir / "embeddings/clip_retrieval_output/embeddings"
    for kind in ("img_emb", "text_emb"):
        genuine = np.load(theirs / kind / f"{kind}_0.npy")
        ours = np.load(tmp_path / "embeddings/m" / kind / f"{kind}_00000.npy")
        assert (ours.dtype, ours.ndim) == (genuine.dtype, genuine.ndim)
    schema = pq.read_schema(tmp_path / "embeddings/m/metadata/metadata_00000.parquet")
    for field in pq.read_schema(theirs / "metadata/metadata_0.parquet"):
        assert schema.field(field.name).type == field.type
    image, text = (np.load(theirs / k / f"{k}_0.npy").astype(np.float32) for k in ("img_emb", "text_emb"))
    cosines = (image * text).sum(axis=1)
    assert np.flatnonzero(cosines >= 0.30).tolist() == [0, 1, 2, 3, 5, 6, 8]


def test_several_models_share_a_pass_and_change_nothing(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_clip(tmp_path / "other", seed=5)
    decoded: list[int] = []
    real = encoding.Decoders.prepare

    def counted(self: Any, path: str, spans: Any, targets: Any) -> Any:
        decoded.extend(row for row, _, _ in spans)
        return real(self, path, spans, targets)

    monkeypatch.setattr(encoding.Decoders, "prepare", counted)
    digests = []
    for name in ("apart", "together"):
        space = Workspace(str(tmp_path / name))
        dataset(space, samples(20), shards=2)
        stages = [
            EmbedStage("m", settings_of(tiny)),
            EmbedStage("exact", settings_of(tiny, preprocess="exact")),
            EmbedStage("other", settings_of(other, batch_size=5)),
        ]
        decoded.clear()
        if name == "together":
            in_one_pass(stages)
        Engine(space, SYNCHRONOUS, Console(quiet=True)).run(stages)
        digests.append([(p, r.digest) for s in stages for p, r in RecordStore(space).outputs(s.name).items()])
        assert len(decoded) == 20 * (3 if name == "apart" else 1)
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3 * 2 * 3


@pytest.mark.parametrize(("kind", "other"), [("image", "text"), ("text", "image")])
def test_one_modality_only(tmp_path: Path, tiny: Path, kind: str, other: str) -> None:
    space = Workspace(str(tmp_path))
    rows: list[tuple[str, str | None, str]] = list(samples(6))
    rows[1] = (rows[1][0], "", rows[1][2])
    images = [(r[0], jpeg(i)) for i, r in enumerate(rows)]
    images[3] = (rows[3][0], b"broken")
    run_stage(space, FakeDownload({"00000": (image_table(rows), tar_of(images))}))
    run_stage(space, EmbedStage("m", settings_of(tiny, modalities=[kind])))
    assert [r["reason"] for r in table(space)] == [
        {("text", 1): "no_text", ("image", 3): "decode_error"}.get((kind, i)) for i in range(6)
    ]
    assert "similarity" not in table(space)[0]
    assert np.isfinite(vectors(space, kind)).all(axis=1).sum() == 5
    assert not space.exists(layout.embedding("m", other, "00000"))
    assert "m_similarity" not in columns_of(space, "00000", ["m"], [])


def test_captions_that_do_not_fit_are_cut_and_counted(tmp_path: Path, tiny: Path) -> None:
    space = Workspace(str(tmp_path))
    rows = samples(4, caption="a picture of thing {} " + "and of another thing " * 40)
    run_stage(space, FakeDownload({"00000": (image_table(rows), tar_of([(r[0], jpeg(1)) for r in rows]))}))
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    (record,) = RecordStore(space).iterate("embed/m")
    assert record.stats["captions_that_fill_the_context"] == 4
    assert record.rows_out == 4
