#!/usr/bin/env python3
"""Memory of decoding what is made to take much of it: small files of every format that claim to be huge.

A process of its own gets the download stage's decoder ready, then decodes each bomb in all threads at once;
this one samples the resident memory of it and of its sandbox every few milliseconds. What an earlier bomb
left behind counts. Some bombs are honest (constant pictures of --megapixels, which `max_pixels` lets through,
and one of twice that), some lie in their headers, some are small with texts, profiles or EXIF that inflate.

    python scripts/bench/bombs.py [--megapixels 85] [--threads 16] [--only PART-OF-A-NAME]

The last line is one JSON object; figures are MiB above what the idle process takes. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

BAR = 600
SLOW = 30
"""Megapixels at most of formats whose encoders are slow."""
PIECE = 1 << 20


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """So many zero bytes, deflated; about a thousandth of them."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(min(PIECE, count - i))) for i in range(0, count, PIECE)]
    return b"".join([*parts, packer.flush()])


def png(side: int, depth: int = 8, colour: int = 2, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A black PNG. Colour types: 0 grey, 2 RGB, 3 palette, 6 RGBA."""
    bits = depth * {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    passes = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)] if interlaced else [(1, 1)]
    starts = [(0, 0), (4, 0), (0, 4), (2, 0), (0, 2), (1, 0), (0, 1)]
    size = 0
    for (dx, dy), (x, y) in zip(passes, starts, strict=False):
        columns, rows = -(-(side - x) // dx), -(-(side - y) // dy)
        size += rows * (1 + -(-columns * bits // 8))
    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + extra + chunk(b"IDAT", zeros(size))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def saved(side: int, fmt: str, mode: str = "RGB", **options: Any) -> bytes:
    """A black square as Pillow saves it."""
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, fmt, **options)
    return stream.getvalue()


def patched(data: bytes, marker: bytes, offset: int, form: str, *values: int) -> bytes:
    """Other numbers at an offset behind every occurrence of a marker."""
    new, at = bytearray(data), data.find(marker)
    while at >= 0:
        struct.pack_into(form, new, at + offset, *values)
        at = data.find(marker, at + 1)
    return bytes(new)


def tiff(width: int, height: int, tile: int = 0, orientation: int = 1) -> bytes:
    """A black deflated RGB TIFF of one strip, or of one tile that may be larger than the picture."""
    data = zeros((tile * tile if tile else width * height) * 3)
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 2), (274, orientation), (277, 3)]
    where = [(322, tile), (323, tile), (324, 8), (325, len(data))]
    tags += where if tile else [(273, 8), (278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return (
        struct.pack("<4sI", b"II*\0", 8 + len(data))
        + data
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def bmp(width: int, height: int, rle: bool) -> bytes:
    """A BMP with one byte per pixel; run-length encoded and black, or without its pixels."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, int(rle), 0, 0, 0, 256, 0)
    rows = (b"\xff\0" * -(-width // 255) + b"\0\0") * height if rle else b""
    palette = bytes(i // 4 ^ (i % 4 == 1) for i in range(1024))
    return struct.pack("<2sIII", b"BM", 0, 0, 14 + 40 + 1024) + head + palette + rows


def exif_bomb() -> bytes:
    """A JPEG whose EXIF directory has 2,500 GPS directories, all the same one, and texts that overlap."""
    count = 2_500
    entries = b"".join(struct.pack("<HHII", 0x8825, 4, 1, 8) for _ in range(count))
    entries += b"".join(struct.pack("<HHII", 0x9C00 + i, 2, 60_000, 8) for i in range(count))
    block = b"Exif\0\0" + struct.pack("<4sIH", b"II*\0", 8, 2 * count) + entries + bytes(4)
    plain = saved(64, "JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def texts(kind: bytes, count: int) -> bytes:
    """A small PNG with texts or profiles that inflate to 1 MiB each."""
    inflated = "\U0001f600".encode() + b"x" * (PIECE - 4)
    packed = zlib.compress(inflated, 9)
    data = {b"zTXt": b"k%d\0\0", b"iTXt": b"k%d\0\1\0\0\0", b"iCCP": b"k%d\0\0"}[kind]
    return png(64, extra=b"".join(chunk(kind, data % i + packed) for i in range(count)))


def bombs(megapixels: float) -> dict[str, Callable[[], bytes]]:
    """Name → what makes the file."""
    side = int((megapixels * 1e6) ** 0.5)
    slow = min(side, int((SLOW * 1e6) ** 0.5))
    small = {f: saved(64, f) for f in ("JPEG", "WEBP", "AVIF", "JPEG2000")}
    lossless = saved(64, "WEBP", lossless=True)
    gif = saved(64, "GIF", "P")
    found: dict[str, Callable[[], bytes]] = {
        "png rgb": lambda: png(side),
        "png rgb, twice as large": lambda: png(int(side * 2**0.5)),
        "png grey": lambda: png(side, colour=0),
        "png grey 1 bit": lambda: png(side, 1, 0),
        "png palette": lambda: png(side, colour=3),
        "png rgba": lambda: png(side, colour=6),
        "png rgb 16 bit": lambda: png(side, 16),
        "png grey 16 bit": lambda: png(side, 16, 0),
        "png rgb interlaced": lambda: png(side, interlaced=True),
        "png claims": lambda: patched(png(64), b"IHDR", 4, ">II", 2**31 - 1, 2**31 - 1),
        "png zTXt": lambda: texts(b"zTXt", 63),
        "png iTXt": lambda: texts(b"iTXt", 63),
        "png iCCP": lambda: texts(b"iCCP", 63),
        "jpeg": lambda: saved(side, "JPEG"),
        "jpeg progressive": lambda: saved(side, "JPEG", progressive=True, subsampling=0),
        "jpeg cmyk progressive": lambda: saved(side, "JPEG", "CMYK", progressive=True, subsampling=0),
        "jpeg claims": lambda: patched(small["JPEG"], b"\xff\xc0", 5, ">HH", 65_500, 65_500),
        "jpeg claims less": lambda: patched(small["JPEG"], b"\xff\xc0", 5, ">HH", side, side),
        "jpeg exif": exif_bomb,
        "webp": lambda: saved(slow, "WEBP", method=0),
        "webp lossless": lambda: saved(slow, "WEBP", lossless=True, method=0, quality=0),
        "webp claims": lambda: patched(small["WEBP"], b"\x9d\x01\x2a", 3, "<HH", 16_383, 16_383),
        "webp lossless claims": lambda: patched(lossless, b"VP8L", 9, "<I", 0x0FFFFFFF),
        "webp lossless claims less": lambda: patched(lossless, b"VP8L", 9, "<I", (side << 14) | side),
        "gif": lambda: saved(side, "GIF", "P"),
        "gif claims": lambda: patched(gif, b"GIF8", 6, "<HH", 65_535, 65_535),
        "gif claims less": lambda: patched(gif, b"GIF8", 6, "<HH", side, side),
        "tiff": lambda: tiff(side, side),
        "tiff turned": lambda: tiff(side, side, orientation=6),
        "tiff tile": lambda: tiff(64, 64, tile=16 * (side // 16)),
        "tiff claims": lambda: patched(tiff(64, 64), b"\0\1\4\0\1\0\0\0", 8, "<I", 2**31 - 1),
        "bmp run-length": lambda: bmp(side, side, True),
        "bmp claims": lambda: bmp(side, side, False),
        "ppm claims": lambda: b"P6 %d %d 255\n" % (side, side) + bytes(1000),
        "ppm text": lambda: b"P2 %d %d 255\n" % (side, side) + b"0 " * 500_000,
        "avif": lambda: saved(slow, "AVIF", speed=10),
        "avif rgba 4:4:4": lambda: saved(slow, "AVIF", "RGBA", speed=10, subsampling="4:4:4"),
        "avif claims": lambda: patched(small["AVIF"], b"ispe", 8, ">II", 16_000, 16_000),
        "avif claims nothing": lambda: patched(saved(slow, "AVIF", speed=10), b"ispe", 8, ">II", 64, 64),
        "jpeg 2000": lambda: saved(int((min(megapixels, 20) * 1e6) ** 0.5), "JPEG2000"),
        "jpeg 2000 claims": lambda: patched(
            patched(small["JPEG2000"], b"ihdr", 4, ">II", side, side), b"\xff\x51", 6, ">II", side, side
        ),
        "jpeg 2000 claims little": lambda: patched(
            small["JPEG2000"], b"\xff\x51", 6, ">IIIIII", side, side, 0, 0, side, side
        ),
    }  # fmt: skip
    return found


def decode_in_threads(threads: int, decode_memory: int) -> None:
    """In a process of its own: get ready, say so; then decode each file named on stdin in all threads."""
    from curate.config.models import DownloadSettings
    from curate.download.limits import ImageError
    from curate.download.reasons import classify
    from curate.download.resize import Shrinker

    shrink = Shrinker(DownloadSettings(decode_memory=decode_memory << 20))
    for fmt in ("JPEG", "PNG", "WEBP", "TIFF"):  # the last one starts the sandbox
        shrink(saved(300, fmt))
    print("ready", flush=True)
    for line in sys.stdin:
        body = Path(line.rstrip("\n")).read_bytes()
        outcomes: Counter[str] = Counter()

        def work(body: bytes = body, outcomes: Counter[str] = outcomes) -> None:
            try:
                shrink(body)
                outcomes["success"] += 1
            except ImageError as error:
                outcomes[str(classify(str(error)))] += 1

        started = time.perf_counter()
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(json.dumps({"outcomes": outcomes, "seconds": time.perf_counter() - started}), flush=True)


def resident(pid: int) -> int:
    """Bytes of a process and its children; what has just ended counts nothing."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    return total


@contextlib.contextmanager
def sampled(pid: int) -> Iterator[list[int]]:
    """The largest value of `resident` while inside, as the only item of a list."""
    peak = [resident(pid)]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            peak[0] = max(peak[0], resident(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


class Decoder:
    """The process that decodes, seen from outside."""

    def __init__(self, threads: int, decode_memory: int) -> None:
        command = [sys.executable, __file__, "--decode", f"--threads={threads}"]
        command += [f"--decode-memory={decode_memory}"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        if self.stdout.readline() != "ready\n":
            raise SystemExit(f"the decoding process ended with {self.process.wait()}")
        self.idle = resident(self.process.pid)

    def measure(self, path: Path) -> tuple[float, dict[str, Any]]:
        """Peak memory in MiB above idle, and what the process said."""
        with sampled(self.process.pid) as peak:
            self.stdin.write(f"{path}\n")
            self.stdin.flush()
            said = json.loads(self.stdout.readline() or '{"outcomes": {"died": 1}, "seconds": 0}')
        return (peak[0] - self.idle) / 2**20, said

    def close(self) -> None:
        """End it."""
        self.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=85.0)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--bar", type=float, default=BAR, help="MiB above idle")
    parser.add_argument("--decode-memory", type=int, default=512, help="MiB")
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.decode:
        decode_in_threads(arguments.threads, arguments.decode_memory)
        return
    Image.MAX_IMAGE_PIXELS = None
    decoder, worst, died = Decoder(arguments.threads, arguments.decode_memory), 0.0, False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb"
        for name, make in bombs(arguments.megapixels).items():
            if died or not any(part in name for part in arguments.only.split(",")):
                continue
            path.write_bytes(make())
            above, said = decoder.measure(path)
            worst, died = max(worst, above), "died" in said["outcomes"]
            outcomes = ", ".join(f"{what} {n}" for what, n in said["outcomes"].items())
            size = f"{path.stat().st_size:,} bytes"
            print(f"{name:28} {size:>17} {above:6.0f} MiB {said['seconds']:6.1f} s  {outcomes}", flush=True)
    decoder.close()
    figures = {"ours": round(worst), "peer": None, "ratio": None, "floor": round(decoder.idle / 2**20)}
    ok = worst <= arguments.bar and not died
    print(json.dumps({"bench": "bombs", **figures, "bar": arguments.bar, "ok": ok}))


if __name__ == "__main__":
    main()
