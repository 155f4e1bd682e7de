"""The plan of the demo web: which pictures, under which URLs, with which alt texts, on which pages.

The plan is a few small records per image, all drawn from the seed; pixels are made on demand. Nothing
depends on the clock, on hash randomisation or on the order of calls.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import pyarrow as pa

from curate.demo import captions, hosts
from curate.demo.config import WorldConfig, shares_of
from curate.demo.pictures import Edit, apply_edit, encode, render, size_of
from curate.demo.scene import Scene, clearly_different, draw_scene

TRUTH_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("url", pa.string()),
        ("text", pa.string()),
        ("alt_kind", pa.string()),
        ("image_kind", pa.string()),
        ("http_kind", pa.string()),
        ("watermark", pa.bool_()),
        ("unsafe", pa.bool_()),
        ("match", pa.bool_()),
        ("lang", pa.string()),
        ("duplicate_of", pa.string()),
        ("near_duplicate_of", pa.string()),
        ("caption", pa.string()),
        ("occurrences", pa.int32()),
    ]
)


def uid_of(text: str, url: str) -> str:
    """``md5(text + url)``, 32 hex digits: the key of cc2dataset and DataComp."""
    return hashlib.md5((text + url).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Resource:
    """One image URL. ``content`` is the number of the resource whose picture it shows (often its own)."""

    index: int
    url: str
    site: str
    content: int
    image_kind: str
    http_kind: str
    format: str
    edit: Edit | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """One (URL, alt text) pair; ``alt`` is empty for pictures without alt text."""

    resource: int
    alt: str
    alt_kind: str
    lang: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One HTML page and the numbers of the placements on it, in order."""

    url: str
    site: str
    placements: tuple[int, ...]


class World:
    """A synthetic web with everything on it known.

    ``resources``, ``placements`` and ``pages`` are the plan; ``truth()`` is the answer sheet;
    ``image_bytes(url)`` draws a picture.
    """

    def __init__(self, config: WorldConfig | None = None) -> None:
        self.config = config or WorldConfig()
        self.resources = _plan_resources(self.config)
        self.placements = _plan_placements(self)
        self.pages = _plan_pages(self)
        self._by_url = {resource.url: resource for resource in self.resources}

    def find(self, url: str) -> Resource | None:
        """The resource at an absolute URL, or None."""
        return self._by_url.get(url)

    def scene(self, content: int) -> Scene:
        """What the picture of resource ``content`` shows."""
        kind = self.resources[content].image_kind
        return _scene(self.config.seed, content, kind)

    def image_bytes(self, url: str) -> bytes:
        """The picture behind a URL, as bytes of its format, whatever HTTP would do with it.

        Raises KeyError for a URL that is not of this world.
        """
        resource = self._by_url[url]
        return picture_bytes(self, resource)

    def truth(self) -> pa.Table:
        """One row per distinct (url, alt text) pair of the WAT files, sorted by uid; see ``TRUTH_SCHEMA``.

        ``match`` is True only if the alt text truly describes the picture. ``image_kind`` is about the
        picture behind the URL and ``http_kind`` about what the server does. All members of a group of
        equal files carry its ``duplicate_of``, all members of a group of look-alikes its
        ``near_duplicate_of``. ``occurrences`` counts the ``IMG@/src`` links with that pair.
        """
        occurrences: dict[int, int] = {}
        for page in self.pages:
            for number in page.placements:
                occurrences[number] = occurrences.get(number, 0) + 1
        equal = {r.content for r in self.resources if r.image_kind == "duplicate"}
        alike = {r.content for r in self.resources if r.image_kind == "near_duplicate"}
        rows = []
        for number, placement in enumerate(self.placements):
            if not placement.alt:
                continue
            resource = self.resources[placement.resource]
            content = resource.content
            scene = self.scene(content)
            said = random.Random(f"true caption/{self.config.seed}/{content}")
            same_bytes = content in equal and resource.image_kind != "near_duplicate"
            rows.append(
                {
                    "uid": uid_of(placement.alt, resource.url),
                    "url": resource.url,
                    "text": placement.alt,
                    "alt_kind": placement.alt_kind,
                    "image_kind": resource.image_kind,
                    "http_kind": resource.http_kind,
                    "watermark": scene.watermark is not None,
                    "unsafe": scene.unsafe,
                    "match": placement.alt_kind in ("match", "other_language"),
                    "lang": placement.lang,
                    "duplicate_of": f"d{content:05d}" if same_bytes else None,
                    "near_duplicate_of": f"n{content:05d}" if content in alike else None,
                    "caption": captions.caption(scene, said, explicit=1.0),
                    "occurrences": occurrences[number],
                }
            )
        rows.sort(key=lambda row: str(row["uid"]))
        return pa.Table.from_pylist(rows, schema=TRUTH_SCHEMA)


def picture_bytes(world: World, resource: Resource) -> bytes:
    """Draw, edit and encode the picture of a resource."""
    key = f"{world.config.seed}/{resource.content}"
    rng = random.Random(f"file/{key}")
    quality = rng.randint(70, 93)
    if resource.http_kind == "extreme_aspect":
        long, short = rng.randint(800, 1000), rng.randint(48, 72)
        size = (long, short) if rng.random() < 0.7 else (short, long)
    elif resource.http_kind == "tiny":
        size = (150, 150)
    else:
        size = size_of(key)
        # Files without lossy compression grow fast; the web keeps them small too.
        if resource.format in ("png", "gif") and max(size) > 480:
            size = (max(150, size[0] * 480 // max(size)), max(150, size[1] * 480 // max(size)))
    picture = render(world.scene(resource.content), size)
    if resource.http_kind == "tiny":
        side = random.Random(f"tiny/{key}").choice((1, 8, 16, 20, 24, 31))
        picture = picture.resize((side, side))
    if resource.edit is not None:
        picture = apply_edit(picture, resource.edit)
        quality = resource.edit.quality or quality
    return encode(picture, resource.format, quality)


def _scene(seed: int, content: int, image_kind: str) -> Scene:
    return draw_scene(
        f"{seed}/{content}", watermark=image_kind == "watermark", unsafe=image_kind == "unsafe_standin"
    )


def _quota(shares: dict[str, float], rest: str, count: int, total: int, rng: random.Random) -> list[str]:
    """``count`` kinds in random order: each share of ``total`` at least once, ``rest`` for what is left."""
    kinds = []
    for name, share in shares.items():
        if share > 0:
            kinds += [name] * max(1, round(share * total))
    kinds = kinds[:count] + [rest] * (count - len(kinds))
    rng.shuffle(kinds)
    return kinds


def _plan_resources(config: WorldConfig) -> tuple[Resource, ...]:
    seed, count = config.seed, config.images
    rng = random.Random(f"resources/{seed}")
    image_kinds = _quota(shares_of(config.image), "ok", count, count, rng)
    own = [i for i in range(count) if image_kinds[i] not in ("duplicate", "near_duplicate")]
    http_kinds = ["ok"] * count
    for i, kind in zip(own, _quota(shares_of(config.http), "ok", len(own), count, rng), strict=True):
        http_kinds[i] = kind
    originals = [i for i in own if image_kinds[i] == "ok" and http_kinds[i] == "ok"]
    formats = {i: rng.choices(("jpeg", "png", "webp", "gif"), weights=(82, 7, 9, 2))[0] for i in range(count)}
    resources = []
    for i in range(count):
        kind, http_kind, file_format, content, edit = image_kinds[i], http_kinds[i], formats[i], i, None
        if kind == "duplicate":
            content = rng.choice(originals)
            file_format = formats[content]
        elif kind == "near_duplicate":
            content = rng.choice(originals)
            edit = rng.choice(
                (
                    Edit(scale=rng.uniform(0.5, 0.8)),
                    Edit(scale=rng.uniform(1.2, 1.5)),
                    Edit(quality=rng.randint(25, 50)),
                    Edit(crop=rng.uniform(0.02, 0.05)),
                    Edit(scale=0.7, crop=0.03, quality=60),
                )
            )
            # In a lossless format "other quality" would be the very same file.
            file_format = "jpeg"
        if http_kind in ("truncated", "oversized"):
            file_format = "jpeg"
        site = rng.choice(hosts.OPT_OUT_SITES if http_kind == "opt_out" else hosts.SITES)
        if http_kind == "private_address":
            host = rng.choice(hosts.PRIVATE_HOSTS)
        else:
            host = site if http_kind == "opt_out" else hosts.image_host(site, rng)
        group = _scene(seed, content, image_kinds[content]).groups[0]
        path = hosts.image_path(i, file_format, f"{group.colour}-{group.shape}", rng)
        resources.append(
            Resource(i, f"http://{host}{path}", site, content, kind, http_kind, file_format, edit)
        )
    return tuple(resources)


def _plan_placements(world: World) -> tuple[Placement, ...]:
    config = world.config
    rng = random.Random(f"placements/{config.seed}")
    count = config.images
    shares = shares_of(config.alt)
    twice = rng.sample(range(count), round(config.second_alts * count))
    wanted = list(range(count)) + twice
    kinds = _quota(shares, "match", len(wanted), len(wanted), rng)
    seen: set[tuple[int, str]] = set()
    placements = []
    for number, kind in zip(wanted, kinds, strict=True):
        scene = world.scene(world.resources[number].content)
        alt, lang = _alt(scene, kind, f"{config.seed}/{number}", rng)
        # The second alt text of a URL may fall on the first by chance: then draw again.
        while (number, alt) in seen:
            alt, lang = _alt(scene, "match", f"{config.seed}/{number}", rng)
            kind = "match"
        seen.add((number, alt))
        placements.append(Placement(number, alt, kind, lang))
    return tuple(placements)


def _alt(scene: Scene, kind: str, key: str, rng: random.Random) -> tuple[str, str | None]:
    """An alt text of a kind, and its language (None where it has none)."""
    if kind == "match":
        return captions.caption(scene, rng), "en"
    if kind == "mismatch":
        attempt = 0
        while True:
            other = draw_scene(f"elsewhere/{key}/{attempt}")
            if clearly_different(scene, other):
                return captions.caption(other, rng), "en"
            attempt += 1
    if kind == "other_language":
        language = rng.choice(captions.LANGUAGES)
        return captions.translate(scene, language, rng), language
    if kind == "boilerplate":
        return captions.boilerplate(rng), None
    if kind == "too_short":
        return captions.too_short(rng), None
    return "", None


def _plan_pages(world: World) -> tuple[Page, ...]:
    config = world.config
    rng = random.Random(f"pages/{config.seed}")
    sites = (*hosts.SITES, *hosts.OPT_OUT_SITES)
    count = max(len(sites), round(config.images * config.pages_per_image))
    # Every site has a page; after that a few sites have most of them.
    weights = [1 / (rank + 3) for rank in range(len(sites))]
    owner = [*sites, *rng.choices(sites, weights, k=count - len(sites))]
    by_site: dict[str, list[int]] = {}
    for i, site in enumerate(owner):
        by_site.setdefault(site, []).append(i)
    shown: list[list[int]] = [[] for _ in range(count)]
    repeated = set(rng.sample(range(len(world.placements)), round(config.repeats * len(world.placements))))
    for number, placement in enumerate(world.placements):
        own = by_site[world.resources[placement.resource].site]
        shown[rng.choice(own)].append(number)
        if number in repeated:
            for _ in range(rng.randint(1, 5)):
                shown[rng.choice(own) if rng.random() < 0.6 else rng.randrange(count)].append(number)
    return tuple(Page(hosts.page_url(site, i, rng), site, tuple(shown[i])) for i, site in enumerate(owner))
