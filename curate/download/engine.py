"""img2dataset as a library: loaded once per process, with three of its parts replaced.

- Its ``urlopen`` is ours, looked up in a thread-local. Only img2dataset's own reference is replaced;
  ``urllib`` stays as it is for everybody else in the process.
- Its ``SuppressStdoutStderr`` swaps the file descriptors 1 and 2 of the whole process for each image;
  two threads that do so at once leave them closed. It becomes a no-op.
- Its ``cv2.imdecode`` gives the pixels that `curate.download.decode` has decoded and judged; again
  only img2dataset's own reference to ``cv2`` is replaced. All else, from resizing to encoding, is its own.

Import this module freely: img2dataset itself (a second or two, with OpenCV) is imported on first use.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import threading
import types
import urllib.request
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.config.models import DownloadSettings
from curate.download import reasons
from curate.download.opener import Body, Exchange, Opener
from curate.download.reasons import FetchError, describe

_current = threading.local()
_lock = threading.Lock()


@functools.cache
def _modules() -> tuple[Any, Any]:
    """img2dataset's downloader and resizer modules, patched."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import img2dataset.downloader as downloader
        import img2dataset.resizer as resizer
    downloader.urllib = types.SimpleNamespace(
        request=types.SimpleNamespace(Request=urllib.request.Request, urlopen=_urlopen)
    )
    resizer.SuppressStdoutStderr = contextlib.nullcontext
    resizer.cv2 = _Cv2(resizer.cv2)
    logging.getLogger("exifread").setLevel(logging.CRITICAL)
    return downloader, resizer


def load() -> tuple[Any, Any]:
    """The modules; safe to call from several threads."""
    with _lock:
        return _modules()


def fetch(opener: Opener, url: str, exchange: Exchange) -> bytes:
    """One try at one URL through the engine's ``download_image``.

    Raises:
        FetchError: with the engine's words.
    """
    downloader, _ = load()
    _current.opener, _current.exchange = opener, exchange
    try:
        # The directives are the opener's to check, before the body is read.
        _, stream, words = downloader.download_image(("", url), opener.settings.timeout, None, None)
    finally:
        _current.opener = _current.exchange = None
    if stream is None:
        raise FetchError(reasons.tidy(words or "") or "unknown failure")
    with stream:
        return bytes(stream.getbuffer())


def _urlopen(request: urllib.request.Request, timeout: float | None = None) -> Body:
    """What the engine calls; ``timeout`` is the opener's already."""
    del timeout
    opener: Opener = _current.opener
    try:
        return opener.open(request.full_url, _current.exchange)
    except Exception as error:  # noqa: BLE001 - the engine keeps only the text of any exception
        raise FetchError(describe(error)) from None


class _Cv2:
    """OpenCV, but for decoding."""

    def __init__(self, cv2: Any) -> None:
        self._cv2 = cv2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cv2, name)

    def imdecode(self, *_: object) -> npt.NDArray[np.uint8] | None:
        """The pixels that this thread is to resize, whatever the stream was."""
        return getattr(_current, "pixels", None)


def make_resizer(settings: DownloadSettings) -> Any:
    """The engine's Resizer. Its limits are off: they are checked on the header, before decoding."""
    _, resizer = load()
    return resizer.Resizer(
        image_size=settings.image_size,
        resize_mode=settings.resize_mode,
        resize_only_if_bigger=settings.resize_only_if_bigger,
        encode_quality=settings.encode_quality,
        encode_format=settings.encode_format,
        skip_reencode=False,
    )


def resize(resizer: Any, pixels: npt.NDArray[np.uint8]) -> tuple[bytes | None, int, int, str]:
    """Pixels through the engine's Resizer.

    Args:
        resizer: of `make_resizer`.
        pixels: uint8, shape (height, width, 3), blue first.

    Returns:
        The encoded image, its width and height, and the engine's words; the image is None exactly
        when there are words.
    """
    _current.pixels = pixels
    try:
        data, width, height, _, _, words = resizer(io.BytesIO(b"pixels"))
    finally:
        _current.pixels = None
    if words is not None or data is None:
        return None, 0, 0, reasons.tidy(words or "") or "unknown failure"
    return data, int(width), int(height), ""
