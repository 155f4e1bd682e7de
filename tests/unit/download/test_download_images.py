"""Bodies to pictures: what is checked, mended, kept and refused."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from curate.download import engine
from curate.download.decode import load, read_header
from curate.download.exif import MAX_EXIF
from curate.download.limits import ImageError, Limits
from curate.download.memory import ByteBudget, DecodingThreads
from curate.download.reasons import classify
from curate.download.resize import Picture, Shrinker
from curate.download.rgb import UPRIGHT, bgr_pixels
from curate.reasons import DownloadReason as R
from tests.unit.download.web import picture, settings

Pixels = npt.NDArray[np.uint8]


def shrink(data: bytes, **changes: Any) -> Picture:
    return Shrinker(settings(**changes))(data)


def decoded(data: bytes, **changes: Any) -> Pixels:
    """Pixels before the resize."""
    limits = Limits.from_settings(settings(**changes))
    found = load(read_header(data, limits), limits).pixels
    assert found is not None
    return found


def pixels(result: Picture) -> Pixels:
    image = Image.open(io.BytesIO(result.data))
    assert image.size == (result.width, result.height)
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(data: bytes, **changes: Any) -> R:
    with pytest.raises(ImageError) as caught:
        shrink(data, **changes)
    return classify(str(caught.value))


def encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


def quadrants(width: int = 80, height: int = 40) -> Image.Image:
    """Red, green / blue, white: tells every orientation from every other."""
    array = np.zeros((height, width, 3), np.uint8)
    array[: height // 2, : width // 2] = (255, 0, 0)
    array[: height // 2, width // 2 :] = (0, 255, 0)
    array[height // 2 :, : width // 2] = (0, 0, 255)
    array[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(array)


def close(a: Any, b: Any, tolerance: int = 12) -> bool:
    return bool(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= tolerance)


class TestKeeping:
    def test_small_jpeg_is_kept_byte_by_byte(self) -> None:
        data = picture(200, 150)
        result = shrink(data)
        assert result.data == data
        assert (result.width, result.height) == (200, 150)
        assert (result.original_width, result.original_height) == (200, 150)
        assert result.sha256 == hashlib.sha256(data).hexdigest()

    def test_only_when_asked_for(self) -> None:
        data = picture(200, 150)
        assert shrink(data, skip_reencode=False).data != data

    @pytest.mark.parametrize("fmt", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
    def test_other_formats_become_jpeg(self, fmt: str) -> None:
        result = shrink(encoded(quadrants(), fmt))
        assert Image.open(io.BytesIO(result.data)).format == "JPEG"
        assert close(pixels(result)[5, 5], (255, 0, 0), 60)

    @pytest.mark.parametrize(("extension", "fmt"), [("png", "PNG"), ("webp", "WEBP")])
    def test_other_targets(self, extension: str, fmt: str) -> None:
        options = {"encode_format": extension, "encode_quality": 9}
        own = encoded(quadrants(), fmt)
        assert shrink(own, **options).data == own
        assert Image.open(io.BytesIO(shrink(picture(), **options).data)).format == fmt

    def test_animation_is_not_kept(self) -> None:
        frames = [quadrants(), quadrants().transpose(Image.Transpose.ROTATE_180)]
        data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
        result = shrink(data, encode_format="webp", encode_quality=100)
        assert result.data != data
        assert getattr(Image.open(io.BytesIO(result.data)), "n_frames", 1) == 1


class TestSizes:
    @pytest.mark.parametrize(
        ("mode", "size", "expected"),
        [
            ("no", (800, 400), (800, 400)),
            ("keep_ratio", (800, 400), (200, 100)),
            ("keep_ratio_largest", (800, 400), (100, 50)),
            ("center_crop", (800, 400), (100, 100)),
            ("border", (800, 400), (100, 100)),
            ("keep_ratio", (80, 40), (80, 40)),
        ],
    )
    def test_modes(self, mode: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
        result = shrink(picture(*size), resize_mode=mode, image_size=100)
        assert (result.width, result.height) == expected
        assert (result.original_width, result.original_height) == size
        assert pixels(result).shape[:2] == expected[::-1]

    def test_enlarging(self) -> None:
        result = shrink(picture(40, 20), image_size=100, resize_only_if_bigger=False)
        assert (result.width, result.height) == (200, 100)
        square = shrink(picture(100, 60), image_size=100, resize_only_if_bigger=False, resize_mode="border")
        assert (square.width, square.height) == (100, 100)

    def test_strip_is_not_enlarged_without_bounds(self) -> None:
        strip = encoded(Image.new("RGB", (60_000, 1)), "PNG")
        assert refusal(strip, image_size=256, resize_only_if_bigger=False) is R.TOO_MANY_PIXELS

    def test_a_reduced_decode_does_not_change_the_size(self) -> None:
        result = shrink(picture(9, 21), image_size=2, resize_only_if_bigger=False)
        assert (result.width, result.height) == (2, 5)

    @hypothesis_settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.booleans(),
        st.sampled_from(["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]),
    )  # fmt: skip
    def test_sizes_are_the_engine_s(
        self, width: int, height: int, size: int, bigger: bool, mode: str
    ) -> None:
        """With or without keeping, a picture has the size that img2dataset's Resizer gives it."""
        data = picture(width, height)
        options = {"image_size": size, "resize_mode": mode, "resize_only_if_bigger": bigger}
        array = np.asarray(Image.open(io.BytesIO(data)))
        _, w, h, words = engine.resize(engine.make_resizer(settings(**options)), array)
        assert not words
        result = shrink(data, **options)
        assert (result.width, result.height) == (w, h)
        assert pixels(result).shape == (h, w, 3)

    def test_reduced_decoding_looks_like_the_whole(self) -> None:
        data = encoded(Image.open(io.BytesIO(picture(1600, 1200, "PNG"))), "JPEG", quality=95)
        fast = shrink(data, image_size=128)
        whole = decoded(data, resize_mode="no", skip_reencode=False)
        assert whole.shape == (1200, 1600, 3)
        slow = Shrinker(settings(image_size=128)).resize(whole)
        assert (fast.width, fast.height) == slow[1:]
        difference = np.abs(pixels(fast).astype(int) - np.asarray(Image.open(io.BytesIO(slow[0])), int))
        assert difference.mean() < 1.5

    def test_reduced_decoding_never_goes_below_twice_the_target(self) -> None:
        for width in (255, 300, 511, 512, 513, 1024, 2047):
            assert decoded(picture(width, width + 7), image_size=128).shape[1] >= min(width, 256)


class TestUpright:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
    def test_exif_orientation(self, orientation: int, fmt: str) -> None:
        """Stored turned, flagged as such: comes out as the photographer saw it."""
        upright = quadrants()
        inverse = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
        stored = upright if orientation == 1 else upright.transpose(UPRIGHT[inverse[orientation]])
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"quality": 95} if fmt == "JPEG" else {}
        data = encoded(stored, fmt, exif=exif, **options)
        result = shrink(data)
        assert (result.original_width, result.original_height) == (80, 40)
        got = pixels(result)
        assert close(got[[5, 5, 35, 35], [5, 75, 5, 75]], np.asarray(upright)[[5, 5, 35, 35], [5, 75, 5, 75]])
        if fmt == "JPEG":
            assert (result.data == data) is (orientation == 1)

    @pytest.mark.parametrize("value", [0, 9, 255])
    def test_nonsense_is_upright(self, value: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = value
        data = encoded(quadrants(), "JPEG", exif=exif)
        assert shrink(data).data == data

    def test_turned_after_reduced_decoding(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(Image.open(io.BytesIO(picture(1600, 800))), "JPEG", exif=exif)
        result = shrink(data, image_size=64)
        assert (result.original_width, result.original_height) == (800, 1600)
        assert (result.width, result.height) == (64, 128)


class TestPixels:
    def test_grey_jpeg_gets_three_channels(self) -> None:
        result = shrink(encoded(Image.new("L", (30, 20), 77), "JPEG"))
        assert close(pixels(result), 77, 2)

    def test_cmyk_jpeg(self) -> None:
        result = shrink(encoded(Image.new("CMYK", (30, 20), (0, 255, 255, 0)), "JPEG"))
        assert close(pixels(result)[10, 10], (255, 0, 0), 20)

    @pytest.mark.parametrize("level", [0, 300, 32_768, 50_000, 65_535])
    def test_16_bit_grey(self, level: int) -> None:
        data = encoded(Image.fromarray(np.full((20, 30), level, np.uint16)), "PNG")
        assert close(pixels(shrink(data)), level >> 8, 2)
        assert close(pixels(shrink(data, encode_format="png", encode_quality=1)), level >> 8, 0)

    def test_16_bit_rgb_is_not_kept(self) -> None:
        data = png16(30, 20, (65_535, 32_768, 0))
        result = shrink(data, encode_format="png", encode_quality=1)
        assert result.data != data
        assert close(pixels(result)[3, 3], (255, 128, 0), 0)

    def test_tiff_of_floats(self) -> None:
        values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
        values[0, 0] = np.nan
        got = pixels(shrink(encoded(Image.fromarray(values), "TIFF")))
        assert close(got[19, 29], 255, 6)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_transparency_on_white(self, mode: str) -> None:
        image = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
        image.paste((0, 0, 0, 255), (0, 0, 15, 20))
        data = encoded(image.convert(mode) if mode != "P" else image.quantize(4), "PNG")
        got = pixels(shrink(data))
        assert close(got[10, 3], 0)
        assert close(got[10, 27], 255)

    @pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
    def test_first_frame_of_an_animation(self, fmt: str) -> None:
        frames = [Image.new("RGB", (40, 30), c) for c in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
        data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:])
        assert close(pixels(shrink(data))[10, 10], (255, 0, 0), 8)

    @given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
    def test_blue_first(self, width: int, height: int, seed: int) -> None:
        array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert np.array_equal(bgr_pixels(Image.fromarray(array)), array[:, :, ::-1])


def png16(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    rows = (b"\0" + struct.pack(">3H", *colour) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return png(head, rows)


def png(head: bytes, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


class TestRefusals:
    @pytest.mark.parametrize("data", [b"", b"\0", b"<html>", b"\xff\xd8\xff", b"GIF89a", b"%!PS-Adobe-3.0"])
    def test_no_image(self, data: bytes) -> None:
        assert refusal(data) is R.DECODE_ERROR

    @pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
    def test_truncated(self, fmt: str) -> None:
        data = picture(300, 200, fmt)
        assert refusal(data[: len(data) // 2]) is R.DECODE_ERROR

    def test_truncated_jpeg_that_would_be_kept_or_reduced(self) -> None:
        data = picture(900, 600, quality=95)
        assert refusal(data[:-300]) is R.DECODE_ERROR
        assert refusal(data[:-300], image_size=2000) is R.DECODE_ERROR

    def test_bomb(self) -> None:
        bomb = png(struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b"\0" * 100)
        assert refusal(bomb) is R.TOO_MANY_PIXELS
        assert refusal(bomb, max_pixels=10**9) is R.TOO_MANY_PIXELS

    def test_limits(self) -> None:
        data = picture(100, 50)
        assert refusal(data, max_pixels=4_999) is R.TOO_MANY_PIXELS
        assert refusal(data, min_image_size=51) is R.TOO_SMALL
        assert refusal(data, max_aspect_ratio=1.9) is R.ASPECT_RATIO
        assert shrink(data, max_pixels=5_000, min_image_size=50, max_aspect_ratio=2.0).width == 100

    def test_limits_are_on_the_original(self) -> None:
        assert shrink(picture(1600, 1200), image_size=32, min_image_size=1200).width == 43

    def test_scan_bomb(self) -> None:
        data = picture(64, 64, progressive=True)
        assert shrink(data).data == data
        assert refusal(data[:-2] + b"\xff\xda\0\x08" * 200 + b"\xff\xd9") is R.DECODE_ERROR

    @hypothesis_settings(max_examples=60, deadline=None)
    @given(st.data(), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    def test_flipped_bytes(self, data: st.DataObject, fmt: str) -> None:
        """Whatever is in a body: a picture or an ImageError with a line of words."""
        bad = bytearray(picture(40, 30, fmt))
        for _ in range(data.draw(st.integers(1, 8))):
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
        words = ""
        try:
            result = shrink(bytes(bad))
        except ImageError as error:
            words = str(error)
        if words:
            assert classify(words) in (R.DECODE_ERROR, R.TOO_MANY_PIXELS)
        else:
            assert Image.open(io.BytesIO(result.data)).size == (result.width, result.height)


class TestExif:
    def test_tags(self) -> None:
        exif = Image.Exif()
        exif[0x010F] = "Maker\x00"
        exif[0x0110] = "x" * 1000
        tags = json.loads(shrink(encoded(quadrants(), "JPEG", exif=exif)).exif or "")
        assert tags["Image Make"] == "Maker"
        assert tags["Image Model"].startswith("xxx")
        assert len(tags["Image Model"]) <= 256

    def test_none(self) -> None:
        assert shrink(picture()).exif == "{}"
        assert shrink(picture(fmt="PNG")).exif == "{}"

    def test_too_much(self) -> None:
        exif = Image.Exif()
        for tag in range(0x9000, 0x9000 + 250):
            exif[tag] = "y" * 200
        found = shrink(encoded(quadrants(), "JPEG", exif=exif)).exif
        assert found is None or len(found) <= MAX_EXIF

    @given(st.binary(max_size=200))
    @hypothesis_settings(max_examples=50, deadline=None)
    def test_nonsense(self, block: bytes) -> None:
        data = picture(16, 16)
        segment = b"Exif\0\0" + b"II*\0" + block
        marked = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
        found = shrink(marked).exif
        assert found is None or isinstance(json.loads(found), dict)


class Crowd:
    """Who is inside at a time, of threads that come for so many bytes each."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.worst: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def enter(self, size: int) -> None:
        with self.lock:
            self.inside.append(size)
            self.worst.append((len(self.inside), sum(self.inside)))
        time.sleep(0.001)
        with self.lock:
            self.inside.remove(size)

    def come(self, work: Callable[[int], None], sizes: list[int]) -> None:
        threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(self.worst) == len(sizes)


def test_budget_bounds_bytes() -> None:
    budget, crowd = ByteBudget(), Crowd()

    def work(size: int) -> None:
        with budget.hold(size, 100):
            crowd.enter(size)

    crowd.come(work, [10, 40, 60, 500, 1, 99, 30] * 10)
    assert all(total <= 100 or count == 1 for count, total in crowd.worst)
    assert max(count for count, _ in crowd.worst) > 1


def test_nobody_overtakes_a_large_image() -> None:
    budget = ByteBudget()
    order: list[int] = []
    threads = []

    def work(size: int) -> None:
        with budget.hold(size, 100):
            order.append(size)

    with budget.hold(50, 100):
        for size in (100, 1, 2, 3):
            threads.append(threading.Thread(target=work, args=(size,)))
            threads[-1].start()
            time.sleep(0.02)
        assert order == []
    for thread in threads:
        thread.join()
    assert order[0] == 100
    assert sorted(order) == [1, 2, 3, 100]


def test_few_threads_decode() -> None:
    pool, crowd = DecodingThreads(3), Crowd()
    crowd.come(lambda size: pool.run(crowd.enter, size), [1] * 30)
    assert max(count for count, _ in crowd.worst) <= 3
    with pytest.raises(ValueError, match="literal"):
        pool.run(int, "x")


def test_malformed_fixtures(fixtures_dir: Path) -> None:
    """Files made to break decoders: what Pillow opens and loads is a picture, the rest has a reason."""
    verdicts = json.loads((fixtures_dir / "malformed" / "PILLOW13_VERDICTS.json").read_text())
    shrinker = Shrinker(settings())
    unread = {".ico", ".tga"}
    for name, verdict in verdicts.items():
        body = (fixtures_dir / name).read_bytes()
        try:
            shrinker(body)
            outcome = None
        except ImageError as error:
            outcome = classify(str(error))
        if Path(name).suffix in unread:
            assert outcome in (R.DECODE_ERROR, R.TOO_MANY_PIXELS), name
        elif verdict == "ok" or verdict.startswith("n_frames"):
            assert outcome is None, name
        elif verdict == "bomb":
            assert outcome is R.TOO_MANY_PIXELS, name
        else:
            assert outcome in (R.DECODE_ERROR, R.TOO_MANY_PIXELS), name


def test_photographs(fixtures_dir: Path) -> None:
    folder = fixtures_dir / "images"
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix in (".jpg", ".png") and "imagededup" not in p.parts
    )
    assert len(paths) > 30
    shrinker = Shrinker(settings(image_size=128))
    for path in paths:
        result = shrinker(path.read_bytes())
        assert min(pixels(result).shape[:2]) <= 128


def test_sizes_of_the_named_images(fixtures_dir: Path) -> None:
    for path in (fixtures_dir / "images" / "clip_retrieval_images").glob("*.jpg"):
        result = shrink(path.read_bytes())
        assert f"{result.original_width}_{result.original_height}" == path.stem
