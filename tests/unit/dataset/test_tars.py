from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.dataset.tars import TarWriter, header

NAMES = st.text("abcdef0123456789./", min_size=1, max_size=100)


@given(NAMES, st.integers(0, 8**11 - 1))
def test_header_is_the_standard_library_s(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@given(st.lists(st.binary(max_size=1500), max_size=8))
def test_archive_is_the_standard_library_s(members: list[bytes]) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = TarWriter(ours)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for i, data in enumerate(members):
            writer.add(f"{i}.jpg", data)
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size, info.mode = len(data), 0o444
            archive.addfile(info, io.BytesIO(data))
    writer.close()
    assert ours.getvalue() == theirs.getvalue()


@pytest.mark.parametrize(("name", "size"), [("", 1), ("x" * 101, 1), ("a", 8**11), ("a", -1)])
def test_what_does_not_fit(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        header(name, size)
