"""Who lives on the demo web: sites with pages, image hosts, and the paths they use."""

from __future__ import annotations

import random

SITES = (
    "garden-shop.example", "toyhouse.example", "travel-diaries.example", "kites-and-wind.example",
    "daily-news.example", "craft-corner.example", "seaside-hotel.example", "mushroom-guide.example",
    "cafe-lumiere.example", "blumenladen.example", "fish-market.example", "wallpapers4all.example",
    "recipes-and-tea.example", "kids-crafts.example", "sailing-club.example", "winter-sports.example",
    "clipart-archive.example", "homes-and-gardens.example", "rainwear-store.example", "birdwatchers.example",
    "la-plage.example", "mercado-azul.example", "museum-of-mugs.example", "star-gazers.example",
    "local-library.example", "picnic-places.example", "photo-forum.example", "little-studio.example",
    "bricklayers.example", "school-project.example", "festival-of-lights.example", "old-town-blog.example",
)  # fmt: skip
OPT_OUT_SITES = ("artists-guild.example", "no-training-please.example")
IMAGE_HOSTS = (
    "img.cdn-pictures.example", "static.imagehub.example", "media.cloudpix.example",
    "pics.photoshelf.example",
    "assets.shopfront.example", "thumbs.searchtoys.example",
)  # fmt: skip
PRIVATE_HOSTS = ("10.0.0.1", "192.168.1.20", "172.16.4.2", "169.254.169.254")

_FOLDERS = (
    "images",
    "media/2024/03",
    "uploads",
    "wp-content/uploads/2023/11",
    "static/img",
    "p",
    "gallery",
    "photos",
)
_STEMS = (
    "IMG_{n}",
    "DSC0{n}",
    "photo-{n}",
    "pic{n}",
    "{words}",
    "{words}",
    "{words}",
    "product_{n}",
    "{n}-large",
)
_SUFFIXES = {
    "jpeg": ("jpg", "jpg", "jpg", "jpeg", "JPG"),
    "png": ("png",),
    "webp": ("webp",),
    "gif": ("gif",),
}
_QUERIES = ("", "", "", "", "", "", "", "?w=640", "?v=3", "?size=large&crop=1")
_SECTIONS = ("blog", "products", "news", "gallery", "articles/2024", "shop/items", "stories")
_TITLES = (
    "Our favourites of the season", "Picture of the week", "New arrivals", "A walk in pictures", "Gallery",
    "What we found today", "Ideas for the weekend", "Shop: shapes and colours", "Reader's photos", "Archive",
)  # fmt: skip


def image_host(site: str, rng: random.Random) -> str:
    """Where a site keeps a picture: itself, a host of its own for images, or a shared one."""
    draw = rng.random()
    if draw < 0.5:
        return site
    return f"img.{site}" if draw < 0.65 else rng.choice(IMAGE_HOSTS)


def image_path(index: int, kind: str, words: str, rng: random.Random) -> str:
    """Path and query of a picture's URL: unique through its number, plain ASCII, already normalised."""
    stem = rng.choice(_STEMS).format(n=rng.randint(1000, 9999), words=words)
    suffix = rng.choice(_SUFFIXES[kind])
    return f"/{rng.choice(_FOLDERS)}/{stem}-{index}.{suffix}{rng.choice(_QUERIES)}"


def page_url(site: str, index: int, rng: random.Random) -> str:
    """The address of a page; some end in a slash, some in a file, some have a query."""
    section = rng.choice(_SECTIONS)
    tail = rng.choice((f"page-{index}.html", f"{index}/", f"entry{index}", f"index.php?id={index}"))
    return f"http://{site}/{section}/{tail}"


def page_title(rng: random.Random) -> str:
    """A title that could stand over any page."""
    return rng.choice(_TITLES)
