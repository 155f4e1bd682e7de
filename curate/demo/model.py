"""Where the demo's CLIP lies, and the zero-shot prompts that were measured with it."""

from __future__ import annotations

from pathlib import Path

CLIP_FOLDER = Path(__file__).parent / "clip"
CLIP_NAME = f"local-dir:{CLIP_FOLDER}"
"""The demo's CLIP as ``open_clip`` names it."""

_SUBJECTS = (
    "a red star", "two blue fish on the beach", "a green tree in the snow", "three yellow kites",
    "a white mug on a wooden table", "a purple boat on the water", "two pink flowers in a meadow",
    "an orange house in front of a brick wall", "a brown ball at sunset", "four black umbrellas",
)  # fmt: skip

WATERMARK_PROMPTS = (
    tuple(
        subject + mark
        for subject in _SUBJECTS
        for mark in (" with a stock watermark", ", watermarked stock photo", " with a watermark across it")
    ),
    _SUBJECTS,
)
"""Prompts for a watermark, and prompts for its absence. The score of a picture is the difference of its
mean similarities to the two. The same subjects stand on both sides, so that their colours cancel out."""

UNSAFE_PROMPTS = (
    tuple(
        words.format(subject)
        for subject in _SUBJECTS
        for words in (
            "unsafe stand-in content: {}",
            "unsafe stand-in, {}",
            "{} with an unsafe stand-in emblem",
        )
    ),
    _SUBJECTS,
)
"""The same for the harmless emblem that stands in for unsafe content."""
