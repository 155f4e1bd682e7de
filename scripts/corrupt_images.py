#!/usr/bin/env python3
"""Damaged copies of pictures: does the download stage accept what Pillow accepts, to the pixel?

The tests do this with about a thousand copies; this does it with as many as you like, of your own JPEGs, and
keeps the files for which the answer is no.

    python scripts/corrupt_images.py FOLDER [--copies 20000] [--seed 0] [--keep DIFFERENT]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curate.config.models import DownloadSettings
from curate.download.limits import Limits
from tests.unit.download import corrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="JPEGs, at any depth")
    parser.add_argument("--copies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=120, help="pixels that the copies have at most")
    parser.add_argument("--keep", type=Path, default=Path("different"), help="folder for files that differ")
    arguments = parser.parse_args()
    limits = Limits.from_settings(DownloadSettings(resize_mode="no", skip_reencode=False))
    images = corrupt.photographs(arguments.folder, arguments.side)
    counts: Counter[tuple[str, str]] = Counter()
    for i, (variant, body) in enumerate(corrupt.copies(images, arguments.copies, arguments.seed)):
        what = corrupt.difference(body, limits)
        counts[variant, what] += 1
        if what:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            path = arguments.keep / f"{arguments.seed}-{i}-{variant.replace(' ', '-')}"
            path.write_bytes(body)
            print(f"{path}: {what}", flush=True)
    different = sum(n for (_, what), n in counts.items() if what)
    print(f"{len(images)} pictures, {arguments.copies} copies, {different} different")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
