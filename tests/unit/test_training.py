from __future__ import annotations

import io
import json
import tarfile
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import webdataset as wds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import curate
from curate.dataset.uid import halves
from curate.errors import UserError
from curate.training import LoadedSelection

# Zero bytes at the end, which numpy's strings do not keep, and neighbours of them.
UIDS = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**8 - 1).map(lambda n: n << 120),
    st.integers(0, 2**16).map(lambda n: n << 56),
)


def subset(uids: list[str]) -> np.ndarray:
    return halves(pa.array(uids, pa.string()))


@given(st.lists(UIDS, max_size=30), st.lists(UIDS, max_size=10))
def test_it_counts_as_a_counter_does(kept: list[int], others: list[int]) -> None:
    uids = [f"{n:032x}" for n in kept]
    selection, counter = LoadedSelection(subset(uids)), Counter(uids)
    assert len(selection) == len(uids)
    for uid in [*uids, *(f"{n:032x}" for n in others)]:
        assert selection.count(uid) == counter[uid]
        assert (uid in selection) == (uid in counter)


def test_what_is_no_uid_is_not_kept() -> None:
    selection = LoadedSelection(subset(["0" * 32]))
    assert "0" * 32 in selection
    for wrong in ("", "0" * 31, "z" * 32, "é" * 32, None, 7):
        assert wrong not in selection


def shard(path: Path, uids: list[str], key: str = "uid") -> str:
    with tarfile.open(path, "w") as tar:
        for i, uid in enumerate(uids):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (i, 0, 0)).save(picture, "JPEG")
            name = uid if key == "uid" else f"{i:09d}"
            facts = json.dumps({"uid": uid} if key == "json" else {"width": 8}).encode()
            for suffix, data in (("jpg", picture.getvalue()), ("json", facts), ("txt", str(i).encode())):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture
def uids() -> list[str]:
    return [f"{i * 7919:032x}" for i in range(20)]


@pytest.mark.parametrize("key", ["uid", "json"])
def test_webdataset_reads_only_what_is_kept(tmp_path: Path, uids: list[str], key: str) -> None:
    kept = [uids[3], uids[5], uids[5], uids[5], uids[9]]
    np.save(tmp_path / "s.npy", subset(kept))
    selection = curate.load_selection(str(tmp_path / "s.npy"))
    url = shard(tmp_path / "0.tar", uids, key)
    once = [int(s["txt"]) for s in wds.WebDataset(url, shardshuffle=False).select(selection)]
    assert once == [3, 5, 9]
    again = [int(s["txt"]) for s in wds.WebDataset(url, shardshuffle=False).compose(selection.repeat)]
    assert again == [3, 5, 5, 5, 9]


def test_open_clips_own_loader(tmp_path: Path, uids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/filters.md shows."""
    data = pytest.importorskip("open_clip_train.data")
    np.save(tmp_path / "s.npy", subset(uids[::4]))
    selection = curate.load_selection(str(tmp_path / "s.npy"))
    usual = data.filter_no_caption_or_no_image
    monkeypatch.setattr(data, "filter_no_caption_or_no_image", lambda s: selection(s) and usual(s))
    arguments = Namespace(
        train_data=None, val_data=shard(tmp_path / "0.tar", uids), train_num_samples=None, val_num_samples=20,
        train_data_upsampling_factors=None, dataset_resampled=False, seed=0, workers=0, batch_size=4,
        world_size=1,
    )  # fmt: skip

    def pixels(image: Image.Image) -> torch.Tensor:
        return torch.tensor(np.asarray(image)).float()

    def tokens(text: str) -> Any:
        return torch.tensor([[int(text)]])

    loader = data.get_wds_dataset(arguments, pixels, is_train=False, tokenizer=tokens).dataloader
    assert [int(n) for _, texts in loader for n in texts.flatten()] == [0, 4, 8, 12, 16]


def test_a_workspace_and_its_mistakes(tmp_path: Path, uids: list[str]) -> None:
    folder = tmp_path / "selections" / "e"
    folder.mkdir(parents=True)
    np.save(folder / "subset.npy", subset(uids[:3]))
    assert len(curate.load_selection(str(tmp_path), "e")) == 3
    with pytest.raises(UserError, match=r"selections/f/subset.npy; has `curate filter` run\?"):
        curate.load_selection(str(tmp_path), "f")
    np.save(tmp_path / "n.npy", np.arange(5))
    with pytest.raises(UserError, match=r"expected u8,u8 \(n,\), got int64"):
        curate.load_selection(str(tmp_path / "n.npy"))
    (tmp_path / "t.npy").write_bytes(b"no npy")
    with pytest.raises(UserError, match="cannot be read as npy"):
        curate.load_selection(str(tmp_path / "t.npy"))
    with pytest.raises(AttributeError, match="load_selections"):
        curate.load_selections  # noqa: B018
