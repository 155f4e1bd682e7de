"""``image_spans`` against ``members``, which reads the same tars through ``tarfile``."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset.tars import image_spans, members

NAMES = st.from_regex(r"\A(\./|dir/|a.b/)?[a-z0-9]{1,12}\.(jpg|JPG|txt|json|png|tar\.gz|jpg\.txt)\Z")
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def archive(entries: list[tuple[str, bytes]], form: int, folders: bool) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        if folders:
            info = tarfile.TarInfo("dir")
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if folders:
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "dir"
            tar.addfile(link)
    return out.getvalue()


def by_spans(data: bytes) -> list[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        path.write_bytes(data)
        return [(key, data[at : at + size]) for key, at, size in image_spans(path)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=8),
    st.sampled_from(FORMATS),
    st.booleans(),
    st.floats(0, 1),
)
def test_whole_and_cut_archives_give_what_tarfile_gives(
    entries: list[tuple[str, bytes]], form: int, folders: bool, cut: float
) -> None:
    data = archive(entries, form, folders)
    assert by_spans(data) == list(members(io.BytesIO(data)))
    cut_data = data[: int(len(data) * cut)]
    assert by_spans(cut_data) == list(members(io.BytesIO(cut_data)))


@pytest.mark.parametrize("form", FORMATS)
def test_long_and_foreign_names(form: int) -> None:
    name = "x" * 90 + "/" + "y" * (60 if form == tarfile.USTAR_FORMAT else 150) + ".jpg"
    data = archive([(name, b"1"), ("größe.jpg", b"22"), ("z.jpg", b"333")], form, folders=False)
    assert by_spans(data) == list(members(io.BytesIO(data)))
    assert len(by_spans(data)) == 3


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_anywhere_never_raises(data: st.DataObject) -> None:
    raw = bytearray(
        archive([("a.jpg", b"1" * 600), ("b.jpg", b"2" * 10)], tarfile.USTAR_FORMAT, folders=True)
    )
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for key, content in by_spans(bytes(raw)):
        assert isinstance(key, str)
        assert isinstance(content, bytes)


def test_real_webdataset_shards(fixtures_dir: Path) -> None:
    tars = sorted((fixtures_dir / "images" / "clip_retrieval_tars").glob("*.tar"))
    assert tars
    for path in tars:
        with path.open("rb") as stream:
            assert by_spans(path.read_bytes()) == list(members(stream))
