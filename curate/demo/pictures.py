"""From a scene to pixels, and from pixels to the bytes that a web server would send."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw

from curate.demo import overlays, sprites, textures
from curate.demo.scene import COLOURS, Scene

Box = tuple[float, float, float, float]

_CELLS: dict[int, tuple[tuple[float, float, float], ...]] = {
    # centre x, centre y, side: in units of the region
    1: ((0.5, 0.5, 0.92),),
    2: ((0.27, 0.5, 0.52), (0.73, 0.5, 0.52)),
    3: ((0.26, 0.3, 0.5), (0.74, 0.3, 0.5), (0.5, 0.74, 0.5)),
    4: ((0.27, 0.27, 0.5), (0.73, 0.27, 0.5), (0.27, 0.73, 0.5), (0.73, 0.73, 0.5)),
}
_HALVES: dict[str, tuple[Box, Box]] = {
    "left of": ((0.0, 0.08, 0.5, 0.92), (0.5, 0.08, 1.0, 0.92)),
    "right of": ((0.5, 0.08, 1.0, 0.92), (0.0, 0.08, 0.5, 0.92)),
    "above": ((0.08, 0.0, 0.92, 0.5), (0.08, 0.5, 0.92, 1.0)),
    "below": ((0.08, 0.5, 0.92, 1.0), (0.08, 0.0, 0.92, 0.5)),
}
_THIRDS: tuple[Box, ...] = ((0.02, 0.02, 0.5, 0.5), (0.5, 0.04, 0.98, 0.5), (0.22, 0.48, 0.78, 1.0))


def size_of(key: str) -> tuple[int, int]:
    """Width and height of the picture named ``key``: 150 to 900 pixels, most of them small, with a tail."""
    rng = random.Random(f"size/{key}")
    longest = min(900, int(150 + rng.expovariate(1 / 170)))
    ratio = rng.choice((1.0, 1.0, 1.2, 4 / 3, 4 / 3, 1.5))
    shortest = max(150, round(longest / ratio))
    return (longest, shortest) if rng.random() < 0.7 else (shortest, longest)


def render(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Draw a scene, RGB, at a size of at most 1,000 pixels a side. Same scene, same size: same pixels."""
    rng = random.Random(f"look/{scene.look}")
    picture = _backdrop(scene.background, size, rng)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    for group, region in zip(scene.groups, _regions(scene), strict=True):
        _place(picture, group.shape, group.colour, group.pattern, group.count, region, (left, top, side), rng)
    if scene.word is not None:
        _sign(picture, scene.word, (left, top, side), rng)
    if scene.unsafe:
        _emblem(picture, (left, top, side), rng)
    picture = picture.point(_light(rng))
    sigma = rng.choice(textures.GRAINS)
    if sigma:
        x, y = rng.randrange(1024 - size[0]), rng.randrange(1024 - size[1])
        noise = textures.grain(sigma).crop((x, y, x + size[0], y + size[1]))
        picture = ImageChops.add(picture, noise, 1, -128)
    if scene.watermark is not None and scene.agency is not None:
        overlay = overlays.watermark(scene.watermark, scene.agency).resize(size, Image.Resampling.BILINEAR)
        picture.paste(overlay, (0, 0), overlay)
    return picture


def _backdrop(name: str, size: tuple[int, int], rng: random.Random) -> Image.Image:
    texture = textures.background(name)
    zoom = rng.uniform(0.75, 1.0)
    width = zoom * textures.BACK * min(1.0, size[0] / size[1])
    height = zoom * textures.BACK * min(1.0, size[1] / size[0])
    # Horizons stay in view: the crop moves sideways freely and up and down a little.
    x = rng.uniform(0, textures.BACK - width)
    y = (textures.BACK - height) * rng.uniform(0.35, 0.65)
    picture = texture.resize(size, Image.Resampling.BILINEAR, (x, y, x + width, y + height), reducing_gap=1.5)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture


def _light(rng: random.Random) -> list[int]:
    """A look-up table for the light of the scene: darker or brighter, warmer or colder."""
    light, warm = rng.uniform(0.84, 1.08), rng.uniform(0.95, 1.05)
    return [min(255, int(v * gain)) for gain in (light * warm, light, light / warm) for v in range(256)]


def _regions(scene: Scene) -> tuple[Box, ...]:
    if len(scene.groups) == 1:
        return ((0.06, 0.06, 0.94, 0.94),)
    if scene.relation is not None:
        return _HALVES[scene.relation]
    return _THIRDS


def _place(
    picture: Image.Image, shape: str, colour: str, pattern: str, count: int, region: Box,
    square: tuple[int, int, int], rng: random.Random,
) -> None:  # fmt: skip
    left, top, side = square
    x0, y0, x1, y1 = region
    width, height = (x1 - x0) * side, (y1 - y0) * side
    cells = _CELLS[count]
    if count == 2 and height > width:
        cells = tuple((y, x, s) for x, y, s in cells)
    # Two cells along the long axis of their region may be as large as its short axis allows.
    span = min(max(width, height) * 0.5, min(width, height)) / 0.52 if count == 2 else min(width, height)
    for cx, cy, cell in cells:
        extent = max(12, int(cell * span * rng.uniform(0.84, 1.0)))
        level = next((edge for edge in sprites.LEVELS if edge >= extent), sprites.SIDE)
        sprite = sprites.thing_at(shape, COLOURS[colour], pattern, level)
        stamp = sprites.stamp(sprite, extent, rng.uniform(-12, 12))
        spread_x, spread_y = (width, height) if count != 1 else (span, span)
        centre_x = left + x0 * side + (width - spread_x) / 2 + cx * spread_x + rng.uniform(-0.02, 0.02) * side
        centre_y = top + y0 * side + (height - spread_y) / 2 + cy * spread_y + rng.uniform(-0.02, 0.02) * side
        picture.paste(stamp, (int(centre_x - extent / 2), int(centre_y - extent / 2)), stamp)


def _sign(picture: Image.Image, word: str, square: tuple[int, int, int], rng: random.Random) -> None:
    left, top, side = square
    letters = max(14, int(side * 0.13))
    width, height = int(letters * 0.72 * len(word) + letters), int(letters * 1.45)
    x = left + int(rng.uniform(0.02, 0.98) * max(1, side - width))
    y = top + (int(0.02 * side) if rng.random() < 0.5 else side - height - int(0.02 * side))
    draw = ImageDraw.Draw(picture)
    paint = rng.choice(((250, 250, 240), (24, 70, 50), (30, 40, 90), (160, 26, 30)))
    ink = (20, 20, 20) if sum(paint) > 500 else (255, 255, 255)
    draw.rounded_rectangle(
        (x, y, x + width, y + height), radius=height // 6, fill=paint, outline=ink, width=3
    )
    draw.text((x + width / 2, y + height / 2), word, fill=ink, font=overlays.font(letters), anchor="mm")


def _emblem(picture: Image.Image, square: tuple[int, int, int], rng: random.Random) -> None:
    left, top, side = square
    extent = int(side * rng.uniform(0.38, 0.52))
    emblem = overlays.unsafe_emblem().resize((extent, extent), Image.Resampling.BILINEAR)
    # Towards a corner: what the caption names must stay visible beside the emblem.
    x = left + int(rng.choice((rng.uniform(0, 0.2), rng.uniform(0.8, 1))) * (side - extent))
    y = top + int(rng.choice((rng.uniform(0, 0.2), rng.uniform(0.8, 1))) * (side - extent))
    picture.paste(emblem, (x, y), emblem)


@dataclass(frozen=True)
class Edit:
    """How a near-duplicate differs: scaled by ``scale``, ``crop`` cut off each edge, saved at ``quality``."""

    scale: float = 1.0
    crop: float = 0.0
    quality: int | None = None


def apply_edit(picture: Image.Image, edit: Edit) -> Image.Image:
    """Crop first, then scale; never below 64 pixels a side."""
    width, height = picture.size
    dx, dy = int(width * edit.crop), int(height * edit.crop)
    picture = picture.crop((dx, dy, width - dx, height - dy))
    if edit.scale != 1.0:
        width, height = (max(64, round(v * edit.scale)) for v in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return picture


MIME = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}


def encode(picture: Image.Image, kind: str, quality: int = 85) -> bytes:
    """The picture as ``jpeg``, ``png``, ``webp`` or ``gif`` bytes, without metadata."""
    out = io.BytesIO()
    if kind == "jpeg":
        picture.save(out, "JPEG", quality=quality)
    elif kind == "png":
        picture.save(out, "PNG", compress_level=1)
    elif kind == "webp":
        picture.save(out, "WEBP", quality=quality, method=0)
    else:
        picture.quantize(64, Image.Quantize.FASTOCTREE).save(out, "GIF")
    return out.getvalue()
