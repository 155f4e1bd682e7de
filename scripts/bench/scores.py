#!/usr/bin/env python3
"""Speed and memory of every scorer that runs from stored embeddings or columns alone.

Writes one shard of N samples with made-up image and text embeddings (float16, seeded, written in
blocks) into a temporary workspace and runs the scorers one after the other, each in a process of its
own, as `curate score` would: learn, then score, on one thread. First on 3,000 samples, where rows are
checked against plain float64 numpy; then on N, where some rows are checked again. The bar: no process
needs more than 2 GiB, whatever the shard's size.

    python scripts/bench/scores.py [--rows 1000000] [--dim 768] [--only negclip,normsim_inf]

What is compared with: 2,000 targets and held-out vectors, 1,000 clusters and concepts, tables of N rows;
negCLIPLoss with batches of 4,096 out of 8,192 (`--batch 32768` is the paper's, eight times the work).
Needs 4 KiB of disk a row. `rows_s` is by the clock, `rows_cpu_s` by the seconds that the process had a
core, which is what one core does when nothing else runs. The last line is one JSON object. Linux only
(reads /proc).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.dataset.family import IMAGES, Family

BAR = 2 * 1024  # MiB
SHARD = "00000"
SMALL = 3_000
CHECKED = 24
TOLERANCE = 5e-6
Doubles = npt.NDArray[np.float64]


def unit_rows(rng: np.random.Generator, rows: int, dim: int, lean: Doubles) -> npt.NDArray[np.float32]:
    """Unit vectors around a common direction, so that cosines are not all near zero."""
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    vectors += lean.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_vectors(path: Path, rows: int, dim: int, seed: int) -> None:
    """float16 (rows, dim) in blocks; row 11 and every 1,000th after it has no embedding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lean = np.random.default_rng(99).normal(size=dim) * 0.6
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, rows, 8192):
            block = unit_rows(rng, min(8192, rows - start), dim, lean).astype(np.float16)
            numbers = np.arange(start, start + len(block))
            block[numbers % 1000 == 11] = np.nan
            stream.write(block.tobytes())


def made_up(folder: Path, rows: int, dim: int) -> None:
    """A workspace of one shard with embeddings, and the files that scorers are given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.dataset import layout
    from curate.dataset.records import Record, RecordStore
    from curate.dataset.workspace import FileRef, Workspace

    workspace = Workspace(str(folder / "work"))
    halves = np.random.default_rng(5).integers(0, 2**63, (rows, 2), dtype=np.int64)
    uids = pa.array(sorted(f"{a:016x}{b:016x}" for a, b in halves.tolist()), pa.string())
    numbers = np.arange(rows)
    images = {
        "uid": uids,
        "url": pa.array([f"https://example.org/{i}.jpg" for i in range(rows)], pa.string()),
        "caption": pa.array([f"caption {i}" for i in range(rows)], pa.string()),
        "status": pa.array(["success"] * rows, pa.string()),
        "original_width": pa.array(200 + numbers % 777, pa.int32()),
    }
    workspace.write_table(IMAGES.path(SHARD), pa.table(images))
    for seed, modality in enumerate(("image", "text")):
        write_vectors(Path(workspace.location(layout.embedding("m", modality, SHARD))), rows, dim, seed)
    similarity = pa.array((numbers % 997 / 997).astype(np.float32), mask=numbers % 1000 == 11)
    table = pa.table({"uid": uids, "similarity": similarity})
    workspace.write_table(Family.embeddings("m").path(SHARD), table)
    facts = {"model": "made up", "weights": "w" * 32, "checkpoint": "stored", "dim": dim}
    workspace.write_json(layout.embedding_model("m"), {**facts, "logit_scale": 100.0})
    workspace.write_json(layout.DATASET, {"shards": 1, "shard_size": rows, "candidates": rows})
    paths = {
        "download": [IMAGES.path(SHARD)],
        "embed/m": [Family.embeddings("m").path(SHARD)]
        + [layout.embedding("m", modality, SHARD) for modality in ("image", "text")],
    }
    for stage, written in paths.items():
        refs = [FileRef(p, Path(workspace.location(p)).stat().st_size, "bench") for p in written]
        account = {"inputs_digest": "", "inputs": [], "outputs": refs, "rows_in": rows, "rows_out": rows}
        record = {"key": "", "settings": {}, "code_version": 1, "drops": {}, **account}
        RecordStore(workspace).write(Record(stage=stage, unit=SHARD, **record))
    lean = np.random.default_rng(99).normal(size=dim) * 0.6
    rng = np.random.default_rng(7)
    np.save(folder / "targets.npy", unit_rows(rng, 2_000, dim, lean))
    np.save(folder / "concepts.npy", unit_rows(rng, 1_000, dim, lean))
    order = np.random.default_rng(8).permutation(rows)
    values = pa.array(order / 3.0)
    pq.write_table(pa.table({"uid": uids, "value": pa.array(numbers / 3.0)}), folder / "sorted.parquet")
    pq.write_table(
        pa.table({"uid": uids.take(pa.array(order)), "value": values}), folder / "shuffled.parquet"
    )
    write_head(folder, dim)


def write_head(folder: Path, dim: int) -> None:
    """A small perceptron with random weights, in this project's own format."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(9)
    tensors = {
        "w1": rng.normal(size=(64, dim)).astype(np.float32) / 8,
        "b1": np.zeros(64, np.float32),
        "w2": rng.normal(size=(1, 64)).astype(np.float32) / 8,
        "b2": np.zeros(1, np.float32),
    }
    save_file(tensors, folder / "head.safetensors")
    layers = [
        {"type": "linear", "weight": "w1", "bias": "b1"},
        {"type": "relu"},
        {"type": "linear", "weight": "w2", "bias": "b2"},
        {"type": "sigmoid"},
    ]
    (folder / "head.json").write_text(json.dumps({"format": "curate-head-1", "layers": layers}))


def sections(folder: Path, batch: int, rows: int) -> dict[str, dict[str, Any]]:
    """Scorer's settings by the name they have in the table that is printed."""
    on_m = {"model": "m"}
    targets = {**on_m, "targets": str(folder / "targets.npy")}
    batch = min(batch, rows // 2)
    table = {"type": "table", "columns": ["value"]}
    prompts = {"positive": [f"p{i}" for i in range(17)], "negative": [f"n{i}" for i in range(18)]}
    return {
        "negclip": {"type": "negclip", **on_m, "batch_size": batch, "device": "cpu"},
        "normsim_inf": {"type": "normsim", **targets, "device": "cpu"},
        "normsim_2": {"type": "normsim", **targets, "norm": 2, "device": "cpu"},
        "mix": {"type": "mix", "weights": {"m_similarity": 0.6, "original_width": -0.4}},
        "cluster": {"type": "cluster", **on_m, "clusters": 1_000, "iterations": 10, "sample": 65_536},
        "concepts": {"type": "concepts", **on_m, "vectors": str(folder / "concepts.npy")},
        "held_out": {"type": "held_out", **on_m, "vectors": str(folder / "targets.npy")},
        "table_sorted": {**table, "paths": str(folder / "sorted.parquet")},
        "table_shuffled": {**table, "paths": str(folder / "shuffled.parquet")},
        "zero_shot": {"type": "zero_shot", **on_m, **prompts},
        "head": {"type": "head", **on_m, "file": str(folder / "head.safetensors"), "any_model": True},
    }


def peak() -> float:
    """Largest resident memory of this process so far, MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def prompts_of(count: int, dim: int) -> npt.NDArray[np.float32]:
    """What stands for the embeddings of prompts: no model is part of this benchmark."""
    lean = np.random.default_rng(99).normal(size=dim) * 0.6
    return unit_rows(np.random.default_rng(10), count, dim, lean)


def child(folder: Path, name: str, batch: int, rows: int, dim: int) -> dict[str, Any]:
    """One scorer in this process: learn, score, check some rows."""
    import torch

    import curate.score.inputs
    from curate.config.loading import check
    from curate.dataset.workspace import Workspace
    from curate.score.stage import LearnStage, score_stages

    torch.set_num_threads(1)
    curate.score.inputs._encode = lambda *given: (prompts_of(len(given[-1]), dim), 100.0)  # type: ignore[assignment]
    section = sections(folder, batch, rows)[name]
    models = {"m": {"model": "demo"}}
    config = check({"embed": {"models": models}, "score": {"scorers": {"s": section}}})
    workspace = Workspace(str(folder / "work"))
    stages = score_stages(config.score, config.embed)
    seconds = {"learn": 0.0, "score": 0.0}
    cpu = dict(seconds)
    floor = peak()
    from curate.dataset.records import RecordStore
    from curate.engine.engine import run_unit
    from curate.engine.plan import make_plan

    for stage in stages:
        started, worked = time.perf_counter(), time.process_time()
        for job in make_plan(stage, workspace, RecordStore(workspace)).jobs:
            run_unit(stage, workspace, job)
        what = "learn" if isinstance(stage, LearnStage) else "score"
        seconds[what] += time.perf_counter() - started
        cpu[what] += time.process_time() - worked
    measured = {"peak_mib": round(peak()), "floor_mib": round(floor)}
    worst = checked(folder, name, section, rows, dim)
    shutil.rmtree(folder / "work/.curate/records/score", ignore_errors=True)
    shutil.rmtree(folder / "work/.curate/records/learn", ignore_errors=True)
    shutil.rmtree(folder / "work/scores", ignore_errors=True)
    times = {f"{what}_s": round(value, 1) for what, value in seconds.items()}
    times |= {f"{what}_cpu_s": round(value, 1) for what, value in cpu.items()}
    speed = {"rows_s": round(rows / seconds["score"]), "rows_cpu_s": round(rows / max(cpu["score"], 1e-9))}
    return {**speed, **times, **measured, "worst_error": worst}


def checked(folder: Path, name: str, section: Mapping[str, Any], rows: int, dim: int) -> float:
    """Compare some rows with plain numpy; the largest difference."""
    import pyarrow.parquet as pq

    from curate.dataset import layout

    table = pq.read_table(folder / "work" / Family.scores("s").path(SHARD))
    assert table.num_rows == rows
    picked = np.unique(
        np.concatenate([[0, 11, rows - 1], np.random.default_rng(0).integers(0, rows, CHECKED)])
    )
    some = table.take(picked).to_pydict()
    kind = section.get("modality", "text" if section["type"] == "concepts" else "image")
    stored = {
        modality: np.load(folder / "work" / layout.embedding("m", modality, SHARD), mmap_mode="r")
        for modality in ("image", "text")
    }
    vectors = stored[kind][picked].astype(np.float64)
    learned_at = folder / "work" / layout.learned("s")
    learned = dict(np.load(learned_at)) if learned_at.exists() else {}
    reads_vectors = section["type"] not in ("mix", "table")
    gap = picked % 1000 == 11 if reads_vectors or section["type"] == "mix" else np.zeros(len(picked), bool)
    column, expected = ORACLES[name](folder, vectors, learned, some, picked, stored, dim)
    got = np.array([np.nan if v is None else v for v in some[column]], np.float64)
    assert (np.isnan(got) == gap).all(), f"{name}: null where there is a score, or the other way round"
    worst = float(np.abs(got - expected)[~gap].max())
    scale = max(1.0, float(np.abs(expected[~gap]).max()))
    if not worst <= TOLERANCE * scale:
        raise SystemExit(f"{name}: differs from its definition by {worst}")
    return worst


def _unit(vectors: npt.NDArray[Any]) -> Doubles:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def negclip_oracle(
    folder: Path,
    vectors: Doubles,
    learned: Mapping[str, Any],
    some: Mapping[str, Any],
    picked: npt.NDArray[np.int64],
    stored: Mapping[str, npt.NDArray[Any]],
    dim: int,
) -> tuple[str, Doubles]:
    """The formula of curate/score/kinds/negclip.py, a row and a batch at a time."""
    size = int(learned["member"].sum(axis=0)[0])
    known = {tuple(uid): i for i, uid in enumerate(learned["uid"].tolist())}
    out = np.zeros(len(picked))
    for n, row in enumerate(picked):
        uid = some["uid"][n]
        own = known.get((int(uid[:16], 16), int(uid[16:], 16)))
        f, g = (stored[m][row].astype(np.float64) for m in ("image", "text"))
        norms = []
        for k in range(learned["member"].shape[1]):
            batch = np.flatnonzero(learned["member"][:, k])
            batch = batch[batch != own] if own is not None else batch
            for x, kind, mine in ((f, "text", g), (g, "image", f)):
                logits = np.append(learned[kind][batch].astype(np.float64) @ x, mine @ x) / 0.01
                top = logits.max()
                total = top + np.log(np.exp(logits - top).sum()) + np.log(size / (len(batch) + 1))
                norms.append(0.01 * total)
        out[n] = f @ g - np.mean(norms)
    return "s_score", out


def oracle(answer: Callable[..., Doubles], column: str = "s_score") -> Callable[..., tuple[str, Doubles]]:
    """An oracle that needs only the folder, the rows' vectors, what was learned and what came out."""
    return lambda folder, vectors, learned, some, picked, stored, dim: (
        column,
        answer(folder, vectors, learned, some, picked, dim),
    )


def _zero_shot(vectors: Doubles, dim: int) -> Doubles:
    logits = 100.0 * vectors @ prompts_of(35, dim).astype(np.float64).T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights[:, :17].sum(axis=1) / weights.sum(axis=1)


def _head(folder: Path, vectors: Doubles) -> Doubles:
    from safetensors.numpy import load_file

    t = {k: v.astype(np.float64) for k, v in load_file(folder / "head.safetensors").items()}
    hidden = np.maximum(vectors @ t["w1"].T + t["b1"], 0)
    return 1 / (1 + np.exp(-(hidden @ t["w2"].T + t["b2"])[:, 0]))


def _mix(learned: Mapping[str, Any], picked: npt.NDArray[np.int64]) -> Doubles:
    columns = [(picked % 997 / 997).astype(np.float32).astype(np.float64), 200.0 + picked % 777]
    z = [(c - m) / s for c, m, s in zip(columns, learned["mean"], learned["std"], strict=True)]
    return 0.6 * z[0] - 0.4 * z[1]


def _single(picked: npt.NDArray[np.int64]) -> Doubles:
    return (picked / 3.0).astype(np.float32).astype(np.float64)


def _cosines(folder: Path, name: str, vectors: Doubles) -> Doubles:
    return vectors @ _unit(np.load(folder / name)).T


ORACLES: dict[str, Callable[..., tuple[str, Doubles]]] = {
    "negclip": negclip_oracle,
    "normsim_inf": oracle(lambda at, v, *_: np.abs(_cosines(at, "targets.npy", v)).max(axis=1)),
    "normsim_2": oracle(lambda at, v, *_: np.sqrt((_cosines(at, "targets.npy", v) ** 2).sum(axis=1))),
    "mix": oracle(lambda at, v, learned, some, picked, dim: _mix(learned, picked)),
    "cluster": oracle(
        lambda at, v, learned, *_: (v @ _unit(learned["centroids"]).T).max(axis=1), "s_similarity"
    ),
    "concepts": oracle(lambda at, v, *_: _cosines(at, "concepts.npy", v).max(axis=1)),
    "held_out": oracle(lambda at, v, *_: _cosines(at, "targets.npy", v).max(axis=1), "s_similarity"),
    "table_sorted": oracle(lambda at, v, learned, some, picked, dim: _single(picked), "s_value"),
    "table_shuffled": oracle(lambda at, v, learned, some, picked, dim: _single(picked), "s_value"),
    "zero_shot": oracle(lambda at, v, learned, some, picked, dim: _zero_shot(v, dim)),
    "head": oracle(lambda at, v, *_: _head(at, v)),
}
"""Name of a section → column and what it should hold, for some rows."""


def measured(folder: Path, name: str, batch: int, rows: int, dim: int) -> dict[str, Any]:
    """A scorer in a process of its own."""
    given = ["--child", name, "--folder", str(folder), "--batch", str(batch)]
    command = [sys.executable, __file__, *given, "--rows", str(rows), "--dim", str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def clip_like(rng: np.random.Generator, rows: int, dim: int) -> tuple[npt.NDArray[np.float16], ...]:
    """Image and text vectors of pairs: a direction that all share, a topic that a pair shares, noise.

    Cosines of pairs are .27 ± .06, those of others .13 ± .07.
    """
    topics = 8
    basis = np.linalg.qr(rng.normal(size=(dim, topics + 1)))[0].T.astype(np.float32)
    topic = rng.standard_normal((rows, topics), dtype=np.float32)
    topic /= np.linalg.norm(topic, axis=1, keepdims=True)
    sides = []
    for _ in range(2):
        shared = np.clip(0.13 + 0.04 * rng.standard_normal((rows, 1)), 0.02, 0.4)
        own = np.clip(0.15 + 0.05 * rng.standard_normal((rows, 1)), 0.01, 0.4)
        noise = rng.standard_normal((rows, dim), dtype=np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        vectors = np.sqrt(shared) * basis[-1] + np.sqrt(own) * (topic @ basis[:-1])
        vectors = vectors + np.sqrt(1 - shared - own) * noise
        sides.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
    return tuple(sides)


def ranks(rows: int = 65_536, dim: int = 768, scored: int = 2_000) -> None:
    """What smaller batches do to the ranks of negCLIPLoss, against one of the paper's size."""
    import torch

    from curate.score.devices import one_thread
    from curate.score.kinds.negclip import Pool, batches, negclip

    image, text = clip_like(np.random.default_rng(0), rows, dim)
    none = np.full(scored, -1)

    def scores(size: int, sample: int, seed: int) -> Doubles:
        drawn = np.random.default_rng(seed).permutation(np.arange(scored, rows))[:sample]
        pool = Pool(image[drawn], text[drawn], batches(len(drawn), size, 10, seed), size)
        with one_thread():
            found = negclip(image[:scored], text[:scored], none, pool, 0.01, torch.device("cpu"))
        return found.score

    def correlation(a: Doubles, b: Doubles) -> float:
        return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])

    papers = scores(32_768, rows - scored, 0)
    best = scored * 3 // 10
    for size in (16_384, 4_096, 1_024):
        one, other = (scores(size, 2 * size, seed) for seed in (1, 2))
        common = len({*np.argsort(-one)[:best]} & {*np.argsort(-papers)[:best]}) / best
        print(
            f"{size:6d}: {correlation(one, papers):.3f} {common:.2f} {correlation(one, other):.3f}",
            flush=True,
        )
    similarity = (image[:scored].astype(np.float64) * text[:scored].astype(np.float64)).sum(axis=1)
    print(f"plain similarity: {correlation(similarity, papers):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--batch", type=int, default=4_096, help="batch size of negclip")
    parser.add_argument("--only", help="names of scorers, comma-separated")
    parser.add_argument("--ranks", action="store_true", help="only: what negclip's batch size does to ranks")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(asked.folder, asked.child, asked.batch, asked.rows, asked.dim)))
        return
    if asked.ranks:
        ranks()
        return
    names = asked.only.split(",") if asked.only else list(ORACLES)
    unknown = set(names) - set(ORACLES)
    if unknown:
        parser.error(f"no scorer {', '.join(sorted(unknown))}; there are {', '.join(ORACLES)}")
    ours: dict[str, Any] = {}
    for rows in (SMALL, asked.rows):
        folder = Path(tempfile.mkdtemp(prefix="curate-scores-"))
        try:
            made_up(folder, rows, asked.dim)
            for name in names:
                ours[name] = measured(folder, name, asked.batch, rows, asked.dim)
                print(rows, name, ours[name], flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    largest = max(figures["peak_mib"] for figures in ours.values())
    result = {"bench": "scores", "rows": asked.rows, "dim": asked.dim, "ours": ours, "peer": None}
    floor = max(figures["floor_mib"] for figures in ours.values())
    verdict = {"ratio": round(largest / BAR, 3), "floor": floor, "bar": BAR, "ok": largest <= BAR}
    print(json.dumps({**result, **verdict}))


if __name__ == "__main__":
    main()
