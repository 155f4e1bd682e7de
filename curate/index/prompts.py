"""Texts like those people search with, for pools that have none: short and long, things, scenes, moods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence


def _words(text: str) -> list[str]:
    return [" ".join(words.split()) for words in text.split(",")]


_THINGS = _words("""
    dog, kittens, horses, owl, goldfish, butterfly, elephant, sparrows, bicycle, steam train,
    sailing boat, pickup truck, fighter jet, tram, motorcycle, helicopter, pizza, bowl of soup,
    strawberries, birthday cake, cup of coffee, loaf of bread, sushi, wine glass, castle,
    lighthouse, skyscraper, wooden hut, cathedral, stone bridge, greenhouse, windmill, armchair,
    wristwatch, laptop, bookshelf, guitar, leather boots, wedding dress, backpack, sunflowers,
    oak tree, cactus, waterfall, volcano, snowy mountain, desert dunes, thunderstorm
""")
_QUALITIES = _words("""
    red, yellow, black and white, turquoise, striped, golden, tiny, huge, rusty, shiny, broken,
    antique, modern, handmade, wet, dusty
""")
_PEOPLE = _words("""
    an old man, two girls, a young couple, a crowd of people, a firefighter, a toddler,
    a woman in a blue coat, three musicians, a football team, a doctor, a farmer, an astronaut
""")
_DOINGS = _words("""
    reading, dancing, waiting for the bus, cooking dinner, playing chess, riding a horse, laughing,
    taking a photo, carrying boxes, sleeping, running, painting a wall
""")
_PLACES = _words("""
    on a beach, in the snow, at night, in a kitchen, on a wooden table, in an empty street,
    under water, in front of a brick wall, at sunset, in a forest, on the roof, in a museum,
    in the rain, on a white background, at a market, by the window
""")
_STYLES = _words("""
    photo, watercolour, oil painting, pencil sketch, logo, aerial view, close-up, cartoon, poster,
    3d render, icon, screenshot, map, black and white portrait, diagram, vintage postcard
""")
_IDEAS = _words("""
    loneliness, summer holidays, success, the future, home office, autumn mood, healthy food,
    teamwork, winter sale, danger, good luck, silence, retro design, climate change,
    happy birthday, love, minimalism, speed, childhood, space exploration
""")


def prompts() -> list[str]:
    """512 different texts, the same each time, in which every kind and every word has its share."""
    kinds = (
        list(_THINGS),
        [f"{quality} {thing}" for quality, thing in _mixed(80, _QUALITIES, _THINGS)],
        [f"{thing} {place}" for thing, place in _mixed(80, _THINGS, _PLACES)],
        [f"{style} of {thing}" for style, thing in _mixed(64, _STYLES, _THINGS)],
        [f"{who} {doing} {place}" for who, doing, place in _mixed(80, _PEOPLE, _DOINGS, _PLACES)],
        [
            f"{style} of {quality} {thing} and {other} {place}"
            for style, quality, thing, other, place in _mixed(
                80, _STYLES, _QUALITIES, _THINGS[:24], _THINGS[24:], _PLACES
            )
        ],
        list(_IDEAS),
        [f"{idea}, {style}" for idea, style in _mixed(60, _IDEAS, _STYLES)],
    )
    return [text for kind in kinds for text in kind]


def _mixed(count: int, *lists: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """As many different combinations, spread over all there are by steps of the golden ratio."""
    total = math.prod(map(len, lists))
    step = int(total * 0.6180339887)
    while math.gcd(step, total) != 1:
        step += 1
    for number in range(count):
        rest, chosen = number * step % total, []
        for words in lists:
            rest, at = divmod(rest, len(words))
            chosen.append(words[at])
        yield tuple(chosen)
