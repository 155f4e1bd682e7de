#!/usr/bin/env python3
"""What queries by text find in an index whose lists were chosen for queries by image, and for both.

Makes images around text vectors that are given (``tests/unit/index/index_pool.py`` says how), builds the
index that curate chooses for them, and asks it with texts that it was not tuned with. Exact answers by brute
force.

    python scripts/bench/recall.py --texts detic_text/*.npy --images img_emb_0.npy [--count 20000]

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from curate.index.build import build, lists_of, new_index, search
from curate.index.recall import Exact
from curate.index.types import index_type
from tests.unit.index.index_pool import cloud, exact_recall

QUERIES = 512


def main() -> None:
    """Print recall of texts with the lists of either kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="npy files of text vectors")
    parser.add_argument("--images", type=Path, required=True, help="image vectors; their mean is a direction")
    parser.add_argument("--count", type=int, default=20_000, help="images to make")
    asked = parser.parse_args()
    texts = np.concatenate([np.load(path).astype(np.float32) for path in sorted(asked.texts)])
    made = cloud(texts, np.load(asked.images).astype(np.float32).mean(0), asked.count)
    order = np.random.default_rng(5).permutation(len(made.texts))
    tuned, others = made.texts[order[:QUERIES]], made.texts[order[QUERIES : 2 * QUERIES]]
    rows = np.linspace(0, asked.count - 1, QUERIES).astype(np.int64)
    dim = made.images.shape[1]
    factory = index_type(asked.count, dim, 200_000)
    built = build(
        new_index(factory, dim),
        factory,
        np.delete(made.images, rows, axis=0),
        [(0, made.images)],
        {"text": Exact(tuned, np.full(len(tuned), -1)), "image": Exact(made.images[rows], rows)},
        0.95,
    )
    found = {"type": factory, "lists": built.lists}
    for kind, nprobe in (built.nprobe or {}).items():
        lists_of(built.index).nprobe = nprobe
        recall = exact_recall(search(built.index, others, 10)[1], others, made.images)
        found[kind] = {"nprobe": nprobe, "recall": built.recall[kind], "recall_of_other_texts": recall}
        print(f"{nprobe} lists give {kind} queries {built.recall[kind]:.3f}, and other texts {recall:.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
