"""What the server of the demo web says to each URL: status, headers, body and bad manners."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from urllib.parse import urlsplit

from curate.demo.pictures import MIME
from curate.demo.world import Resource, World

Headers = tuple[tuple[str, str], ...]

HUGE_BYTES = 13 * 1024 * 1024
"""Length of a ``huge`` body."""
MOVED = "/moved"
"""A redirect leads to the same path below this prefix, on the same host."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. ``manner`` is ``plain``, ``slow``, ``drip``, ``huge`` or ``silent``."""

    status: int
    headers: Headers
    body: bytes
    manner: str = "plain"


def not_found() -> Answer:
    """For every URL that is not of the world."""
    return Answer(404, (("Content-Type", "text/html; charset=utf-8"),), _page("404 Not Found"))


def answer(world: World, url: str) -> Answer:
    """The response to a GET of an absolute URL."""
    resource = world.find(url)
    if resource is None:
        parts = urlsplit(url)
        if not parts.path.startswith(MOVED + "/"):
            return not_found()
        origin = url.replace(MOVED + "/", "/", 1)
        resource = world.find(origin)
        if resource is None or resource.http_kind != "redirect":
            return not_found()
        return _picture(world, resource)
    kind = resource.http_kind
    if kind in ("not_found", "forbidden", "server_error"):
        status, words = {
            "not_found": (404, "404 Not Found"),
            "forbidden": (403, "403 Forbidden"),
            "server_error": (500, "500 Internal Server Error"),
        }[kind]
        return Answer(status, (("Content-Type", "text/html; charset=utf-8"),), _page(words))
    if kind == "private_address":
        return Answer(0, (), b"", "silent")
    if kind == "redirect":
        parts = urlsplit(url)
        target = url.replace(f"//{parts.netloc}/", f"//{parts.netloc}{MOVED}/", 1)
        return Answer(random.Random(url).choice((301, 302, 307, 308)), (("Location", target),), b"")
    if kind == "redirect_loop":
        return Answer(302, (("Location", url),), b"")
    if kind == "empty":
        return Answer(200, (("Content-Type", "image/jpeg"),), b"")
    if kind == "html":
        return Answer(
            200, (("Content-Type", "image/jpeg"),), _page("This picture is shown to subscribers only.")
        )
    return _picture(world, resource)


def _picture(world: World, resource: Resource) -> Answer:
    rng = random.Random(f"answer/{world.config.seed}/{resource.index}")
    kind = resource.http_kind
    body = world.image_bytes(resource.url)
    declared = MIME[resource.format]
    headers: Headers = (("Content-Type", declared),)
    if kind == "opt_out":
        said = rng.choice(("noai", "noai, noimageai", "noimageai", "noindex, noai"))
        headers = (*headers, ("X-Robots-Tag", said))
    elif kind == "wrong_type":
        lie = rng.choice(
            [t for t in ("text/html", "application/octet-stream", *MIME.values()) if t != declared]
        )
        headers = (("Content-Type", lie),)
    elif kind == "truncated":
        body = body[: int(len(body) * rng.uniform(0.3, 0.7))]
    elif kind == "oversized":
        body = with_size(body, 20_000, 20_000)
    manner = kind if kind in ("slow", "drip", "huge") else "plain"
    return Answer(200, headers, body, manner)


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size; its data are left alone.

    Raises ValueError where there is no frame header.
    """
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        if marker in (0xC0, 0xC1, 0xC2):
            return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]
        at += 2 + length
    raise ValueError("no frame header: not a baseline or progressive JPEG")


def _page(words: str) -> bytes:
    head = f"<head><title>{words}</title></head>"
    return f"<!doctype html><html>{head}<body><h1>{words}</h1></body></html>".encode()
