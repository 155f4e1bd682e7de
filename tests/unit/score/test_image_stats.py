from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from curate.clip.images import decode
from curate.config.models import EmbedSettings
from curate.config.scorers.image_stats import ImageStatsScorer
from curate.config.scorers.perceptual import PerceptualScorer
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.score.kinds.image_stats import MEASURES, colourfulness, laplacian_variance, measure, scaled
from curate.score.pixels import show_images
from curate.score.stage import ScoreStage
from tests.unit.score.odd_images import drawn, lost, odd_images, scored, shard_of_odd_images


def plain_laplacian(grey: np.ndarray) -> float:
    height, width = grey.shape
    mirror = lambda i, n: 0 if n == 1 else (1 if i < 0 else (n - 2 if i >= n else i))  # noqa: E731
    values = []
    for y in range(height):
        for x in range(width):
            around = [grey[mirror(y + d, height), x] for d in (-1, 1)]
            around += [grey[y, mirror(x + d, width)] for d in (-1, 1)]
            values.append(sum(int(v) for v in around) - 4 * int(grey[y, x]))
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def plain_colourfulness(rgb: np.ndarray) -> float:
    pixels = rgb.reshape(-1, 3).astype(float)
    rg = pixels[:, 0] - pixels[:, 1]
    yb = 0.5 * (pixels[:, 0] + pixels[:, 1]) - pixels[:, 2]
    spread = math.sqrt(rg.std() ** 2 + yb.std() ** 2)
    return spread + 0.3 * math.sqrt(rg.mean() ** 2 + yb.mean() ** 2)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
def test_measures_are_their_definitions(seed: int, width: int, height: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert laplacian_variance(rgb[..., 0]) == pytest.approx(plain_laplacian(rgb[..., 0]), rel=1e-9, abs=1e-6)
    assert colourfulness(rgb[..., 0], rgb[..., 1], rgb[..., 2]) == pytest.approx(
        plain_colourfulness(rgb), rel=1e-9, abs=1e-9
    )


def test_the_laplacian_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    for size in ((80, 60), (3, 2), (200, 7)):
        grey = np.asarray(drawn(*size, 3, 5, 7).convert("L"))
        assert laplacian_variance(grey) == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var(), rel=1e-12)


def test_light_and_information_are_those_of_the_grey_levels() -> None:
    image = drawn(90, 60, 3, 5, 7)
    found, grey = measure(image), np.asarray(image.convert("L")).astype(float)
    shares = np.bincount(grey.astype(int).ravel(), minlength=256) / grey.size
    assert found["brightness"] == pytest.approx(grey.mean())
    assert found["contrast"] == pytest.approx(grey.std())
    assert found["entropy"] == pytest.approx(image.convert("L").entropy(), abs=1e-6)
    assert found["flat"] == shares.max()


def test_extremes() -> None:
    black = measure(Image.new("RGB", (30, 20)))
    assert black == dict.fromkeys(MEASURES, 0.0) | {"flat": 1.0, "grey_share": 1.0}
    board = Image.fromarray((np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB")
    found = measure(board)
    assert found["blur"] == pytest.approx((4 * 255) ** 2)
    assert (found["entropy"], found["brightness"], found["contrast"]) == (1.0, 127.5, 127.5)
    red = measure(Image.new("RGB", (9, 9), (255, 0, 0)))
    assert red["colourfulness"] == pytest.approx(0.3 * math.hypot(255, 127.5))
    assert red["grey_share"] == 0


def test_grey_has_a_tolerance() -> None:
    tinted = Image.new("RGB", (40, 40), (100, 104, 108))
    assert measure(tinted, tolerance=8)["grey_share"] == 1
    assert measure(tinted, tolerance=7)["grey_share"] == 0


def test_scaling_keeps_proportions() -> None:
    assert scaled(Image.new("RGB", (1000, 500)), 256).size == (256, 128)
    assert scaled(Image.new("RGB", (5, 10)), 256).size == (128, 256)
    assert scaled(Image.new("RGB", (9000, 1)), 256).size == (256, 1)


def test_blurring_lowers_blur_whatever_the_size(fixtures_dir: Path) -> None:
    for path in sorted((fixtures_dir / "images" / "cc_test_images").glob("*.jpg"))[:6]:
        image = decode(path.read_bytes())
        sharp, soft = measure(image), measure(image.filter(ImageFilter.GaussianBlur(6)))
        assert soft["blur"] < sharp["blur"] / 3
        half = measure(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))
        assert half["brightness"] == pytest.approx(sharp["brightness"], abs=1)
        assert half["colourfulness"] == pytest.approx(sharp["colourfulness"], rel=0.05)
        grey = measure(image.convert("L").convert("RGB"))
        assert (grey["colourfulness"], grey["grey_share"]) == (0, 1)


def test_a_lost_image_costs_its_row(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    names = shard_of_odd_images(workspace)
    found = scored(workspace, "s", ImageStatsScorer(type="image_stats"))
    images = odd_images()
    for row, name in enumerate(names):
        values = [found[measure_name][row] for measure_name in (*MEASURES, "grey")]
        if lost(name):
            assert values == [None] * len(values)
            continue
        assert all(math.isfinite(value) for value in values)
        expected = measure(decode(images[name] or b""))
        assert values[:-1] == [np.float32(expected[m]) for m in MEASURES]
        assert values[-1] == (expected["grey_share"] == 1)
    assert found["grey"][names.index("16-bit grey")] is True
    assert found["grey"][names.index("picture")] is False
    schema = workspace.read_table(Family.scores("s").path("00000")).schema
    assert schema.types[1:] == [*[pa.float32()] * 7, pa.bool_()]


def test_scorers_of_pixels_share_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(str(tmp_path))
    shard_of_odd_images(workspace)
    alone = scored(workspace, "s", ImageStatsScorer(type="image_stats"))
    passes = []

    def counted(*arguments: object) -> None:
        passes.append(arguments)
        show_images(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("curate.score.stage.show_images", counted)
    embed = EmbedSettings()
    stages = [
        ScoreStage("t", ImageStatsScorer(type="image_stats"), embed),
        ScoreStage("h", PerceptualScorer(type="perceptual"), embed),
    ]
    parts = [(s, make_plan(s, workspace, RecordStore(workspace)).jobs[0].unit) for s in stages]
    stages[0].run_together(workspace, parts)
    assert len(passes) == 1
    together = workspace.read_table(Family.scores("t").path("00000")).to_pydict()
    assert list(together.values()) == list(alone.values())
