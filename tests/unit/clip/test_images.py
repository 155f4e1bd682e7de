"""What is decoded for models, and which failures are an image's own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.clip.images import ImageError, decode
from curate.clip.pixels import Preparation
from curate.embed.decoders import prepare_images


def saved(fmt: str = "PNG", size: tuple[int, int] = (90, 60)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, fmt)
    return stream.getvalue()


def preparation(mode: str = "shortest") -> Preparation:
    return Preparation.of({"size": 32, "resize_mode": mode}, exact=False)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF", "GIF"])
def test_half_an_image_is_refused(fmt: str) -> None:
    data = saved(fmt)
    assert decode(data).size == (90, 60)
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2])


def test_one_flipped_bit_in_a_png() -> None:
    data = bytearray(saved())
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError):
        decode(bytes(data))


@pytest.mark.parametrize("data", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_no_image(data: bytes) -> None:
    with pytest.raises(ImageError, match="unknown format"):
        decode(data)


def test_a_lack_of_memory_is_not_the_image_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise MemoryError

    path = tmp_path / "image"
    path.write_bytes(saved())
    batch = np.zeros((1, 32, 32, 3), np.uint8)
    spans = [(0, 0, path.stat().st_size)]
    assert prepare_images(str(path), spans, [(preparation(), batch)]) == []
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(MemoryError):
        prepare_images(str(path), spans, [(preparation(), batch)])


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(3_000, 1), (1, 3_000)])
def test_strips(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Where nothing would be left of a strip it has no embedding; everywhere else it has one."""
    path = tmp_path / "image"
    path.write_bytes(saved(size=size))
    batch = np.ones((1, 32, 32, 3), preparation(mode).dtype)
    broken = prepare_images(str(path), [(0, 0, path.stat().st_size)], [(preparation(mode), batch)])
    assert broken == ([0] if mode == "longest" else [])
    assert batch.any() == (mode != "longest")
