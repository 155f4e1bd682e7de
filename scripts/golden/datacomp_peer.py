"""Runs DataComp's filters; started by `datacomp.py` and by the benchmark in an environment of DataComp's own.

    python datacomp_peer.py CHECKOUT MADE ASSETS JOBS [--whole]

JOBS is a file with a list of {"metadata", "save", "workers", "name", "arch", "threshold", "fraction"}.
DataComp's own code decides about everything; languages and downloads are stood in for. So is torch, and
workers are forked, but for --whole, with which they start as DataComp starts them: each by itself, importing
everything again. The last line is JSON.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def prepared(checkout: str, made: str, assets: Path, whole: bool) -> Any:
    """DataComp's module, its way to the network closed."""
    stand_ins = Path(__file__).parent / "stand_ins"
    sys.path[:0] = [str(stand_ins), made, checkout]
    if not whole:
        sys.path.insert(0, str(stand_ins / "arrays"))
        multiprocessing.set_start_method("fork")
        multiprocessing.set_start_method = lambda *_, **__: None  # type: ignore[assignment]
    import nltk
    from baselines import apply_filter

    def asset(name: str, root: str | None = None) -> str:
        return str(assets / (name if name in ("imagenet21k_wordnet_ids", "fasttext") else f"{name}.npy"))

    apply_filter.download = asset
    nltk.download = lambda name: True
    nltk.data.path[:] = [str(assets / "nltk_data")]
    return apply_filter


def main() -> None:
    checkout, made, assets, jobs, *whole = sys.argv[1:]
    module = prepared(checkout, made, Path(assets), bool(whole))
    results = []
    for job in json.loads(Path(jobs).read_text()):
        wanted = {"arch": None, "threshold": None, "fraction": None, "image_based_scale": "small", **job}
        arguments = SimpleNamespace(**wanted, metadata_dir=job["metadata"], save_path=job["save"],
                                    num_workers=job["workers"], num_gpus=1, batch_size=1024)  # fmt: skip
        started = time.perf_counter()
        error = None
        with contextlib.redirect_stdout(sys.stderr):
            try:
                module.apply_filter(arguments)
            except Exception as raised:  # noqa: BLE001 - what it fails with is a result, too
                error = f"{type(raised).__name__}: {raised}"
        results.append({"seconds": time.perf_counter() - started, "error": error})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # A worker that was not forked: what is stood in for is not there yet.
    prepared(sys.argv[1], sys.argv[2], Path(sys.argv[3]), whole=True)
