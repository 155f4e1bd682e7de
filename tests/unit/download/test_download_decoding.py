"""Verdicts and pixels are Pillow's; memory and time have bounds. On damaged copies, bombs and hangs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import exifread
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from curate.demo.world import World, WorldConfig
from curate.download import exif as exif_module
from curate.download import rgb as rgb_module
from curate.download.decode import Decoded
from curate.download.exif import MAX_WORK, exif_json, parsing_work
from curate.download.limits import ImageError, Limits, decoding_bytes
from curate.download.outline import Outline, outline
from curate.download.reasons import classify
from curate.download.resize import Shrinker, with_decoded
from curate.download.rgb import upright_bgr
from curate.download.sandbox import SANDBOX, Sandbox
from curate.reasons import DownloadReason as R
from tests.unit.download import corrupt
from tests.unit.download.corrupt import VARIANTS
from tests.unit.download.web import hanging, picture, settings

ROOT = Path(__file__).parents[3]
WHOLE = {"resize_mode": "no", "skip_reencode": False}


def limits(**changes: Any) -> Limits:
    return Limits.from_settings(settings(**(WHOLE | changes)))


def refusal(body: bytes, **changes: Any) -> str:
    with pytest.raises(ImageError) as caught:
        with_decoded(body, limits(**changes), lambda decoded: decoded)
    return str(caught.value)


def decoded(body: bytes, **changes: Any) -> Decoded:
    return with_decoded(body, limits(**changes), lambda result: result)


@pytest.fixture(scope="module")
def drawings() -> list[Image.Image]:
    return corrupt.drawings(World(WorldConfig(images=60)), 20, 120)


def differences(images: list[Image.Image], count: int, seed: int, **changes: Any) -> list[str]:
    """What differs from Pillow, over damaged copies; some must be accepted and some refused."""
    found, accepted = [], 0
    for variant, body in corrupt.copies(images, count, seed):
        accepted += corrupt.by_pillow(body).accepted
        if what := corrupt.difference(body, limits(**changes)):
            found.append(f"{variant}: {what}")
    assert 0.05 * count < accepted < 0.95 * count
    return found


class TestVerdicts:
    def test_one_flipped_bit_in_a_png(self, drawings: list[Image.Image]) -> None:
        """In the compressed data, where its checksum must notice it."""
        rng = random.Random(0)
        for image in drawings:
            body = bytearray(corrupt.saved(image, "png"))
            start = body.index(b"IDAT")
            body[rng.randrange(start + 30, len(body) - 30)] ^= 1 << rng.randrange(8)
            assert not corrupt.by_pillow(bytes(body)).accepted
            with pytest.raises(ImageError) as caught:
                Shrinker(settings())(bytes(body))
            assert classify(str(caught.value)) is R.DECODE_ERROR

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_undamaged(self, drawings: list[Image.Image], variant: str) -> None:
        body = corrupt.saved(drawings[0], variant)
        assert corrupt.by_pillow(body).accepted
        assert corrupt.difference(body, limits()) == ""

    def test_damaged_drawings(self, drawings: list[Image.Image]) -> None:
        assert differences(drawings, 400, seed=1) == []

    def test_damaged_photographs(self, fixtures_dir: Path) -> None:
        images = corrupt.photographs(fixtures_dir / "images", 120)
        assert len(images) > 30
        assert differences(images, 1_000, seed=2) == []

    def test_malformed_files(self, fixtures_dir: Path) -> None:
        paths = sorted(p for p in (fixtures_dir / "malformed").rglob("*") if p.is_file())
        assert len(paths) > 200
        found = {p.name: corrupt.difference(p.read_bytes(), limits()) for p in paths}
        assert {name: what for name, what in found.items() if what} == {}

    def test_damaged_and_decoded_smaller(self) -> None:
        """Decoding a JPEG at 1/2 to 1/8 refuses what decoding it whole refuses."""
        rng = random.Random(3)
        bodies = [picture(400, 300, seed=i, quality=90, progressive=i % 2 == 0) for i in range(6)]
        accepted = 0
        for i in range(200):
            body = corrupt.damaged(bodies[i % 6], rng)
            theirs = corrupt.by_pillow(body).accepted
            ours = corrupt.by_us(body, limits(resize_mode="keep_ratio", image_size=(20, 40, 80)[i % 3]))
            assert ours.accepted is theirs, (i, ours.words)
            accepted += theirs
        assert 20 < accepted < 180

    def test_words_name_no_address(self) -> None:
        assert refusal(b"\x89PNG\r\n\x1a\nxxxx") == "Image decoding error: unknown format"


class TestUpright:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        "variant",
        [
            "jpeg progressive",
            "png alpha",
            "webp animated",
            "tiff",
            "avif alpha",
            "tiff lzw turned",
            "tiff jpeg turned",
        ],
    )
    def test_as_pillow_transposes(self, drawings: list[Image.Image], variant: str, orientation: int) -> None:
        kind = variant.removesuffix(" turned")
        options = VARIANTS[kind][2] | {"exif": b"turned"}
        body = corrupt.saved(drawings[1], kind, orientation, options)
        with Image.open(io.BytesIO(body)) as image:
            assert image.getexif().get(0x0112, 1) == orientation
        assert corrupt.difference(body, limits()) == ""

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_size_of_the_original(self, orientation: int) -> None:
        for variant in ("tiff", "jpeg progressive", "png alpha", "avif alpha"):
            body = corrupt.saved(Image.new("RGB", (60, 40)), variant, orientation)
            result = Shrinker(settings())(body)
            size = (60, 40) if orientation < 5 else (40, 60)
            assert (result.original_width, result.original_height) == size
            assert (result.width, result.height) == size

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16", "CMYK", "1", "F", "I", "LA"])
    def test_parts_are_the_whole(self, mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(orientation)
        image = Image.fromarray(rng.integers(0, 256, (23, 31, 3), dtype=np.uint8))
        image = corrupt.in_mode(image, mode)
        whole = upright_bgr(image, orientation)
        monkeypatch.setattr(rgb_module, "WHOLE_PIXELS", 0)
        for pixels in (7, 31, 100):
            monkeypatch.setattr(rgb_module, "PART_PIXELS", pixels)
            assert np.array_equal(whole, upright_bgr(image, orientation))
        assert whole.shape == ((23, 31, 3) if orientation < 5 else (31, 23, 3))
        expected = corrupt.reference(image)
        if orientation == 1 and expected is not None:
            assert np.array_equal(whole, expected)

    def test_lab(self) -> None:
        image = Image.new("LAB", (4, 4), (255, 128, 128))
        assert (upright_bgr(image, 1) > 250).all()


def noise(fmt: str) -> bytes:
    """90 by 60 pixels that no format makes much smaller."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, fmt)
    return stream.getvalue()


class TestTruncated:
    @pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "TIFF"])
    def test_kept_when_asked_for(self, fmt: str) -> None:
        whole = noise(fmt)
        cut = whole[: len(whole) * 2 // 3]
        assert classify(refusal(cut)) is R.DECODE_ERROR
        kept = Shrinker(settings(truncated="keep"))(cut)
        assert (kept.width, kept.height) == (90, 60)
        assert classify(kept.damage) is R.DECODE_ERROR
        assert kept.data != cut
        Image.open(io.BytesIO(kept.data)).load()

    def test_as_pillow_does_with_its_flag(self) -> None:
        whole = noise("PNG")
        kept = decoded(whole[: len(whole) // 2], truncated="keep").pixels
        assert kept is not None
        full = decoded(whole).pixels
        assert full is not None
        assert np.array_equal(kept[:8], full[:8])
        assert not kept[-1].any()

    def test_what_is_whole_is_the_same(self) -> None:
        body = picture(64, 48)
        result = Shrinker(settings(truncated="keep"))(body)
        assert (result.data, result.damage) == (body, "")

    def test_what_is_no_image_stays_refused(self) -> None:
        assert classify(refusal(b"<html>", truncated="keep")) is R.DECODE_ERROR
        assert classify(refusal(picture(100, 100), truncated="keep", max_pixels=99)) is R.TOO_MANY_PIXELS

    def test_the_flag_of_this_process_is_untouched(self) -> None:
        from PIL import ImageFile

        cut = noise("PNG")[:-300]
        assert decoded(cut, truncated="keep").damage
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        assert classify(refusal(cut)) is R.DECODE_ERROR


class TestOutline:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_size_is_pillow_s(self, drawings: list[Image.Image], variant: str) -> None:
        body = corrupt.saved(drawings[2], variant)
        found = outline(body)
        if VARIANTS[variant][0] in ("JPEG", "PNG", "GIF", "WEBP"):
            assert found is not None
            assert found[:2] == Image.open(io.BytesIO(body)).size
        else:
            assert found is None

    def test_of_real_files(self, fixtures_dir: Path) -> None:
        for path in sorted((fixtures_dir / "images").rglob("*.jp*g")):
            if "corrupt" not in path.name:
                found = outline(path.read_bytes())
                assert found is not None, path
                with Image.open(path) as image:
                    assert found[:2] == image.size

    @given(st.sampled_from(sorted(VARIANTS)), st.integers(0, 3_000), st.binary(max_size=8))
    @hypothesis_settings(max_examples=200, deadline=None)
    def test_anything_has_an_answer(self, variant: str, at: int, other: bytes) -> None:
        body = corrupt.saved(Image.new("RGB", (20, 10)), variant)
        found = outline(body[:at] + other + body[at + len(other) :])
        assert found is None or isinstance(found, Outline)

    def test_what_costs_a_thread_too_much(self) -> None:
        plain = picture(64, 48)
        comment = b"\xff\xfe\0\4xx"
        assert outline(plain[:2] + comment * 50 + plain[2:]) is not None
        assert outline(plain[:2] + comment * 500 + plain[2:]) is None
        gif = picture(64, 48, "GIF")
        start = gif.index(b"\x2c\0\0\0\0")
        assert outline(gif[:start] + b"\x21\xfe" + b"\1x" * 100 + b"\0" + gif[start:]) is not None
        assert outline(gif[:start] + b"\x21\xfe" + b"\1x" * 5_000 + b"\0" + gif[start:]) is None
        many = outline(picture(64, 48, progressive=True) + b"\xff\xda" * 90_000)
        assert many is not None
        assert not many.in_thread


class TestSandbox:
    def test_a_decoder_that_hangs_costs_its_row(self) -> None:
        assert classify(refusal(hanging(), decode_timeout=0.3)) is R.DECODE_TIMEOUT
        assert decoded(picture(30, 20, "TIFF")).width == 30

    def test_a_decoder_that_crashes_costs_its_row(self) -> None:
        sandbox, words = Sandbox(), []
        sandbox.decode(picture(30, 20, "TIFF"), limits())

        def work() -> None:
            with pytest.raises(ImageError) as caught:
                sandbox.decode(hanging(), limits(decode_timeout=60))
            words.append(str(caught.value))

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.1)
        assert sandbox._process is not None
        sandbox._process.send_signal(signal.SIGSEGV)
        thread.join()
        assert words == ["Image decoding error: the decoder crashed (SIGSEGV)"]
        assert classify(words[0]) is R.DECODE_ERROR
        assert sandbox.decode(picture(30, 20, "TIFF"), limits()).width == 30
        sandbox.stop()

    def test_a_process_that_does_not_start_is_no_broken_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("curate.download.sandbox._ROOT", "/nowhere")
        monkeypatch.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(RuntimeError, match="exit code 1"):
            Sandbox().decode(picture(30, 20, "TIFF"), limits())

    def test_it_ends_with_its_parent(self) -> None:
        code = (
            "import os, sys\n"
            "from tests.unit.download.test_download_decoding import *\n"
            "SANDBOX.decode(picture(30, 20, 'TIFF'), limits())\n"
            "print(SANDBOX._process.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        pid = int(done.stdout)
        for _ in range(500):
            if not is_running(pid):
                return
            time.sleep(0.02)
        pytest.fail("the sandbox outlived its parent")

    def test_memory_beyond_the_header_is_refused_by_the_kernel(self) -> None:
        """One tile of a hundred megabytes in a picture of 64 by 64."""
        sys.path.insert(0, str(ROOT / "scripts" / "bench"))
        try:
            from bombs import tiff
        finally:
            sys.path.pop(0)
        body = tiff(64, 64, tile=6_000)
        assert decoded(body).width == 64
        words = refusal(body, decode_memory=32 << 20)
        assert classify(words) in (R.DECODE_ERROR, R.TOO_MANY_PIXELS)
        assert decoded(picture(30, 20, "TIFF")).width == 30

    def test_many_threads(self, drawings: list[Image.Image]) -> None:
        bodies = [corrupt.saved(image, v) for image in drawings[:8] for v in ("tiff", "avif", "png", "gif")]
        expected = [corrupt.by_pillow(body).pixels for body in bodies]
        got: list[Any] = [None] * len(bodies)

        def work(i: int) -> None:
            got[i] = decoded(bodies[i]).pixels

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))

    def test_after_a_fork(self) -> None:
        """The child of a fork has a sandbox of its own."""
        decoded(picture(30, 20, "TIFF"))
        assert SANDBOX._process is not None
        child = os.fork()
        if child == 0:  # no pytest in here
            fine = SANDBOX._process is None and Shrinker(settings())(picture(30, 20, "TIFF")).width == 30
            SANDBOX.stop()
            os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert decoded(picture(30, 20, "TIFF")).width == 30


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestMemory:
    def test_headers_are_judged_before_decoding(self) -> None:
        """Bombs of every kind, in eight threads, within a small budget."""
        script = ROOT / "scripts" / "bench" / "bombs.py"
        some = "rgb,claims,iTXt,exif,progressive,gif,tile,webp lossless"
        command = [sys.executable, str(script), "--megapixels=3", "--threads=8", f"--only={some}"]
        command += ["--decode-memory=32", "--bar=120"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        assert figures["ok"], done.stdout

    @pytest.mark.parametrize(("decode_memory", "fits"), [(500 * 400 * 7, True), (500 * 400 * 7 - 1, False)])
    def test_what_alone_exceeds_the_budget(self, decode_memory: int, fits: bool) -> None:
        tight = dataclasses.replace(limits(), decode_memory=decode_memory)
        body = picture(500, 400, "PNG")
        if fits:
            assert with_decoded(body, tight, lambda d: d.width) == 500
        else:
            with pytest.raises(ImageError) as caught:
                with_decoded(body, tight, lambda d: d.width)
            assert classify(str(caught.value)) is R.TOO_MANY_PIXELS
            assert "decode_memory" in str(caught.value)

    def test_formats_that_hold_more_count_more(self) -> None:
        size = (1_000, 1_000)
        megabytes = {
            fmt: decoding_bytes(fmt, "RGB", size, size, 1, 0) / 1e6
            for fmt in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "JPEG2000")
        }
        assert megabytes == {"PNG": 7, "JPEG": 7, "TIFF": 8, "WEBP": 16.5, "AVIF": 15, "JPEG2000": 25}
        assert decoding_bytes("JPEG", "RGB", size, (125, 125), 1, 0) < 0.2e6
        assert decoding_bytes("JPEG", "RGB", size, (125, 125), 8, 0) > 6e6
        assert decoding_bytes("PNG", "RGB", (1, 1), (1, 1), 1, 1e6) > 2.9e6


def directory(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    packed = b"".join(
        np.array([e[:2]], "<u2").tobytes() + np.array([e[2:]], "<u4").tobytes() for e in entries
    )
    return len(entries).to_bytes(2, "little") + packed + following.to_bytes(4, "little")


class TestExif:
    def test_directories_that_are_entered_again_and_again(self) -> None:
        """4,000 pointers to the directory they stand in: sixteen million entries to read."""
        block = b"II*\0\x08\0\0\0" + directory([(0x8825, 4, 1, 8)] * 4_000)
        assert parsing_work(block) > MAX_WORK
        assert exif_json(block) is None

    def test_texts_that_overlap(self) -> None:
        block = b"II*\0\x08\0\0\0" + directory([(0x9C00 + i, 2, 50_000, 8) for i in range(4_000)])
        assert exif_json(block + bytes(10_000)) is None

    def test_a_chain_of_directories(self) -> None:
        block = b"II*\0\x08\0\0\0" + b"".join(
            directory([], following) for following in range(14, 14 + 6 * 100_000, 6)
        )
        assert exif_json(block) is None

    @given(st.binary(max_size=300), st.sampled_from([b"II*\0", b"MM\0*"]))
    @hypothesis_settings(max_examples=300, deadline=None)
    def test_the_parser_never_does_more_than_was_counted(self, noise: bytes, magic: bytes) -> None:
        block = magic + (b"\x08\0\0\0" if magic[:1] == b"I" else b"\0\0\0\x08") + noise
        counted = 0

        class Counted(io.BytesIO):
            def seek(self, *args: int) -> int:
                nonlocal counted
                counted += 1
                return super().seek(*args)

        if parsing_work(block) > MAX_WORK:
            return
        with contextlib.suppress(Exception):  # it raises anything
            exifread.process_file(Counted(block), details=False)
        assert counted <= parsing_work(block) + 1_000

    def test_of_photographs(self, fixtures_dir: Path) -> None:
        """Real blocks are far below the bound."""
        blocks = []
        for path in sorted((fixtures_dir / "images").rglob("*.jp*g")):
            if "corrupt" not in path.name:
                with Image.open(path) as image:
                    blocks += [image.info["exif"]] if "exif" in image.info else []
        assert blocks
        for block in blocks:
            assert parsing_work(block.removeprefix(b"Exif\0\0")) < MAX_WORK // 10
            assert isinstance(json.loads(exif_json(block) or ""), dict)

    def test_limits_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tags = Image.Exif()
        tags[0x010F] = "Maker"
        block = tags.tobytes()
        assert json.loads(exif_json(block) or "")["Image Make"] == "Maker"
        monkeypatch.setattr(exif_module, "MAX_WORK", 40)
        assert exif_json(block) is None
