"""The things in the pictures: each shape, colour and pattern is drawn once per process and reused.

A picture is composed from these at some hundreds a second; drawing each polygon anew with
anti-aliasing would take ten times as long.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIDE = 160
"""Side of a sprite, in pixels."""
LEVELS = (40, 80, SIDE)
"""Sides at which things are kept: from the next larger one, a single cheap step makes any size."""
_BIG = SIDE * 2
_MARGIN = 10

Draw = ImageDraw.ImageDraw
Point = tuple[float, float]


def _at(points: list[Point]) -> list[Point]:
    """Points of the unit square, inside the margin, in pixels of the double-size canvas."""
    inner = _BIG - 4 * _MARGIN
    return [(2 * _MARGIN + x * inner, 2 * _MARGIN + y * inner) for x, y in points]


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return _at([(left, top), (right, bottom)])


def _ball(body: Draw, detail: Draw) -> None:
    body.ellipse(_box(0.04, 0.04, 0.96, 0.96), fill=255)
    detail.ellipse(_box(0.22, 0.16, 0.42, 0.32), fill=(255, 255, 255, 150))


def _star(body: Draw, detail: Draw) -> None:
    points = []
    for i in range(10):
        radius = 0.52 if i % 2 == 0 else 0.22
        angle = -math.pi / 2 + i * math.pi / 5
        points.append((0.5 + radius * math.cos(angle), 0.53 + radius * math.sin(angle)))
    body.polygon(_at(points), fill=255)


def _heart(body: Draw, detail: Draw) -> None:
    points = []
    for i in range(120):
        t = i / 120 * 2 * math.pi
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x / 34, 0.46 - y / 34))
    body.polygon(_at(points), fill=255)


def _house(body: Draw, detail: Draw) -> None:
    body.polygon(_at([(0.12, 0.44), (0.88, 0.44), (0.88, 0.98), (0.12, 0.98)]), fill=255)
    detail.polygon(_at([(0.0, 0.46), (0.5, 0.02), (1.0, 0.46)]), fill=(92, 52, 44, 255))
    detail.rectangle(_box(0.42, 0.66, 0.6, 0.98), fill=(60, 38, 28, 255))
    for left in (0.18, 0.68):
        detail.rectangle(
            _box(left, 0.56, left + 0.15, 0.72), fill=(250, 240, 170, 255), outline=(40, 30, 30, 255)
        )


def _tree(body: Draw, detail: Draw) -> None:
    detail.rectangle(_box(0.43, 0.6, 0.57, 1.0), fill=(98, 62, 34, 255))
    for box in ((0.05, 0.25, 0.6, 0.75), (0.4, 0.25, 0.95, 0.75), (0.2, 0.0, 0.8, 0.56)):
        body.ellipse(_box(*box), fill=255)


def _fish(body: Draw, detail: Draw) -> None:
    body.ellipse(_box(0.0, 0.24, 0.78, 0.78), fill=255)
    body.polygon(_at([(0.68, 0.5), (1.0, 0.2), (0.94, 0.5), (1.0, 0.82)]), fill=255)
    body.polygon(_at([(0.28, 0.3), (0.46, 0.08), (0.58, 0.3)]), fill=255)
    detail.ellipse(_box(0.12, 0.38, 0.24, 0.5), fill=(255, 255, 255, 255))
    detail.ellipse(_box(0.15, 0.41, 0.22, 0.48), fill=(10, 10, 10, 255))


def _flower(body: Draw, detail: Draw) -> None:
    detail.line(_at([(0.5, 0.5), (0.5, 1.0)]), fill=(40, 120, 44, 255), width=18)
    detail.polygon(_at([(0.5, 0.92), (0.78, 0.72), (0.66, 0.92)]), fill=(48, 138, 52, 255))
    for i in range(6):
        angle = i * math.pi / 3
        x, y = 0.5 + 0.22 * math.cos(angle), 0.36 + 0.22 * math.sin(angle)
        body.ellipse(_box(x - 0.15, y - 0.15, x + 0.15, y + 0.15), fill=255)
    detail.ellipse(
        _box(0.38, 0.24, 0.62, 0.48), fill=(250, 196, 40, 255), outline=(150, 96, 20, 255), width=4
    )


def _mug(body: Draw, detail: Draw) -> None:
    body.rounded_rectangle(_box(0.06, 0.16, 0.7, 0.96), radius=40, fill=255)
    body.arc(_box(0.48, 0.3, 0.98, 0.78), -90, 90, fill=255, width=36)
    detail.ellipse(_box(0.08, 0.1, 0.68, 0.26), fill=(70, 40, 22, 255), outline=(230, 230, 226, 255), width=7)


def _umbrella(body: Draw, detail: Draw) -> None:
    detail.line(_at([(0.5, 0.02), (0.5, 0.88)]), fill=(60, 44, 36, 255), width=14)
    detail.arc(_box(0.3, 0.76, 0.515, 1.0), 0, 180, fill=(60, 44, 36, 255), width=14)
    body.pieslice(_box(0.0, 0.08, 1.0, 1.06), 180, 360, fill=255)


def _boat(body: Draw, detail: Draw) -> None:
    body.polygon(_at([(0.0, 0.68), (1.0, 0.68), (0.82, 0.96), (0.18, 0.96)]), fill=255)
    body.polygon(_at([(0.54, 0.06), (0.54, 0.6), (0.96, 0.6)]), fill=255)
    detail.polygon(_at([(0.46, 0.12), (0.46, 0.6), (0.1, 0.6)]), fill=(244, 240, 228, 255))
    detail.line(_at([(0.5, 0.0), (0.5, 0.7)]), fill=(84, 56, 36, 255), width=12)


def _mushroom(body: Draw, detail: Draw) -> None:
    detail.rounded_rectangle(_box(0.36, 0.5, 0.64, 0.98), radius=30, fill=(240, 228, 204, 255))
    body.pieslice(_box(0.02, 0.06, 0.98, 1.06), 180, 360, fill=255)


def _kite(body: Draw, detail: Draw) -> None:
    body.polygon(_at([(0.5, 0.0), (0.88, 0.32), (0.5, 0.76), (0.12, 0.32)]), fill=255)
    detail.line(_at([(0.5, 0.76), (0.6, 0.84), (0.44, 0.9), (0.58, 1.0)]), fill=(50, 50, 60, 255), width=8)
    for x, y in ((0.58, 0.83), (0.47, 0.91)):
        detail.ellipse(_box(x - 0.05, y - 0.035, x + 0.05, y + 0.035), fill=(214, 60, 60, 255))


_SHAPES: dict[str, Callable[[Draw, Draw], None]] = {
    "ball": _ball, "star": _star, "heart": _heart, "house": _house, "tree": _tree, "fish": _fish,
    "flower": _flower, "mug": _mug, "umbrella": _umbrella,
    "boat": _boat, "mushroom": _mushroom, "kite": _kite,
}  # fmt: skip
_DETAIL_BEHIND = {"tree", "flower", "umbrella", "mushroom"}


@functools.lru_cache(maxsize=32)
def shape_layers(shape: str) -> tuple[Image.Image, Image.Image, bool]:
    """``(body mask L, details RGBA, details lie behind the body)``, each ``SIDE`` pixels square."""
    body = Image.new("L", (_BIG, _BIG), 0)
    detail = Image.new("RGBA", (_BIG, _BIG), (0, 0, 0, 0))
    _SHAPES[shape](ImageDraw.Draw(body), ImageDraw.Draw(detail))
    small = (SIDE, SIDE)
    return (
        body.resize(small, Image.Resampling.BOX),
        detail.resize(small, Image.Resampling.BOX),
        shape in _DETAIL_BEHIND,
    )


@functools.lru_cache(maxsize=8)
def _pattern_mask(pattern: str) -> Image.Image | None:
    """Where the second colour goes; None for solid."""
    if pattern == "solid":
        return None
    mask = Image.new("L", (SIDE, SIDE), 0)
    draw = ImageDraw.Draw(mask)
    if pattern == "striped":
        for x in range(-SIDE, SIDE * 2, 36):
            draw.polygon([(x, 0), (x + 18, 0), (x + 18 + 50, SIDE), (x + 50, SIDE)], fill=255)
    elif pattern == "dotted":
        for row, y in enumerate(range(12, SIDE + 20, 29)):
            for x in range(12 + 16 * (row % 2), SIDE + 20, 32):
                draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=255)
    else:
        cell = 26
        for row in range(SIDE // cell + 1):
            for column in range(row % 2, SIDE // cell + 1, 2):
                draw.rectangle(
                    (column * cell, row * cell, column * cell + cell - 1, row * cell + cell - 1), fill=255
                )
    return mask


@functools.lru_cache(maxsize=1)
def _shading() -> Image.Image:
    """Light from the upper left, as a multiplier (RGB, 255 is full light)."""
    ys, xs = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    light = 1.06 - 0.40 * np.clip(np.hypot(xs - 0.35, ys - 0.28), 0, 1)
    return Image.fromarray(np.clip(light * 255, 0, 255).astype(np.uint8)).convert("RGB")


@functools.lru_cache(maxsize=16)
def _surround(shape: str) -> tuple[Image.Image, Image.Image]:
    """Outline mask of the body and soft shadow of the whole shape, both L."""
    body, detail, _ = shape_layers(shape)
    silhouette = Image.new("L", body.size, 0)
    silhouette.paste(255, (0, 0), body)
    silhouette.paste(255, (0, 0), detail.getchannel("A"))
    blurred = silhouette.filter(ImageFilter.GaussianBlur(4)).point([v * 2 // 5 for v in range(256)])
    shadow = Image.new("L", body.size, 0)
    shadow.paste(blurred, (4, 6))
    return body.filter(ImageFilter.MaxFilter(5)), shadow


@functools.lru_cache(maxsize=512)
def thing(shape: str, rgb: tuple[int, int, int], pattern: str) -> Image.Image:
    """A thing with its pattern, outline, light and soft shadow, RGBA, ``SIDE`` pixels square."""
    body, detail, behind = shape_layers(shape)
    outline, shadow = _surround(shape)
    fill = Image.new("RGB", body.size, rgb)
    second = _pattern_mask(pattern)
    if second is not None:
        pale = sum(rgb) > 560
        fill.paste((70, 74, 86) if pale else (250, 248, 240), (0, 0), second)
    fill = ImageChops.multiply(fill, _shading())
    out = Image.new("RGBA", body.size, (0, 0, 0, 0))
    out.putalpha(shadow)
    if behind:
        out.alpha_composite(detail)
    edge = Image.new("RGBA", body.size, (*(c // 4 for c in rgb), 255))
    edge.putalpha(outline)
    out.alpha_composite(edge)
    fill.putalpha(body)
    out.alpha_composite(fill)
    if not behind:
        out.alpha_composite(detail)
    return out


@functools.lru_cache(maxsize=1536)
def thing_at(shape: str, rgb: tuple[int, int, int], pattern: str, level: int) -> Image.Image:
    """``thing`` at a side of ``level`` pixels, one of ``LEVELS``."""
    sprite = thing(shape, rgb, pattern)
    return sprite if level == SIDE else sprite.reduce(SIDE // level)


def stamp(sprite: Image.Image, extent: int, degrees: float) -> Image.Image:
    """A square sprite scaled to ``extent`` pixels and turned, in one bilinear step."""
    scale = sprite.width / extent
    cos, sin = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    middle, half = sprite.width / 2, extent / 2
    matrix = (cos, sin, middle - (cos + sin) * half, -sin, cos, middle - (cos - sin) * half)
    return sprite.transform((extent, extent), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
