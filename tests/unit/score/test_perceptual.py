from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.clip.images import decode
from curate.config.scorers.perceptual import PerceptualScorer
from curate.dataset.family import Family
from curate.dataset.workspace import Workspace
from curate.score.kinds.perceptual import dhash, pdq, phash
from tests.unit.score.odd_images import drawn, lost, scored, shard_of_odd_images

Hashes = tuple[str, str, str, int]

# Made by imagehash 4.3.2 (phash, dhash) and pdqhash 0.2.8 (hash, quality).
DRAWN: list[tuple[tuple[int, int, int, int, int], Hashes]] = [
    (
        (320, 240, 3, 5, 7),
        (
            "ad762d522c11678f",
            "ae354093a4285ab6",
            "bf987df1be77fd99bf0f7c13b8086012ce6c04980ff33ec01f822e249c4ac924",
            100,
        ),
    ),
    (
        (64, 64, 1, 2, 50),
        (
            "aa2ad52ad52ad5aa",
            "fffffffffffffffe",
            "aa5555aaab5554aaa95556aaad555aaab5554aaa95556aaad5552aaa55552aaa",
            7,
        ),
    ),
    (
        (65, 63, 2, 1, 3),
        (
            "88178f64f17aa725",
            "ecf26a1d96abb358",
            "5dd54135d9254fe76025ac55e5a914eb621a6dd22372642fe1c71f13f07807f4",
            100,
        ),
    ),
    (
        (7, 5, 9, 4, 2),
        (
            "ab0dfa09f9d454c2",
            "ffffffffffffffff",
            "6fc59f22947a3f80912e9f206ad5e0dd3ad0e07f6b953f80956a3f80952a9f22",
            8,
        ),
    ),
    (
        (1, 1, 1, 1, 1),
        (
            "0000000000000000",
            "0000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
            0,
        ),
    ),
    (
        (3, 900, 5, 1, 9),
        (
            "997218731d761937",
            "ff000ff00ff00ff0",
            "0000000000000000000000000000000000000000000000000000000000000000",
            0,
        ),
    ),
    (
        (900, 6, 1, 5, 9),
        (
            "80005455557dfefe",
            "96b5adaaaa959596",
            "6a5556d1e99747806a557c7f1668ab2a95aabaaa166965556a5554d5e9974780",
            100,
        ),
    ),
    (
        (513, 129, 2, 3, 4),
        (
            "94002747b06f5ff3",
            "aeb75f26b862471d",
            "ff02fe7baac67a3fd9c0f85fff216d5ff6707f270ff940731c06104105420000",
            100,
        ),
    ),
    (
        (128, 300, 0, 1, 400),
        (
            "aa003fd5817fc03f",
            "ffffffffffc0077f",
            "fff200067ff980031ffc6c81917e5ffc6003bffe4001efff98204055bffe8000",
            47,
        ),
    ),
]
FLAT: Hashes = (
    "8000000000000000",
    "0000000000000000",
    "00005555aaaa5555aaaaaaaa5555aaaa00002c4b11345555aaaaaaaa5555aaaa",
    0,
)
FILES: dict[str, Hashes] = {
    "cc_test_images/0006400c1c224e19.jpg": (
        "e07ed87e91c3230d",
        "8181c1c4cdc98b9a",
        "c16b03f48c1ec2470c38f847f3240c5afb268fd878e2e1c16f449c3fef0da0bf",
        100,
    ),
    "cc_test_images/006d7b4705c80d66.jpg": (
        "ff3f12d0e03881d3",
        "1f0f0b0202122100",
        "b6f03c6f3f4cb6813ee1706cf02ff740ff4d0f6d0cc0600e58076485e3244f7e",
        100,
    ),
    "clip_retrieval_images/123_456.jpg": (
        "9a5c1c84b69e98eb",
        "3c30393dccfcfffc",
        "9640d3526ba9e90d54973e7b6d688b98b2cb69635d0c5ebc1ab6aa108e1c5f1d",
        100,
    ),
    "clip_retrieval_images/456_123.jpg": (
        "e4729fe738c06383",
        "6646c68746c6c663",
        "903eff1c01f179e82f0fe39c00f30f09d71e88e00e63fe01414e3073fffc29a7",
        100,
    ),
    "fashion_catalog/img1.png": (
        "b85ec3f16e4a3194",
        "2bc0172b17966904",
        "3869e839f1c605a407ba7a5eae5985e951ed5e948f866969243a86867be17939",
        100,
    ),
    "fashion_catalog/img2.png": (
        "e95a85a51e1e78e8",
        "4116176d17961740",
        "b6d3a943ed0fd42c413c42562af4bff0b7c33d0b820f40bc6bbccf56e14130e9",
        100,
    ),
    "fashion_catalog/img9.jpg": (
        "b49ecb8393299369",
        "0c9696969696170f",
        "b91999879a699e666669666665b1e59e9194194b9a641e4ea464e6656969e5bc",
        100,
    ),
    "imagededup/tests/data/base_images/ukbench00120.jpg": (
        "9fee256238984d71",
        "2b69707551f1b87a",
        "53327624d264db0ef39869c0ecb32e99ef6d5847a559388ca1de69231b7282bb",
        100,
    ),
    "imagededup/tests/data/mixed_images/ukbench00120_resize.jpg": (
        "9fee256238984d71",
        "2b69707551f1b87a",
        "51b27634d264db0ef39869c07cb32e996f6d5847b559388ca1de69231b72823b",
        100,
    ),
    "imagededup/tests/data/mixed_images/ukbench00120_hflip.jpg": (
        "cabb7237e8cd1824",
        "2b29f1517570e2a1",
        "0663a3618731aedba6cd3c9429e67bccaa380d02e00c6dd9f08b3c764e27d7ee",
        100,
    ),
    "pdq/pdq/data/bridge-mods/aaa-orig.jpg": (
        "aca29c1c33dc23d7",
        "b7b78fa7173336d6",
        "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22",
        100,
    ),
    "pdq/pdq/data/bridge-mods/blur-a-lot.jpg": (
        "aca29c1c33dc23d7",
        "b7b78fa7173336d6",
        "f8f8f0cee0f4a84f0637022a038f67f0b36e26d596621e1d33e6b39c4e9c9b22",
        100,
    ),
    "pdq/pdq/data/bridge-mods/square-128x128.jpg": (
        "aca29c1c33dc23d7",
        "b7b78fa7173336d6",
        "d8f8f1eec0f4a84f0e37022a078f63f0b36e2ed596621e1d33e6239c4e9c9b22",
        100,
    ),
    "pdq/pdq/data/misc-images/small.jpg": (
        "f8f8f8f0f0f0e0c0",
        "0000000000000000",
        "0007001f003f003f007f00ff00ff00ff01ff01ff01ff03ff03ff03ff03ff03ff",
        0,
    ),
    "pdq/pdq/data/reg-test-input/labelme-subset/q0003.jpg": (
        "807f447f105f017f",
        "80a0a2a080809080",
        "54a9f7c321d1443c43ba566e21d4a13989a3553f1472611cbbc5fda59e03b677",
        3,
    ),
}


def hashes_of(image: Image.Image) -> Hashes:
    grey = image.convert("L")
    return (f"{phash(grey):016x}", f"{dhash(grey):016x}", *pdq(np.asarray(image)))


@pytest.mark.parametrize(("formula", "expected"), DRAWN)
def test_hashes_are_those_of_the_reference_packages(formula: tuple[int, ...], expected: Hashes) -> None:
    assert hashes_of(drawn(*formula)) == expected


def test_an_image_of_one_colour_has_the_reference_hashes() -> None:
    assert hashes_of(Image.new("RGB", (200, 100), (12, 200, 99))) == FLAT


@pytest.mark.parametrize("name", sorted(FILES))
def test_photographs_have_the_reference_hashes(fixtures_dir: Path, name: str) -> None:
    assert hashes_of(decode((fixtures_dir / "images" / name).read_bytes())) == FILES[name]


def plain_box(values: list[np.float32], window: int) -> list[np.float32]:
    """The running sum of the reference, step by step."""
    ahead, total, size, out = (window + 2) // 2, np.float32(0), 0, []
    for right in range(len(values) + ahead - 1):
        left = right - window
        if right < len(values):
            total, size = np.float32(total + values[right]), size + 1
        if left >= 0:
            total, size = np.float32(total - values[left]), size - 1
        if right >= ahead - 1:
            out.append(np.float32(total / np.float32(size)))
    return out


def plain_pdq(rgb: np.ndarray) -> tuple[int, int]:
    """PDQ in plain loops: bits as a number, quality."""
    height, width = rgb.shape[:2]
    luma = [[np.float32(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in row] for row in rgb.astype(float)]
    if (height, width) != (64, 64):
        for _ in range(2):
            luma = [plain_box(row, (width + 127) // 128) for row in luma]
            columns = [plain_box(list(column), (height + 127) // 128) for column in zip(*luma, strict=True)]
            luma = [list(row) for row in zip(*columns, strict=True)]
    small = [
        [luma[int((i + 0.5) * height / 64)][int((j + 0.5) * width / 64)] for j in range(64)]
        for i in range(64)
    ]
    steps = [(small[i][j], small[i + 1][j]) for i in range(63) for j in range(64)]
    steps += [(small[i][j], small[i][j + 1]) for i in range(64) for j in range(63)]
    quality = min(100, sum(abs(int((u - v) * np.float32(100) / np.float32(255))) for u, v in steps) // 90)
    factor = float(np.float32(np.sqrt(2 / 64)))
    matrix = [
        [np.float32(factor * np.cos(np.pi / 2 / 64 * (i + 1) * (2 * j + 1))) for j in range(64)]
        for i in range(16)
    ]

    def product(xs: list[np.float32], ys: list[np.float32]) -> np.float32:
        total = np.float32(0)
        for x, y in zip(xs, ys, strict=True):
            total = np.float32(total + x * y)
        return total

    half = [[product(row, [small[k][j] for k in range(64)]) for j in range(64)] for row in matrix]
    out = [product(half[i], matrix[j]) for i in range(16) for j in range(16)]
    median = sorted(out)[127]
    return sum(1 << i for i, value in enumerate(out) if value > median), quality


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 150), st.integers(5, 150))
def test_pdq_is_its_definition(seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    bits, quality = plain_pdq(rgb)
    assert pdq(rgb) == (f"{bits:064x}", quality)


def test_small_edits_change_few_bits_and_other_pictures_many(fixtures_dir: Path) -> None:
    folder = fixtures_dir / "images" / "pdq" / "pdq" / "data"
    read = lambda path: hashes_of(decode(path.read_bytes()))  # noqa: E731
    apart = lambda a, b, k: (int(a[k], 16) ^ int(b[k], 16)).bit_count()  # noqa: E731
    original = read(folder / "bridge-mods" / "aaa-orig.jpg")
    edits = [read(p) for p in sorted((folder / "bridge-mods").iterdir()) if p.name != "aaa-orig.jpg"]
    others = [read(p) for p in sorted((folder / "reg-test-input" / "labelme-subset").iterdir())]
    assert len(edits) == 11
    assert max(apart(original, e, 2) for e in edits) <= 31 < 90 < min(apart(original, o, 2) for o in others)
    assert max(apart(original, e, 0) for e in edits) <= 8 < 16 < min(apart(original, o, 0) for o in others)


def test_a_lost_image_costs_its_row(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    names = shard_of_odd_images(workspace)
    found = scored(workspace, "h", PerceptualScorer(type="perceptual", hashes=("pdq", "dhash", "phash")))
    for column in ("phash", "dhash", "pdq", "pdq_quality"):
        assert [value is None for value in found[column]] == [lost(name) for name in names], column
    schema = workspace.read_table(Family.scores("h").path("00000")).schema
    assert schema.types[1:] == [pa.uint64(), pa.uint64(), pa.string(), pa.int8()]
    assert schema.names == ["uid", "h_dhash", "h_phash", "h_pdq", "h_pdq_quality"]
    animated = hashes_of(drawn(40, 30, 1, 2, 3).quantize(16).convert("RGB"))
    at = names.index("animated")
    assert (f"{found['phash'][at]:016x}", found["pdq"][at]) == (animated[0], animated[2]), "the first frame"


def test_only_the_wanted_hashes_are_stored(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    shard_of_odd_images(workspace)
    assert list(scored(workspace, "h", PerceptualScorer(type="perceptual"))) == ["uid", "dhash", "phash"]
    assert list(scored(workspace, "q", PerceptualScorer(type="perceptual", hashes=("pdq",)))) == [
        "uid",
        "pdq",
        "pdq_quality",
    ]
