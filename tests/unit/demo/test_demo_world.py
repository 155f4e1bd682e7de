from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections import Counter

import pytest
from PIL import Image

from curate.demo.config import DELIVERED, AltShares, HttpShares, WorldConfig, shares_of
from curate.demo.world import TRUTH_SCHEMA, World
from curate.errors import UserError

FINGERPRINT = """
import hashlib
from curate.demo.world import World, WorldConfig
world = World(WorldConfig(seed=7, images=120))
digest = hashlib.sha256(repr(world.truth().to_pylist()).encode())
for resource in world.resources[:40]:
    digest.update(world.image_bytes(resource.url))
print(digest.hexdigest())
"""


def fingerprint(world: World, pictures: int = 40) -> str:
    digest = hashlib.sha256(repr(world.truth().to_pylist()).encode())
    for resource in world.resources[:pictures]:
        digest.update(world.image_bytes(resource.url))
    return digest.hexdigest()


def test_same_seed_same_world_in_another_process_other_seed_another_world() -> None:
    here = fingerprint(World(WorldConfig(seed=7, images=120)))
    run = subprocess.run(
        [sys.executable, "-c", FINGERPRINT],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "123"},
    )
    assert run.stdout.strip() == here
    assert fingerprint(World(WorldConfig(seed=8, images=120))) != here


def test_pictures_do_not_depend_on_the_order_of_calls(small_world: World) -> None:
    urls = [r.url for r in small_world.resources[:12]]
    forward = [small_world.image_bytes(url) for url in urls]
    backward = [World(small_world.config).image_bytes(url) for url in reversed(urls)]
    assert forward == backward[::-1]


def test_truth_has_its_schema_unique_uids_and_every_planted_kind(small_world: World) -> None:
    truth = small_world.truth()
    assert truth.schema == TRUTH_SCHEMA
    rows = truth.to_pylist()
    uids = [r["uid"] for r in rows]
    assert uids == sorted(set(uids))
    for row in rows:
        assert row["uid"] == hashlib.md5((row["text"] + row["url"]).encode()).hexdigest()
        assert row["text"].strip()
        assert row["match"] == (row["alt_kind"] in ("match", "other_language"))
        assert row["watermark"] == (row["image_kind"] == "watermark")
        assert row["unsafe"] == (row["image_kind"] == "unsafe_standin")
    planted = {r.http_kind for r in small_world.resources}
    assert planted == {"ok", *shares_of(small_world.config.http)}
    assert {r.image_kind for r in small_world.resources} == {"ok", *shares_of(small_world.config.image)}
    assert {p.alt_kind for p in small_world.placements} == {"match", *shares_of(small_world.config.alt)}


def test_defaults_make_about_three_thousand_pairs_half_of_them_clean() -> None:
    rows = World().truth().to_pylist()
    assert 2800 <= len(rows) <= 3300
    clean = [
        r for r in rows
        if r["alt_kind"] == "match" and r["http_kind"] in DELIVERED and not (r["watermark"] or r["unsafe"])
    ]  # fmt: skip
    assert 0.4 < len(clean) / len(rows) < 0.6
    repeated = [r for r in rows if r["occurrences"] > 1]
    assert len(repeated) > 200
    assert max(Counter(r["url"] for r in rows).values()) == 2


def test_duplicates_are_equal_bytes_under_other_urls(small_world: World) -> None:
    copies = [r for r in small_world.resources if r.image_kind == "duplicate"]
    assert copies
    for copy in copies:
        original = small_world.resources[copy.content]
        assert original.url != copy.url
        assert small_world.image_bytes(original.url) == small_world.image_bytes(copy.url)


def test_near_duplicates_are_other_bytes_of_the_same_scene(small_world: World) -> None:
    copies = [r for r in small_world.resources if r.image_kind == "near_duplicate"]
    assert copies
    for copy in copies:
        original = small_world.resources[copy.content]
        one, other = (small_world.image_bytes(r.url) for r in (original, copy))
        assert one != other
        a, b = (Image.open(io.BytesIO(x)).convert("L").resize((8, 8)).tobytes() for x in (one, other))
        assert sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 64 < 12


def test_groups_of_the_truth_hold_original_and_copies(small_world: World) -> None:
    rows = small_world.truth().to_pylist()
    by_url = {r["url"]: r for r in rows}
    for column, kind in (("duplicate_of", "duplicate"), ("near_duplicate_of", "near_duplicate")):
        grouped = [r for r in small_world.resources if r.image_kind == kind]
        for copy in grouped:
            original = small_world.resources[copy.content]
            if copy.url in by_url and original.url in by_url:
                group = by_url[copy.url][column]
                assert group is not None
                assert by_url[original.url][column] == group
    alone = [r for r in rows if r["watermark"]]
    assert all(r["duplicate_of"] is None and r["near_duplicate_of"] is None for r in alone)


def test_every_delivered_picture_decodes_in_its_format(small_world: World) -> None:
    formats = Counter()
    for resource in small_world.resources:
        if resource.http_kind in DELIVERED:
            picture = Image.open(io.BytesIO(small_world.image_bytes(resource.url)))
            picture.load()
            assert picture.format == resource.format.upper()
            assert min(picture.size) >= 64
            formats[resource.format] += 1
    assert formats["jpeg"] > formats["webp"] + formats["png"] + formats["gif"]


def test_shares_are_obeyed() -> None:
    config = WorldConfig(
        seed=3,
        images=400,
        alt=AltShares(0.5, 0, 0, 0, 0),
        http=HttpShares(**dict.fromkeys(shares_of(HttpShares()), 0.0)),
    )
    world = World(config)
    kinds = Counter(p.alt_kind for p in world.placements)
    assert set(kinds) == {"match", "mismatch"}
    assert kinds["mismatch"] == round(0.5 * len(world.placements))
    assert {r.http_kind for r in world.resources} == {"ok"}


@pytest.mark.parametrize(
    "bad", [{"images": 3}, {"alt": AltShares(mismatch=0.99)}, {"alt": AltShares(mismatch=-0.1)}]
)
def test_impossible_worlds_are_the_users_error(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match="WorldConfig"):
        WorldConfig(**bad)  # type: ignore[arg-type]
