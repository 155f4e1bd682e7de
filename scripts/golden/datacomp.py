#!/usr/bin/env python3
"""Writes the golden files of DataComp's filters: what its own code keeps of made-up metadata.

    python scripts/golden/datacomp.py --datacomp ../datacomp

The checkout is a clone of github.com/mlfoundations/datacomp. Its functions run in an environment of their own
(made once, in --venv) with pandas, nltk and pyarrow as they are; fasttext, gcld3 and torch are stood in for
(`stand_ins/`), WordNet is a small made-up one. Results go to tests/golden/datacomp: `golden.json`, and for
every job a bit per row, in the order of uids, in `kept.npz`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / "tests" / "golden" / "datacomp"
PACKAGES = (
    "numpy==1.26.4",
    "pandas==2.2.3",
    "pyarrow==17.0.0",
    "fsspec==2024.6.1",
    "tqdm==4.66.5",
    "nltk==3.9.1",
)
SUBSET = np.dtype("u8,u8")

Job = dict[str, Any]


def jobs_of() -> dict[str, Job]:
    """Name in the golden files → what `baselines.py` would be told."""
    found: dict[str, Job] = {
        n: {"name": n} for n in ("no_filter", "basic_filter", "laion2b", "text_based", "image_based")
    }
    for arch, thresholds, fractions in (
        ("b32", (0.28, 0.3, 0.35), (0.3, 0.29, 0.5, 0.999, 0.00001, 0.000001)),
        ("l14", (0.2, 0.28, 0.35), (0.3, 0.29, 0.99, 0.999)),
    ):
        for key, values in (("threshold", thresholds), ("fraction", fractions)):
            for value in values:
                found[f"clip_{arch}_{key}_{value:g}"] = {"name": "clip_score", "arch": arch, key: value}
    found["image_based_l14_0.3"] = {
        "name": "image_based_intersect_clip_score",
        "arch": "l14",
        "fraction": 0.3,
    }
    return found


SMALL = {
    "empty": (
        "no_filter",
        "basic_filter",
        "laion2b",
        "text_based",
        "clip_b32_threshold_0.28",
        "clip_l14_fraction_0.3",
    ),
    "null": ("no_filter", "basic_filter", "laion2b", "text_based", "clip_l14_fraction_0.3"),
}
"""Jobs on a thousand rows, of which some have an empty caption, or none."""
FAILS = {"clip_l14_fraction_1": {"name": "clip_score", "arch": "l14", "fraction": 1.0}}


def environment(folder: Path, more: Sequence[str] = ()) -> str:
    """The interpreter of DataComp's environment, which is made when it is missing or lacks a package."""
    python, ready, wanted = folder / "bin" / "python", folder / "ready", [*PACKAGES, *more]
    if not ready.exists() or not set(wanted) <= set(ready.read_text().split()):
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
        ready.write_text("\n".join(wanted))
    return str(python)


def peer(python: str, checkout: str, assets: Path, jobs: list[Job], whole: bool = False) -> list[str]:
    """The command that runs jobs in DataComp's environment; it ends with a line of JSON.

    Args:
        whole: with the torch that is there, and workers that start as DataComp starts them.
    """
    path = assets / "jobs.json"
    path.write_text(json.dumps(jobs))
    program = [str(HERE / "datacomp_peer.py"), checkout, str(GOLDEN), str(assets), str(path)]
    return [python, *program, *(["--whole"] if whole else [])]


def write_assets(folder: Path) -> None:
    """What DataComp would download."""
    from made import centroids, targets, write_wordnet

    write_wordnet(folder / "nltk_data" / "corpora" / "wordnet", folder / "imagenet21k_wordnet_ids")
    np.save(folder / "small_centroids.npy", centroids())
    for number, part in enumerate(np.array_split(targets(), 5)):
        np.save(folder / f"in1k_clip_vit_l14_{number}.npy", part)


def kept(path: Path, table: pa.Table) -> np.ndarray:
    """A subset file as bits: which rows, in the order of uids, it holds; each once."""
    uids = sorted(table["uid"].to_pylist())
    pairs = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uids], SUBSET)
    subset = np.load(path)
    found = np.isin(pairs, subset)
    if found.sum() != len(subset) or not np.array_equal(pairs[found], subset):
        raise SystemExit(f"{path}: not sorted, or uids that are not in the metadata")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datacomp", required=True, help="a checkout of mlfoundations/datacomp")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "curate-datacomp-venv")
    options = parser.parse_args()
    sys.path.insert(0, str(GOLDEN))
    import made

    python = environment(options.venv)
    jobs = jobs_of()
    small = made.make(1_000, empty=True)
    null = small.set_column(2, "text", pa.array([t.strip() or None for t in small["text"].to_pylist()]))
    pools = {"main": made.make(), "empty": small, "null": null}
    with tempfile.TemporaryDirectory(prefix="curate-golden-") as scratch:
        folder = Path(scratch)
        write_assets(folder)
        wanted: list[tuple[str, str, Job]] = [("main", n, j) for n, j in {**jobs, **FAILS}.items()]
        wanted += [(pool, name, jobs[name]) for pool, names in SMALL.items() for name in names]
        for pool, table in pools.items():
            made.write(folder / pool, table)
        asked = [
            {**job, "metadata": str(folder / pool), "save": f"{folder}/{pool}-{name}.npy", "workers": 2}
            for pool, name, job in wanted
        ]
        done = subprocess.run(
            peer(python, options.datacomp, folder, asked), stdout=subprocess.PIPE, text=True, check=True
        )
        masks, facts = {}, {}
        for (pool, name, job), result in zip(wanted, json.loads(done.stdout.splitlines()[-1]), strict=True):
            fact = {k: v for k, v in job.items() if k != "name"}
            if result["error"]:
                fact["error"] = result["error"].splitlines()[0]
            else:
                mask = kept(folder / f"{pool}-{name}.npy", pools[pool])
                masks[f"{pool}/{name}"] = np.packbits(mask)
                fact["kept"] = int(mask.sum())
            facts[f"{pool}/{name}"] = {"baseline": job["name"], **fact}
            print(f"{pool}/{name}", json.dumps(fact))
    revision = subprocess.run(
        ["git", "-C", options.datacomp, "rev-parse", "HEAD"], stdout=subprocess.PIPE, text=True
    )
    golden = {
        "source": "github.com/mlfoundations/datacomp",
        "revision": revision.stdout.strip(),
        "packages": PACKAGES,
        "metadata": {pool: made.fingerprint(table) for pool, table in pools.items()},
        "jobs": facts,
    }
    (GOLDEN / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    np.savez_compressed(GOLDEN / "kept.npz", **masks)


if __name__ == "__main__":
    main()
