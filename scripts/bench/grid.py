#!/usr/bin/env python3
"""Seconds and memory of `curate filter --grid`: 30 experiments in one pass over a pool of metadata.

The pool is the one of `scripts/bench/filter.py`: a workspace as `curate` leaves it after ingest and score
with `download: null`. Before a time counts, some points of every grid run alone by `curate filter`, and what
they keep, and what each two of them both keep, must be what the grid says.

    python scripts/bench/grid.py                       # 12.8 million rows: DataComp small
    python scripts/bench/grid.py --rows 1000000
    python scripts/bench/grid.py --work POOL/work      # a workspace that is there already

Seconds are those of the whole command, start-up and printing included; cold when the files of whole columns
are not there yet, otherwise the median of warm runs. Memory is the largest resident set, with the pages of
mapped files. `alone`, the floor, is the mean of one point by `curate filter`. Linux only. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filter import L14, SHARD, environment_of_users, make_workspace

from curate.config.filters.grid import Grid
from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.filter.grid_files import read_comparison

BAR_SECONDS, BAR_MEMORY = 15.0, 2.0
GRIDS: dict[str, dict[str, Any]] = {
    "thresholds": {
        "over": {"t": {"from": 0.10, "to": 0.39, "step": 0.01}},
        "rules": {"clip": {"score": L14, "min": "$t"}},
    },
    "tops": {
        "over": {"f": {"from": 0.03, "to": 0.90, "step": 0.03}},
        "rules": {"clip": {"top": L14, "fraction": "$f"}},
    },
    "languages": {
        "over": {"t": {"from": 0.18, "to": 0.36, "step": 0.02}, "language": ["en", "de", "fr"]},
        "rules": {"clip": {"score": L14, "min": "$t"}, "lang": "text_lang = '$language'"},
    },
}
CHECKED = (0, 13, 29)
"""Points that run alone as well."""


def command(config: Path, *arguments: str) -> dict[str, float]:
    """Seconds and GiB of `curate filter`."""
    started = time.perf_counter()
    code = "import sys; from curate.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "filter", str(config), *arguments],
        stdout=subprocess.DEVNULL,
        env=environment_of_users(),
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"curate filter {config} {' '.join(arguments)} failed")
    return {"seconds": time.perf_counter() - started, "memory": used.ru_maxrss / 2**20}


def write_config(path: Path, work: Path, **filters: Any) -> Path:
    """A config of the pool."""
    facts = {
        "workspace": str(work),
        "download": None,
        "ingest": {"sources": [{"paths": ["published"]}]},
        "score": {"scorers": {"text": {"type": "text"}, "image": {"type": "image"}}},
        "filter": filters,
    }
    path.write_text(yaml.safe_dump(facts, sort_keys=False))
    return path


def forget(work: Path, stage: str, folder: str) -> None:
    """As if it had not been done."""
    shutil.rmtree(work / ".curate" / "records" / stage, ignore_errors=True)
    shutil.rmtree(work / folder, ignore_errors=True)


def measure(work: Path, folder: Path, name: str, repeats: int) -> dict[str, float]:
    """One grid: cold, warm, and some of its points alone."""
    config = write_config(folder / "grid.yaml", work, grids={name: GRIDS[name]})
    shutil.rmtree(work / ".curate" / "columns", ignore_errors=True)
    found = []
    for _ in range(repeats + 1):
        forget(work, f"filter-grid/{name}", f"grids/{name}")
        found.append(command(config, "--grid", "--only", name))
    alone = check(work, folder, name)
    forget(work, f"filter-grid/{name}", f"grids/{name}")
    return {
        "cold": found[0]["seconds"],
        "warm": statistics.median(f["seconds"] for f in found[1:]),
        "memory": max(f["memory"] for f in found),
        "alone": alone,
    }


def check(work: Path, folder: Path, name: str) -> float:
    """Compare with single runs; the seconds of one.

    Raises:
        SystemExit: the grid says something else.
    """
    comparison = read_comparison(Workspace(str(work)), name)
    points = Grid.model_validate(GRIDS[name]).points(name, {})
    subsets, seconds = [], []
    for number in CHECKED:
        point = points[number]
        facts = point.experiment.model_dump(mode="json", exclude_defaults=True)
        config = write_config(folder / "alone.yaml", work, experiments={point.title: facts})
        seconds.append(command(config)["seconds"])
        subset = np.load(work / layout.selection_file(point.title, "subset.npy"))
        subsets.append(subset["f0"])  # unique in these pools
        forget(work, f"filter/{point.title}", f"selections/{point.title}")
    for a, mine in zip(CHECKED, subsets, strict=True):
        for b, theirs in zip(CHECKED, subsets, strict=True):
            both = len(np.intersect1d(mine, theirs, assume_unique=True))
            if comparison.overlap[a, b] != both:
                raise SystemExit(f"{name}: points {a} and {b}: {comparison.overlap[a, b]} instead of {both}")
    return statistics.mean(seconds)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=12_800_000, help=f"a multiple of {SHARD:,}")
    parser.add_argument("--work", type=Path, help="a workspace of that pool, instead of making one")
    parser.add_argument("--grids", nargs="+", choices=list(GRIDS), default=list(GRIDS))
    parser.add_argument("--repeats", type=int, default=3, help="warm runs")
    parser.add_argument("--scratch", type=Path, help="where the pool is made for the time of the run")
    options = parser.parse_args()
    if options.rows < SHARD or options.rows % SHARD:
        parser.error(f"rows come in shards of {SHARD:,}")
    return options


def main() -> int:
    """Run everything; the last line says it all."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="curate-bench-", dir=options.scratch) as scratch:
        folder = Path(scratch)
        work = options.work
        if work is None:
            work = folder / "work"
            make_workspace(work, options.rows)
        rows = json.loads((work / layout.DATASET).read_text())["candidates"]
        found = {}
        print(f"{'rows':>12} {'grid':<12}{'points':>7}{'cold s':>8}{'warm s':>8}{'GiB':>6}{'alone s':>9}")
        for name in options.grids:
            facts = found[name] = measure(work.resolve(), folder, name, options.repeats)
            points = len(Grid.model_validate(GRIDS[name]).points(name, {}))
            print(f"{rows:>12,} {name:<12}{points:>7}{facts['cold']:>8.2f}{facts['warm']:>8.2f}", end="")
            print(f"{facts['memory']:>6.2f}{facts['alone']:>9.2f}", flush=True)
    ok = all(max(f["cold"], f["warm"]) < BAR_SECONDS and f["memory"] < BAR_MEMORY for f in found.values())
    print(
        json.dumps(
            {
                "bench": "grid",
                "ours": round(max(f["warm"] for f in found.values()), 3),
                "peer": None,
                "ratio": None,
                "floor": round(max(f["alone"] for f in found.values()), 3),
                "bar": {"seconds": BAR_SECONDS, "memory_gib": BAR_MEMORY},
                "ok": ok,
                "unit": "s",
                "rows": rows,
                "cores": len(os.sched_getaffinity(0)),
                "grids": {name: {k: round(v, 3) for k, v in f.items()} for name, f in found.items()},
            }
        )
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
