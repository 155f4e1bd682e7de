"""A second process that decodes what a thread should not: it has a limit on memory and can be killed.

One per process that downloads, started when it is first needed (25 MB of its own, a fifth of a second) and
again after it died. It takes one image at a time. An alarm that it sets itself ends it after
`decode_timeout` seconds, also inside a decoder's C code and when its parent is gone; the kernel refuses it
more data memory than `decode_memory`; a decoder that crashes takes only this process along. Each of these
costs the row and no more.

Both sides speak over a socket pair: a length and a JSON object, then raw bytes. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import AvifImagePlugin, ImageFile

from curate.download import reasons
from curate.download.decode import Decoded, load, read_header
from curate.download.limits import ImageError, Limits, is_decoding_error

SLACK = 32 << 20
"""Bytes beyond `decode_memory` before the kernel refuses: what Python itself and a decoder's tables take."""

_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
_ROOT = str(Path(__file__).parents[2])
_READY = b"ready"


class Sandbox:
    """The parent's side. Thread-safe: images are taken one after the other."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # there, the process is still the parent's

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: BinaryIO | None = None

    def decode(self, body: bytes, limits: Limits) -> Decoded:
        """Decode in the other process, as `read_header` and `load` would here.

        With ``truncated: keep``, what Pillow's plain ``load()`` refuses is loaded again as Pillow does with
        ``LOAD_TRUNCATED_IMAGES``: what is missing of the pixels is black or grey.

        Raises:
            ImageError: as they raise it; or it took longer than `decode_timeout`, or the decoder crashed.
            RuntimeError: the process does not start, was killed, or has a bug.
        """
        with self._lock:
            stream = self._start()
            try:
                _send(stream, dataclasses.asdict(limits), body)
                reply, pixels = _receive(stream)
            except (OSError, EOFError):
                raise self._died() from None
            except BaseException:
                self._end()  # what it still has to say is not the answer to the next question
                raise
        if "refused" in reply:
            raise ImageError(reply["refused"])
        if "failed" in reply:
            raise RuntimeError(reply["failed"])
        shape = reply["shape"]
        array = None if shape is None else np.frombuffer(pixels, np.uint8).reshape(shape)
        return Decoded(array, reply["width"], reply["height"], reply["exif"], reply["damage"])

    def stop(self) -> None:
        """End the process; the next image starts a new one."""
        with self._lock:
            self._end()

    def _start(self) -> BinaryIO:
        if self._stream is None:
            ours, theirs = socket.socketpair()
            with theirs:
                number = theirs.fileno()
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "curate.download.sandbox", str(number)],
                    pass_fds=(number,),
                    stdin=subprocess.DEVNULL,
                    env=os.environ | _environment(),
                )
            self._stream = cast(BinaryIO, ours.makefile("rwb"))
            ours.close()
            try:
                _exactly(self._stream, len(_READY))
            except (OSError, EOFError):
                raise self._died() from None
        return self._stream

    def _died(self) -> Exception:
        """What to raise for a process that has ended."""
        assert self._process is not None
        code = self._process.wait()
        self._end()
        if code == -signal.SIGALRM:
            return ImageError(reasons.SLOW_DECODING)
        if -code in _CRASHES:
            return ImageError(f"{reasons.DECODING}: the decoder crashed ({signal.Signals(-code).name})")
        return RuntimeError(f"the process that decodes ended with exit code {code}")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what was not sent yet
                self._stream.close()
        self._process = self._stream = None


SANDBOX = Sandbox()
"""Of this process."""


def _environment() -> dict[str, str]:
    """Finds this package as its parent did; gives freed memory back at once."""
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    return {
        "PYTHONPATH": path,
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "131072",
    }


def _send(stream: BinaryIO, facts: dict[str, Any], data: bytes | memoryview) -> None:
    head = json.dumps(facts | {"bytes": len(data)}).encode()
    stream.write(struct.pack("<I", len(head)) + head)
    stream.write(data)
    stream.flush()


def _receive(stream: BinaryIO) -> tuple[dict[str, Any], bytearray]:
    """Raises EOFError when the other side is gone."""
    (length,) = struct.unpack("<I", _exactly(stream, 4))
    facts = json.loads(_exactly(stream, length))
    return facts, _exactly(stream, facts.pop("bytes"))


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        view = view[count:]
    return data


def main() -> None:
    """The child's side: images until the parent closes its end."""
    # One thread: more would each hold a frame, and the memory taken would depend on the machine.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _silence_libraries()
    stream = cast(BinaryIO, socket.socket(fileno=int(sys.argv[1])).makefile("rwb"))
    with contextlib.suppress(EOFError, ConnectionError):
        stream.write(_READY)
        stream.flush()
        while True:
            _serve(stream)


def _serve(stream: BinaryIO) -> None:
    """One image; nothing of it is left when this returns."""
    facts, body = _receive(stream)
    limits = Limits(**facts)
    signal.setitimer(signal.ITIMER_REAL, limits.decode_timeout)
    with _memory_limit(limits.decode_memory + SLACK):
        reply, pixels = _answer(bytes(body), limits)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _send(stream, reply, pixels)


def _silence_libraries() -> None:
    """C libraries write about every broken file to descriptor 2; Python keeps it under another number."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _answer(body: bytes, limits: Limits) -> tuple[dict[str, Any], bytes | memoryview]:
    try:
        decoded = _decode(body, limits)
    except ImageError as error:
        return {"refused": str(error)}, b""
    except MemoryError:
        return {"refused": reasons.MUCH_MEMORY}, b""
    except Exception as error:  # noqa: BLE001 - raised again on the other side
        return {"failed": f"{type(error).__name__}: {error}"}, b""
    facts = {f.name: getattr(decoded, f.name) for f in dataclasses.fields(decoded) if f.name != "pixels"}
    if decoded.pixels is None:
        return facts | {"shape": None}, b""
    return facts | {"shape": decoded.pixels.shape}, decoded.pixels.data.cast("B")


def _decode(body: bytes, limits: Limits) -> Decoded:
    try:
        return load(read_header(body, limits), limits)
    except ImageError as error:
        if limits.truncated == "drop" or not is_decoding_error(error):
            raise
        damage = str(error)
    # Pillow's flag is global. This process has one thread, so nobody else sees it.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    limits = dataclasses.replace(limits, skip_reencode=False)
    try:
        decoded = load(read_header(body, limits), limits)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    return dataclasses.replace(decoded, damage=damage)


@contextlib.contextmanager
def _memory_limit(beyond: int) -> Iterator[None]:
    """The kernel refuses data memory that is so many bytes above what is held now."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + beyond, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


if __name__ == "__main__":
    main()
