"""Photograph-like backgrounds and film grain, made once per process from fixed seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACK = 512
"""Side of a background texture, in pixels."""

Field = NDArray[np.float64]


def _fractal(rng: np.random.Generator, octaves: tuple[int, ...], stretch: int = 1) -> Field:
    """Smooth noise in [-1, 1]: octaves of small random grids blown up; ``stretch`` makes it streaky."""
    total = np.zeros((BACK, BACK))
    for i, cells in enumerate(octaves):
        grid = rng.random((max(2, cells // stretch), cells)).astype(np.float32)
        layer = Image.fromarray(grid).resize((BACK, BACK), Image.Resampling.BICUBIC)
        total += (np.asarray(layer, np.float64) - 0.5) * 2 / 2**i
    field: Field = total / np.abs(total).max()
    return field


def _tint(base: tuple[int, int, int], field: Field, strength: float) -> Field:
    tinted: Field = np.asarray(base, float)[None, None, :] * (1 + strength * field[..., None])
    return tinted


def _vertical(stops: list[tuple[float, tuple[int, int, int]]]) -> Field:
    where = [s[0] for s in stops]
    ys = np.linspace(0, 1, BACK)
    channels = [np.interp(ys, where, [s[1][c] for s in stops]) for c in range(3)]
    column: Field = np.stack(channels, axis=-1)
    return np.repeat(column[:, None, :], BACK, axis=1)


def _meadow(rng: np.random.Generator) -> Field:
    sky = _vertical([(0, (116, 176, 232)), (0.42, (206, 228, 242)), (1, (206, 228, 242))])
    clouds = np.clip(_fractal(rng, (4, 8, 16, 32)) - 0.15, 0, 1)[..., None]
    sky += (250 - sky) * clouds
    grass = _tint((96, 150, 58), _fractal(rng, (6, 40, 160), 1), 0.35)
    rows = np.arange(BACK)[:, None] > 0.40 * BACK + 14 * np.sin(np.arange(BACK)[None, :] / 90)
    return np.where(rows[..., None], grass, sky)


def _beach(rng: np.random.Generator) -> Field:
    out = _vertical([(0, (150, 205, 240)), (0.24, (222, 238, 246)), (0.245, (40, 140, 170)),
                     (0.48, (96, 196, 204)), (0.50, (244, 246, 240)), (0.53, (226, 204, 158)),
                     (1, (214, 184, 130))])  # fmt: skip
    return out * (1 + 0.10 * _fractal(rng, (5, 60, 200))[..., None])


def _night(rng: np.random.Generator) -> Field:
    out = _vertical([(0, (10, 14, 44)), (1, (36, 44, 92))]) * (
        1 + 0.25 * _fractal(rng, (3, 6, 12))[..., None]
    )
    for _ in range(160):
        y, x, size = int(rng.integers(BACK - 4)), int(rng.integers(BACK - 4)), int(rng.integers(1, 4))
        out[y : y + size, x : x + size] = rng.integers(170, 256)
    return out


def _wood(rng: np.random.Generator) -> Field:
    grain = np.sin((np.mgrid[0:BACK, 0:BACK][0] / 7.0) + 5 * _fractal(rng, (4, 8), 1))
    out = _tint((170, 116, 66), 0.5 * grain + _fractal(rng, (3, 100), 1), 0.16)
    for y in range(0, BACK, 128):
        out[y : y + 4] *= 0.55
    return out


def _bricks(rng: np.random.Generator) -> Field:
    out = _tint((198, 190, 178), _fractal(rng, (60, 200)), 0.12)
    height, width = 40, 92
    texture = _fractal(rng, (30, 120, 240))
    for row, y in enumerate(range(0, BACK, height)):
        for x in range(-width // 2 * (row % 2), BACK, width):
            left, right = max(0, x), max(0, min(BACK, x + width - 6))
            patch = texture[y : y + height - 6, left:right]
            shade = 0.82 + 0.36 * rng.random()
            out[y : y + height - 6, left:right] = _tint((160, 78, 58), patch, 0.25) * shade
    return out


def _snow(rng: np.random.Generator) -> Field:
    out = _vertical(
        [(0, (196, 212, 230)), (0.35, (226, 234, 242)), (0.37, (240, 244, 250)), (1, (224, 232, 244))]
    )
    return out * (1 + 0.05 * _fractal(rng, (4, 9, 30))[..., None])


def _lake(rng: np.random.Generator) -> Field:
    waves = _fractal(rng, (8, 24, 64), 1) + np.sin(
        np.mgrid[0:BACK, 0:BACK][0] / 5.0 + 6 * _fractal(rng, (5, 11))
    )
    return _tint((38, 118, 160), waves, 0.16)


def _sunset(rng: np.random.Generator) -> Field:
    out = _vertical([(0, (70, 50, 110)), (0.35, (214, 92, 84)), (0.62, (250, 176, 84)),
                     (0.70, (252, 220, 150)), (0.705, (52, 34, 48)), (1, (30, 20, 34))])  # fmt: skip
    return out * (1 + 0.10 * _fractal(rng, (3, 7, 18), 1)[..., None])


def _tablecloth(rng: np.random.Generator) -> Field:
    ys, xs = np.mgrid[0:BACK, 0:BACK]
    bands = ((ys // 32) % 2) + ((xs // 32) % 2)
    palette = np.array([(244, 240, 232), (226, 156, 156), (196, 72, 78)], float)
    cloth: Field = palette[bands] * (1 + 0.06 * _fractal(rng, (6, 180, 256))[..., None])
    return cloth


def _grey_wall(rng: np.random.Generator) -> Field:
    out = _vertical(
        [(0, (176, 178, 182)), (0.72, (150, 152, 158)), (0.74, (118, 120, 126)), (1, (138, 140, 146))]
    )
    return out * (1 + 0.06 * _fractal(rng, (3, 30, 200))[..., None])


_BACKGROUNDS: dict[str, Callable[[np.random.Generator], Field]] = {
    "meadow": _meadow, "beach": _beach, "night sky": _night, "wooden table": _wood, "brick wall": _bricks,
    "snow": _snow, "lake": _lake, "sunset": _sunset, "tablecloth": _tablecloth, "grey wall": _grey_wall,
}  # fmt: skip


@functools.lru_cache(maxsize=16)
def background(name: str) -> Image.Image:
    """The texture of a background, RGB, ``BACK`` pixels square. The same in every world."""
    rng = np.random.Generator(np.random.PCG64(sum(name.encode())))
    return Image.fromarray(np.clip(_BACKGROUNDS[name](rng), 0, 255).astype(np.uint8))


GRAINS = (0, 3, 6, 11)
"""Standard deviations of film grain, in grey levels."""


@functools.lru_cache(maxsize=4)
def grain(sigma: int) -> Image.Image:
    """Camera noise around 128, RGB, 1024 pixels square."""
    rng = np.random.Generator(np.random.PCG64(7 + sigma))
    noise = rng.standard_normal((1024, 1024)) * sigma
    chroma = rng.standard_normal((1024, 1024, 3)) * (sigma / 3)
    return Image.fromarray(np.clip(128 + noise[..., None] + chroma, 0, 255).astype(np.uint8))
