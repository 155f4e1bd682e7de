from __future__ import annotations

import hashlib
import inspect
import io
import json
import tarfile
from argparse import Namespace
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import webdataset as wds
import yaml
from PIL import Image
from rich.console import Console

from curate.config.models import ExportSettings, RunSettings
from curate.dataset import layout
from curate.dataset.family import IMAGES, Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine, run_unit
from curate.engine.plan import Job, make_plan
from curate.errors import IncompleteError, UserError
from curate.export.stage import ExportStage
from tests.unit.export.fake_workspace import EXPERIMENT, HOSTILE_TEXT, MODELS, SCORERS, make_workspace

ROOT = f"export/{EXPERIMENT}"


def stage(shard_size: int = 7, **kwargs: object) -> ExportStage:
    return ExportStage(EXPERIMENT, ExportSettings(shard_size=shard_size, **kwargs), MODELS, SCORERS)


def export(ws: Workspace, what: ExportStage) -> Path:
    settings = RunSettings(cluster="synchronous", error_budget=1.0, retries=0)
    Engine(ws, settings, Console(file=io.StringIO())).run([what])
    return Path(ws.location(ROOT))


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def kept(ws: Workspace) -> list[tuple[str, int]]:
    subset = np.load(ws.location(f"selections/{EXPERIMENT}/subset.npy"))
    return sorted(Counter(f"{high:016x}{low:016x}" for high, low in subset.tolist()).items())


def test_shards_hold_what_the_selection_keeps_in_uid_order(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    folder = export(ws, stage())
    tars = sorted(folder.glob("*.tar"))
    samples = list(wds.WebDataset([str(t) for t in tars], shardshuffle=False))
    uids = [uid for uid, _ in kept(ws)]
    assert len(uids) > 15
    assert [s["__key__"] for s in samples] == uids
    assert [json.loads(s["json"])["uid"] for s in samples] == uids
    table = pq.read_table([t.with_suffix(".parquet") for t in tars])
    assert table["uid"].to_pylist() == table["key"].to_pylist() == uids
    assert [s["txt"].decode() for s in samples] == table["text"].to_pylist()
    assert HOSTILE_TEXT in table["text"].to_pylist()
    sizes = json.loads((folder / "sizes.json").read_text())
    assert sizes == {t.name: min(7, len(uids) - 7 * i) for i, t in enumerate(tars)}
    for tar in tars:
        stats = json.loads((folder / f"{tar.stem}_stats.json").read_text())
        assert stats == {"successes": sizes[tar.name]}


def test_image_bytes_are_those_of_the_input_and_json_says_what_the_table_says(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    folder = export(ws, stage())
    originals = {}
    for path in Path(ws.location("images")).glob("*.tar"):
        with tarfile.open(path) as tar:
            originals |= {m.name: tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")}
    rows = {r["uid"]: r for p in folder.glob("*.parquet") for r in pq.read_table(p).to_pylist()}
    for path in folder.glob("*.tar"):
        for sample in wds.WebDataset(str(path), shardshuffle=False):
            assert sample["jpg"] == originals[f"{sample['__key__']}.jpg"]
            facts, row = json.loads(sample["json"]), rows[sample["__key__"]]
            assert set(facts) == set(row) - {"exif"}
            for name, value in facts.items():
                if isinstance(value, float):
                    assert np.float32(value) == np.float32(row[name])
                else:
                    assert value == row[name]
            assert {"url", "sha256", "original_width", "similarity", "nsfw_score", "txt_lang"} <= set(facts)


def test_repeats_give_numbered_keys_and_datacomps_subset(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", candidates=90, repeats=True)
    folder = export(ws, stage(shard_size=5))
    expected = []
    for uid, n in kept(ws):
        expected += [uid] if n == 1 else [f"{uid}-{j}" for j in range(n)]
    assert any("-2" in key for key in expected)
    tars = [str(t) for t in sorted(folder.glob("*.tar"))]
    assert [s["__key__"] for s in wds.WebDataset(tars, shardshuffle=False)] == expected
    ids = np.load(folder / "sample_ids.npy")
    subset = np.load(ws.location(layout.selection_file(EXPERIMENT, "subset.npy")))
    assert ids.dtype == subset.dtype == np.dtype("u8,u8")
    assert np.array_equal(ids, subset)
    assert np.array_equal(ids, np.sort(ids))


@pytest.fixture
def open_clip_data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """open_clip's loader; webdataset 0.2.96 and later end a shard with a value it does not know."""
    data = pytest.importorskip("open_clip_train.data")
    if "eof_value" in inspect.signature(data.tar_file_expander).parameters:
        monkeypatch.setattr(data, "tar_file_expander", partial(data.tar_file_expander, eof_value=None))
    return data


@pytest.mark.parametrize("is_train", [True, False])
def test_open_clip_trains_on_it(tmp_path: Path, is_train: bool, open_clip_data: Any) -> None:
    ws = make_workspace(tmp_path / "ws")
    folder = export(ws, stage(shard_size=8))
    sizes = json.loads((folder / "sizes.json").read_text())
    shards = f"{folder}/{{00000..{len(sizes) - 1:05d}}}.tar"
    args = Namespace(
        train_data=shards,
        val_data=shards,
        train_num_samples=None,
        val_num_samples=None,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        workers=0,
        batch_size=4,
        world_size=1,
    )

    def preprocess(image: Image.Image) -> torch.Tensor:
        return torch.tensor(np.asarray(image.resize((8, 8)))).float()

    def tokenize(text: str) -> torch.Tensor:
        return torch.tensor([[len(text)]])

    info = open_clip_data.get_wds_dataset(args, preprocess, is_train=is_train, tokenizer=tokenize)
    batches = list(info.dataloader)
    lengths = Counter(int(n) for _, texts in batches for n in texts.flatten())
    total = sum(sizes.values())
    if is_train:
        assert info.dataloader.num_samples == -(-total // 4) * 4  # size known from sizes.json alone
    else:
        texts = [t for p in folder.glob("*.parquet") for t in pq.read_table(p)["text"].to_pylist()]
        assert lengths == Counter(len(t) for t in texts)


def test_same_bytes_again_and_in_any_order(tmp_path: Path) -> None:
    first = make_workspace(tmp_path / "a", repeats=True)
    second = make_workspace(tmp_path / "b", repeats=True)
    one = digests(export(first, stage()))
    what = stage()
    for unit in sorted(what.units(second), key=lambda u: u.name, reverse=True):
        what.run(second, unit)  # done, but killed before the record was written
        run_unit(what, second, Job(unit, "another key"))
    assert digests(export(second, stage())) == one
    assert digests(export(first, stage())) == one


def test_a_finished_unit_stays_and_a_lost_one_is_made_again(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    folder = export(ws, stage())
    before = digests(folder)
    (folder / "00001.tar").unlink()
    (folder / "README.md").unlink()
    plan = make_plan(stage(), ws, RecordStore(ws))
    assert [job.unit.name for job in plan.jobs] == ["00001"]
    assert digests(export(ws, stage())) == before


def test_a_changed_score_touches_only_its_shards(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    what = stage(shard_size=4)
    export(ws, what)
    record = RecordStore(ws).read("score/txt", "00002")
    assert record is not None
    table = ws.read_table(Family.scores("txt").path("00002"))
    ref = ws.write_table(Family.scores("txt").path("00002"), table.append_column("txt_new", [table["uid"]]))
    RecordStore(ws).write(msgspec.structs.replace(record, outputs=[ref]))
    jobs = {job.unit.name for job in make_plan(what, ws, RecordStore(ws)).jobs}
    reads = {u.name for u in what.units(ws) if any(row[0] == "00002" for row in u.payload["rows"])}
    assert jobs == reads
    assert 0 < len(jobs) < len(list(what.units(ws)))


def test_missing_image_member_costs_that_row(tmp_path: Path) -> None:
    whole = make_workspace(tmp_path / "a", repeats=True)
    holed = make_workspace(tmp_path / "b", repeats=True, missing=2)
    lost = dict(kept(whole)[:2])
    folder = export(holed, stage())
    records = list(RecordStore(holed).iterate(stage().name))
    assert records[0].drops == {"missing_member": sum(lost.values())}
    assert sum(r.rows_in for r in records) - sum(r.rows_out for r in records) == sum(lost.values())
    uids = {u for p in folder.glob("*.parquet") for u in pq.read_table(p)["uid"].to_pylist()}
    assert uids == {u for u, _ in kept(whole)} - set(lost)
    tars = [str(t) for t in sorted(folder.glob("*.tar"))]
    assert {s["__key__"][:32] for s in wds.WebDataset(tars, shardshuffle=False)} == uids
    assert "`missing_member`" in (folder / "README.md").read_text()
    assert len(np.load(folder / "sample_ids.npy")) == sum(n for u, n in kept(whole) if u not in lost)


def test_empty_selection_is_said_and_leaves_no_shards(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", empty=True)
    folder = export(ws, stage())
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "metadata.json",
        "sample_ids.npy",
        "sizes.json",
    ]
    assert "selection is empty" in (folder / "README.md").read_text()
    assert json.loads((folder / "sizes.json").read_text()) == {}
    assert json.loads((folder / "metadata.json").read_text())["samples"] == 0
    assert np.load(folder / "sample_ids.npy").shape == (0,)


def test_no_selection_is_a_clear_error(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    ws.remove(layout.selection_file(EXPERIMENT, "counts.parquet"))
    with pytest.raises(UserError, match="run `curate filter` first"):
        list(stage().units(ws))


def test_smaller_selection_removes_old_shards(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    assert len(list(export(ws, stage(shard_size=4)).glob("*.tar"))) > 2
    folder = export(ws, stage(shard_size=1000))
    assert sorted(digests(folder)) == [
        "00000.parquet",
        "00000.tar",
        "00000_stats.json",
        "README.md",
        "metadata.json",
        "sample_ids.npy",
        "sizes.json",
    ]


def test_tables_only(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    with_tars = export(ws, stage())
    tables = {p.name: pq.read_table(p) for p in with_tars.glob("*.parquet")}
    folder = export(ws, stage(tars=False))
    assert {p.suffix for p in folder.iterdir()} == {".parquet", ".md", ".json", ".npy"}
    assert not list(folder.glob("*_stats.json"))
    assert not (folder / "sizes.json").exists()
    for name, table in tables.items():
        assert pq.read_table(folder / name).equals(table)
    assert "no images" in (folder / "README.md").read_text()


@pytest.mark.parametrize("damage", ["truncated", "unordered", "uncommitted", "stale"])
def test_broken_input_shard_costs_its_units(tmp_path: Path, damage: str) -> None:
    ws = make_workspace(tmp_path / "ws")
    path = Path(ws.location(layout.image_tar("00000")))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:700])
    elif damage == "unordered":
        with tarfile.open(path) as tar:
            members = [(m, tar.extractfile(m).read()) for m in tar]
        with tarfile.open(path, "w") as tar:
            for member, data in reversed(members):
                tar.addfile(member, io.BytesIO(data))
    elif damage == "uncommitted":
        RecordStore(ws).remove("score/txt", "00000")
    else:
        table = ws.read_table(IMAGES.path("00000"))
        ws.write_table(IMAGES.path("00000"), table.slice(0, 5))
    with pytest.raises(IncompleteError):
        export(ws, stage())
    records = {r.unit: r for r in RecordStore(ws).iterate(stage().name)}
    hit = {u.name for u in stage().units(ws) if any(row[0] == "00000" for row in u.payload["rows"])}
    assert {name for name, r in records.items() if r.failed} <= hit
    assert records["00000"].failed
    assert not all(r.failed for r in records.values())
    facts = json.loads((Path(ws.location(ROOT)) / "metadata.json").read_text())
    assert facts["steps"][-1]["failed_units"] == sum(r.failed for r in records.values())


def test_without_models_and_scorers(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", models=(), scorers=())
    what = ExportStage(EXPERIMENT, ExportSettings(shard_size=50), (), ())
    folder = export(ws, what)
    assert "similarity" not in pq.read_table(folder / "00000.parquet").column_names


def test_which_experiments_are_exported_does_not_redo_one() -> None:
    one = ExportStage("a", ExportSettings(experiments=("a",)), MODELS, SCORERS)
    other = ExportStage("a", ExportSettings(), MODELS, SCORERS)
    assert one.settings == other.settings


def test_card_is_a_hugging_face_card(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    folder = export(ws, stage())
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["size_categories"] == ["n<1K"]
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "*.tar"}]
    facts = json.loads((folder / "metadata.json").read_text())
    assert facts["samples"] == len(kept(ws))
    for step in facts["steps"]:
        assert step["rows_in"] == step["rows_out"] + sum(step["drops"].values())
        for reason, n in step["drops"].items():
            assert f"`{reason}`" in text
            assert f"| {n:,} |" in text
    assert "`similarity >= 0.26`" in text
    assert "f00dfeed" in text
    for column in facts["columns"]:
        assert f"| `{column}` |" in text
