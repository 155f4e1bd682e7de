"""Writes keras_goldens.npz: what TensorFlow itself makes of LAION's two published Keras zips.

Not run by the tests. In an environment with tensorflow 2.x (2.21 was used), from the root of the checkout:

    python -m tests.unit.score.golden_heads.make_goldens FOLDER

where FOLDER holds clip_autokeras_nsfw_b32.zip and clip_autokeras_binary_nsfw.zip of
github.com/LAION-AI/CLIP-based-NSFW-Detector. The served graph is run, with its look-up tables; nothing
of curate is used but the inputs below, which are made by a frozen random stream.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

HEADS: dict[str, tuple[int, dict[int, float]]] = {
    "clip_autokeras_nsfw_b32": (512, {92: -0.56, 133: 0.081, 312: 0.081}),
    "clip_autokeras_binary_nsfw": (768, {180: 0.127, 316: -0.0627, 413: -0.373, 440: 0.0555, 644: 0.39}),
}
"""Dimensions, and where real embeddings have the dimensions that the heads take for categories."""


def inputs(name: str) -> np.ndarray:
    """float16 (96, dim): a third random unit vectors, the others with usual values in those dimensions."""
    dim, usual = HEADS[name]
    rng = np.random.RandomState(7)
    vectors = rng.standard_normal((96, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for column, value in usual.items():
        vectors[32:, column] = value * (1 + 0.15 * rng.standard_normal(64))
    return vectors.astype(np.float16)


def main(folder: Path) -> None:
    import tensorflow as tf

    out = {}
    for name in HEADS:
        with tempfile.TemporaryDirectory() as unpacked:
            with zipfile.ZipFile(folder / f"{name}.zip") as archive:
                archive.extractall(unpacked)
            served = tf.saved_model.load(str(Path(unpacked) / name)).signatures["serving_default"]
            scores = served(input_1=tf.constant(inputs(name).astype(np.float64)))
        out[name] = scores["classification_head_1"].numpy()[:, 0]
    np.savez(Path(__file__).with_name("keras_goldens.npz"), **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
