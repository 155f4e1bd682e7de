"""What a demo picture shows, as plain data: the one thing that pictures and captions both read.

A scene is drawn from a seeded ``random.Random`` and nothing else, so a picture is a function of
(seed, id). The vocabulary is small on purpose: a CLIP of a few megabytes can learn all of it, and a
person can see at a glance whether a caption fits its picture.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

OBJECTS = (
    "ball", "star", "heart", "house", "tree", "fish", "flower", "mug", "umbrella", "boat", "mushroom", "kite",
)  # fmt: skip
COLOURS = {
    "red": (208, 32, 38),
    "orange": (243, 130, 24),
    "yellow": (249, 212, 36),
    "green": (38, 150, 62),
    "blue": (32, 84, 200),
    "purple": (122, 48, 160),
    "pink": (246, 130, 180),
    "brown": (122, 74, 36),
    "black": (28, 28, 32),
    "white": (246, 246, 242),
}
PATTERNS = ("solid", "striped", "dotted", "checked")
BACKGROUNDS = (
    "meadow", "beach", "night sky", "wooden table", "brick wall",
    "snow", "lake", "sunset", "tablecloth", "grey wall",
)  # fmt: skip
RELATIONS = ("left of", "right of", "above", "below")
WORDS = ("OPEN", "SALE", "TEA", "BOOKS", "MUSIC", "HELLO", "FRESH", "PARK", "CAFE", "NEW")
WATERMARKS = ("diagonal", "tiled", "banner")
AGENCIES = ("STOCKPIX", "PIXVAULT", "FOTOMINT", "IMAGEBARN")


@dataclass(frozen=True)
class Group:
    """``count`` (1 to 4) equal things of one shape, colour and pattern."""

    shape: str
    colour: str
    pattern: str
    count: int


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    ``relation`` says where the first group is, seen from the second; it is None for one or three
    groups. ``look`` seeds what captions never mention: exact places, light, grain.
    """

    groups: tuple[Group, ...]
    relation: str | None
    background: str
    word: str | None
    watermark: str | None
    agency: str | None
    unsafe: bool
    look: str

    @property
    def shapes(self) -> frozenset[str]:
        """The shapes shown."""
        return frozenset(group.shape for group in self.groups)

    @property
    def colours(self) -> frozenset[str]:
        """The colours of the things shown, backgrounds left out."""
        return frozenset(group.colour for group in self.groups)


def draw_scene(key: str, *, watermark: bool = False, unsafe: bool = False) -> Scene:
    """Draw the scene named ``key``: the same key gives the same scene, on every machine."""
    # A str seed goes through SHA-512, so it depends neither on hash randomisation nor on the platform.
    rng = random.Random(f"scene/{key}")
    kinds = rng.choices((1, 2, 3), weights=(50, 38, 12))[0]
    shapes = rng.sample(OBJECTS, kinds)
    colours = rng.sample(sorted(COLOURS), kinds)
    groups = []
    for shape, colour in zip(shapes, colours, strict=True):
        most = 4 if kinds == 1 else 2 if kinds == 2 else 1
        pattern = rng.choices(PATTERNS, weights=(46, 18, 18, 18))[0]
        groups.append(Group(shape, colour, pattern, rng.randint(1, most)))
    background = rng.choice(BACKGROUNDS)
    word = rng.choice(WORDS) if rng.random() < 0.14 else None
    style, agency = rng.choice(WATERMARKS), rng.choice(AGENCIES)
    return Scene(
        groups=tuple(groups),
        relation=rng.choice(RELATIONS) if kinds == 2 else None,
        background=background,
        word=word,
        watermark=style if watermark else None,
        agency=agency if watermark else None,
        unsafe=unsafe,
        look=key,
    )


def clearly_different(one: Scene, other: Scene) -> bool:
    """Whether the caption of one would be wrong in every noun and every colour for the other."""
    return (
        not (one.shapes & other.shapes or one.colours & other.colours) and one.background != other.background
    )
