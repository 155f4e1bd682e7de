"""What happens around a forward pass: memory, compilers, half precision."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curate.clip.model import Clip, load
from curate.errors import DataError, UserError
from tests.unit.embed.clip_shards import settings_of


def pictures(count: int, clip: Clip) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *clip.preparation.shape), np.uint8)


def own(folder: Path, **more: Any) -> Clip:
    """A clip that no other test shares, to be tampered with."""
    import dataclasses

    return dataclasses.replace(load(settings_of(folder, **more)))


def limited(clip: Clip, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the image tower run out of memory above a number of rows; returns the sizes it was run with."""
    real: Callable[[torch.Tensor], torch.Tensor] = clip.model.encode_image
    sizes: list[int] = []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(batch))
        return real(batch)

    monkeypatch.setattr(clip.model, "encode_image", encode)
    return sizes


def test_out_of_memory_halves_the_batch_and_goes_on(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clip = own(tiny, batch_size=64)
    batch = pictures(150, clip)
    expected = clip.encode_images(batch)
    sizes = limited(clip, 20, monkeypatch)
    with caplog.at_level(logging.WARNING):
        found = clip.encode_images(batch)
    assert np.allclose(found, expected, atol=1e-5)
    assert clip.batch_size == 16
    assert max(sizes) == 16
    assert caplog.text.count("out of memory") == 2
    clip.encode_images(batch)
    assert caplog.text.count("out of memory") == 2  # it does not try the large ones again


def test_no_memory_for_one_sample_is_an_error_with_words(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = own(tiny)
    limited(clip, 0, monkeypatch)
    with pytest.raises(UserError, match="not enough memory on cpu for one sample"):
        clip.encode_images(pictures(3, clip))


def test_a_compiler_that_fails_is_left_out(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clip = own(tiny, compile=True)
    batch = pictures(20, clip)
    expected = load(settings_of(tiny)).encode_images(batch)

    def fails(*args: object, **kwargs: object) -> Callable[[torch.Tensor], torch.Tensor]:
        raise RuntimeError("no compiler\nwas found")

    monkeypatch.setattr(torch, "compile", fails)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(clip.encode_images(batch), expected)
        clip.encode_images(batch)
    assert caplog.text.count("torch.compile does not work here") == 1


def test_only_whole_batches_are_compiled(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = own(tiny, compile=True, batch_size=16)
    sizes: list[int] = []

    def compiled(encode: Callable[[torch.Tensor], torch.Tensor], dynamic: bool) -> Any:
        def run(batch: torch.Tensor) -> torch.Tensor:
            sizes.append(len(batch))
            return encode(batch)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    clip.encode_images(pictures(45, clip))
    assert sizes == [16, 16]


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16", "pure_fp16"])
def test_half_precision_is_close_to_full(tiny: Path, precision: str) -> None:
    clip = load(settings_of(tiny, precision=precision))
    full = load(settings_of(tiny))
    batch = pictures(12, full)
    assert (clip.encode_images(batch) * full.encode_images(batch)).sum(axis=1).min() > 0.999
    texts = ["a cat", "two dogs in the snow"]
    tokens = np.asarray(clip.tokenizer(texts))
    found = clip.start_tokens(tokens).result()
    assert (found * full.start_tokens(tokens).result()).sum(axis=1).min() > 0.999
    assert np.allclose(clip.encode_texts(texts), full.encode_texts(texts), atol=3e-3)  # prompts: in full


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_what_overflows_is_done_again_in_full(
    tiny: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = own(tiny, precision=precision)
    batch = pictures(9, clip)
    expected = load(settings_of(tiny)).encode_images(batch)
    real: Callable[[torch.Tensor], torch.Tensor] = clip.model.encode_image

    def overflows(pixels: torch.Tensor) -> torch.Tensor:
        out = real(pixels)
        return out * float("inf") if out.dtype == torch.bfloat16 else out

    monkeypatch.setattr(clip.model, "encode_image", overflows)
    assert (clip.encode_images(batch) * expected).sum(axis=1).min() > 0.9999


def test_a_model_that_makes_nan_is_an_error(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = own(tiny)
    monkeypatch.setattr(clip.model, "encode_image", lambda batch: torch.full((len(batch), 32), torch.nan))
    with pytest.raises(DataError, match="not finite"):
        clip.encode_images(pictures(2, clip))
