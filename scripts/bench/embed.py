#!/usr/bin/env python3
"""Embeddings per second: curate, a plain loop in clip-retrieval's manner, and the model alone.

Makes webdataset shards of photograph-like JPEGs with captions, and checkpoints with fresh weights
(speed does not depend on them). Every model then runs three times over the same shards, each in a
process of its own: the plain loop (webdataset, a DataLoader with the model's own transform, autocast
on a GPU, one npy per tower at the end), `curate embed`, and the model's forward passes on one resident
batch, which is the floor. Vectors are compared before anything is timed as a success.

    python scripts/bench/embed.py                       # GPU: B/32, L/14, H/14; CPU: B/32
    python scripts/bench/embed.py --models ViT-L-14 --pairs 60000 --batch-size 512 --compile

On a GPU it prints pairs/s, the share of time the GPU is busy (nvidia-smi) and the model FLOP utilisation
against the best matmul of the same run. On a CPU it prints the share of all CPU time that is spent in
forward passes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from curate.dataset.family import IMAGES

BANK = 512
GPU_GOALS = {"ViT-B-32": 10_000, "ViT-L-14": 2_500}
BUSY_GOAL = 0.95
FORWARD_GOAL = 0.90
COSINE = {"cuda": 0.999, "cpu": 0.9999}
WORDS = (
    "a the of with and red blue old new photo woman man house vintage black white wooden table kitchen "
    "wedding dress shoes car engine garden flower sunset beach mountain river portrait design logo "
    "poster illustration vector handmade leather bag set free shipping size large small 2019 inch stock "
    "image view city street night "
)


# ---- the input ---------------------------------------------------------------------------------------------


def jpegs(side: int) -> list[bytes]:
    """Pictures with the shorter side as given, detail on several scales, sizes as on the web."""
    from PIL import Image

    rng = np.random.default_rng(0)
    bank = []
    for _ in range(BANK):
        ratio = float(np.exp(rng.normal(0, 0.3)))
        width, height = (int(side * max(ratio, 1)), int(side * max(1 / ratio, 1)))
        picture = np.zeros((height, width, 3), np.float32)
        for cells, weight in ((4, 0.5), (16, 0.3), (64, 0.2)):
            coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            picture += weight * np.asarray(
                coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32
            )
        stream = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
        bank.append(stream.getvalue())
    return bank


def caption(rng: np.random.Generator) -> str:
    """About nine words, sometimes many more, as alt texts have."""
    return " ".join(rng.choice(WORDS.split(), max(1, int(rng.lognormal(2.2, 0.6)))))


def make_input(folder: Path, pairs: int, shard_size: int, side: int) -> str:
    """A workspace whose images are there. Returns its path."""
    import pyarrow as pa

    from curate.dataset import layout
    from curate.dataset.records import RecordStore
    from curate.dataset.tars import TarWriter
    from curate.dataset.uid import uid_of
    from curate.dataset.workspace import Workspace, ref_of
    from curate.engine.engine import run_unit
    from curate.engine.plan import make_plan
    from curate.engine.stage import Outcome, Stage, Unit

    bank, rng = jpegs(side), np.random.default_rng(1)
    rows = sorted((uid_of(text, f"http://h/{i}"), text, f"http://h/{i}")
                  for i, text in enumerate(caption(rng) for _ in range(pairs)))  # fmt: skip
    shards = max(1, pairs // shard_size)
    parts = {layout.shard_name(s, shards): rows[s * pairs // shards : (s + 1) * pairs // shards]
             for s in range(shards)}  # fmt: skip

    class Made(Stage):
        name = "download"
        settings = MappingProxyType({})

        def units(self, workspace: Workspace) -> list[Unit]:
            return [Unit(shard) for shard in parts]

        def run(self, workspace: Workspace, unit: Unit) -> Outcome:
            part = parts[unit.name]
            path = layout.image_tar(unit.name)
            with workspace.writing(path) as temporary:
                with temporary.open("wb") as stream, TarWriter(stream) as tar:
                    for uid, text, _ in part:
                        tar.add(f"{uid}.jpg", bank[int(uid[:6], 16) % BANK])
                        tar.add(f"{uid}.json", b"{}")
                        tar.add(f"{uid}.txt", text.encode())
                ref = ref_of(temporary, path)
            uids, texts, urls = zip(*part, strict=True)
            table = pa.table({"uid": uids, "url": urls, "caption": texts, "status": ["success"] * len(part)})
            return Outcome((ref, workspace.write_table(IMAGES.path(unit.name), table)), len(part), len(part))

    workspace = Workspace(str(folder / "work"))
    stage = Made()
    for job in make_plan(stage, workspace, RecordStore(workspace)).jobs:
        run_unit(stage, workspace, job)
    workspace.write_json(layout.DATASET, {"shards": shards, "shard_size": shard_size, "candidates": pairs})
    return workspace.url


def make_checkpoint(folder: Path, name: str) -> Path:
    """Fresh weights of an architecture, as a file."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    model = open_clip.create_model(name)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return path


# ---- the plain loop ----------------------------------------------------------------------------------------


def plain_loop(workspace: str, name: str, checkpoint: str, batch_size: int, workers: int, out: str) -> None:
    """What clip-retrieval's inference does with one webdataset and one model, without its logging."""
    import open_clip
    import torch
    import webdataset as wds
    from PIL import Image

    started = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=checkpoint, device=device)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)

    def ready(item: dict[str, Any]) -> dict[str, Any]:
        return {
            "image": transform(Image.open(io.BytesIO(item["jpg"]))),
            "tokens": tokenizer([item["txt"].decode()])[0],
            "key": item["__key__"],
        }

    tars = sorted(str(p) for p in (Path(workspace) / "images").glob("*.tar"))
    dataset = wds.WebDataset(tars, shardshuffle=False).map(ready)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size,
        num_workers=min(workers, len(tars)),
        pin_memory=device == "cuda",
        prefetch_factor=2,
    )
    cast = torch.autocast("cuda", torch.float16) if device == "cuda" else contextlib.nullcontext()
    images, texts, keys = [], [], []
    with torch.no_grad(), cast:
        for batch in loader:
            for tower, rows, kept in (
                (model.encode_image, "image", images),
                (model.encode_text, "tokens", texts),
            ):
                features = tower(batch[rows].to(device))
                features /= features.norm(dim=-1, keepdim=True)
                kept.append(features.cpu().to(torch.float16).numpy())
            keys += batch["key"]
    np.save(f"{out}/image.npy", np.concatenate(images))
    np.save(f"{out}/text.npy", np.concatenate(texts))
    Path(out, "keys.json").write_text(json.dumps(keys))
    print(json.dumps({"seconds": time.perf_counter() - started, "pairs": len(keys)}))


# ---- curate ------------------------------------------------------------------------------------------------


def settings_of(name: str, checkpoint: str, options: argparse.Namespace) -> Any:
    from curate.config.models import ModelSettings

    return ModelSettings(
        model=name,
        pretrained=checkpoint,
        batch_size=options.batch_size,
        precision=options.precision,
        compile=options.compile,
        decode_workers=options.decode_workers,
    )


def ours(workspace: str, name: str, checkpoint: str, options: argparse.Namespace) -> None:
    """`curate embed` with one model."""
    import torch
    from rich.console import Console

    from curate.config.models import RunSettings
    from curate.dataset.workspace import Workspace
    from curate.embed.stage import EmbedStage
    from curate.engine.engine import Engine

    started = time.perf_counter()
    stage = EmbedStage(name.lower(), settings_of(name, checkpoint, options))
    settings = RunSettings(cluster="local", workers=1 if torch.cuda.is_available() else None)
    Engine(Workspace(workspace), settings, Console(file=sys.stderr)).run([stage])
    print(json.dumps({"seconds": time.perf_counter() - started}))


def forward_share(workspace: str, name: str, checkpoint: str, options: argparse.Namespace) -> None:
    """One shard in one process: CPU time inside forward passes, of all CPU time."""
    import torch

    from curate.clip.model import Clip, load
    from curate.dataset.workspace import Workspace
    from curate.embed.decoders import decoders
    from curate.embed.encoding import embed

    space = Workspace(workspace)
    clip = load(settings_of(name, checkpoint, options))
    shard = sorted((Path(workspace) / "images").glob("*.tar"))[0]
    table = space.read_table(IMAGES.path(shard.stem))
    rows = {uid: row for row, uid in enumerate(table["uid"].to_pylist())}
    inside, real = 0.0, Clip._forward

    def timed(*args: Any) -> torch.Tensor:
        nonlocal inside
        before = time.thread_time()
        try:
            return real(*args)
        finally:
            inside += time.thread_time() - before

    Clip._forward = timed  # type: ignore[method-assign]
    before = time.process_time()
    embed([(clip, ("image", "text"))], rows, table["caption"].to_pylist(), shard, decoders(clip.device, None))
    print(json.dumps({"share": inside / (time.process_time() - before)}))


# ---- the floor ---------------------------------------------------------------------------------------------


def floor(name: str, checkpoint: str, options: argparse.Namespace) -> None:
    """Forward passes on one batch that is already there, whole contexts; FLOPs and the matmul peak."""
    import open_clip
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = open_clip.create_model(name, pretrained=checkpoint, device=device).eval()
    size = options.batch_size or (256 if device == "cuda" else 16)
    side = (
        model.visual.image_size[0] if isinstance(model.visual.image_size, tuple) else model.visual.image_size
    )
    pixels = torch.randn(size, 3, side, side, device=device)
    tokens = open_clip.get_tokenizer(name)(["a photo of a dog in the park"] * size).to(device)
    cast = torch.autocast("cuda", torch.float16) if device == "cuda" else contextlib.nullcontext()

    def timed(what: Any, least: float) -> float:
        what()
        times, started = [], time.perf_counter()
        while time.perf_counter() - started < least:
            before = time.perf_counter()
            what()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
        return float(np.median(times))

    with torch.inference_mode(), cast:
        seconds = timed(lambda: (model.encode_image(pixels), model.encode_text(tokens)), 5.0)
    with torch.inference_mode(), FlopCounterMode(display=False) as image:
        model.encode_image(pixels[:1])
    with torch.inference_mode(), FlopCounterMode(display=False) as text:
        model.encode_text(tokens[:1])
    out = {"floor": size / seconds, "image": image.get_total_flops(), "text": text.get_total_flops()}
    if device == "cuda":
        n = 8192
        a, b = (torch.randn(n, n, device=device, dtype=torch.float16) for _ in range(2))
        out["peak"] = 2 * n**3 / timed(lambda: a @ b, 2.0)
    print(json.dumps(out))


# ---- putting it together -----------------------------------------------------------------------------------


@contextlib.contextmanager
def busy() -> Iterator[list[float]]:
    """Utilisation of GPU 0 in per cent, several times a second, from the first work to the last."""
    samples: list[float] = []
    if shutil.which("nvidia-smi") is None:
        yield samples
        return
    command = [
        "nvidia-smi",
        "-i",
        "0",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-lms",
        "200",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout
        thread = threading.Thread(
            target=lambda: samples.extend(float(x) for x in lines if x.strip().isdigit())
        )
        thread.start()
        try:
            yield samples
        finally:
            process.terminate()
            thread.join()
    working = [i for i, x in enumerate(samples) if x > 5]
    samples[:] = samples[working[0] : working[-1] + 1] if working else []


def child(*arguments: str) -> dict[str, Any]:
    """Run a part of this program in a process of its own; its last line is JSON."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments[1]} failed")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def agreement(workspace: str, alias: str, plain: Path) -> float:
    """The smallest cosine between our vectors and the plain loop's, over all samples and both towers."""
    keys = json.loads((plain / "keys.json").read_text())
    place = {key: i for i, key in enumerate(keys)}
    worst = 1.0
    for kind, short in (("image", "img"), ("text", "text")):
        theirs = np.load(plain / f"{kind}.npy")
        for file in sorted((Path(workspace) / "embeddings" / alias / f"{short}_emb").glob("*.npy")):
            import pyarrow.parquet as pq

            shard = file.stem.rpartition("_")[2]
            uids = pq.read_table(file.parents[1] / "metadata" / f"metadata_{shard}.parquet")[
                "uid"
            ].to_pylist()
            mine, other = (
                np.load(file).astype(np.float32),
                theirs[[place[u] for u in uids]].astype(np.float32),
            )
            norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
            worst = min(worst, float(((mine * other).sum(axis=1) / norms).min()))
    return worst


def measure(name: str, workspace: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One model through all three."""
    import torch

    cuda = torch.cuda.is_available()
    checkpoint = str(make_checkpoint(folder, name))
    plain = folder / "plain"
    plain.mkdir(exist_ok=True)
    common = [name, checkpoint, *options.passed]
    theirs = child("--part", "plain", workspace, str(plain), *common)
    with busy() as samples:
        mine = child("--part", "ours", workspace, str(plain), *common)
    base = child("--part", "floor", workspace, str(plain), *common)
    worst = agreement(workspace, name.lower(), plain)
    if worst < COSINE["cuda" if cuda else "cpu"]:
        raise SystemExit(f"{name}: vectors differ, smallest cosine {worst:.6f}")
    found: dict[str, Any] = {
        "ours": round(options.pairs / mine["seconds"], 1),
        "peer": round(theirs["pairs"] / theirs["seconds"], 1),
        "floor": round(base["floor"], 1),
        "cosine": round(worst, 6),
    }
    found["ratio"] = round(found["ours"] / found["peer"], 2)
    if cuda:
        found["busy"] = round(float(np.mean(samples)) / 100, 3) if samples else None
        # Of the image tower only: captions are not run at their full length, so theirs would flatter us.
        found["mfu"] = round(found["ours"] * base["image"] / base["peak"], 3)
        found["peak_tflops"] = round(base["peak"] / 1e12)
    else:
        found["forward_share"] = round(child("--part", "share", workspace, str(plain), *common)["share"], 3)
    Path(checkpoint).unlink()
    shutil.rmtree(Path(workspace) / "embeddings" / name.lower())
    print(name, json.dumps(found), flush=True)
    return found


def passed(name: str, found: dict[str, Any]) -> bool:
    """Against the bars."""
    if "busy" in found:
        fast = found["ours"] >= GPU_GOALS.get(name, 0)
        return fast and (name != "ViT-L-14" or (found["busy"] or 0) >= BUSY_GOAL)
    return bool(found["ratio"] >= 1 and found["forward_share"] >= FORWARD_GOAL)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", help="architectures of open_clip")
    parser.add_argument("--pairs", type=int, help="default 100,000 on a GPU, 1,536 on a CPU")
    parser.add_argument("--shard-size", type=int, help="default 10,000 on a GPU, 256 on a CPU")
    parser.add_argument("--side", type=int, default=256, help="shorter side of the JPEGs")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--decode-workers", type=int)
    parser.add_argument("--part", choices=("plain", "ours", "floor", "share"), help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.passed = ["--precision", options.precision, *(["--compile"] if options.compile else [])]
    for key in ("batch_size", "decode_workers"):
        if getattr(options, key):
            options.passed += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
    return options


def part(options: argparse.Namespace) -> None:
    """One of the processes that ``child`` starts."""
    workspace, plain, name, checkpoint = options.rest
    if options.part == "plain":
        plain_loop(workspace, name, checkpoint, options.batch_size or 256, os.cpu_count() or 1, plain)
    elif options.part == "ours":
        ours(workspace, name, checkpoint, options)
    elif options.part == "share":
        forward_share(workspace, name, checkpoint, options)
    else:
        floor(name, checkpoint, options)


def main() -> int:
    """Run everything; the last line says it all."""
    options = arguments()
    if options.part:
        part(options)
        return 0
    import torch

    cuda = torch.cuda.is_available()
    models = options.models or (["ViT-B-32", "ViT-L-14", "ViT-H-14"] if cuda else ["ViT-B-32"])
    options.pairs = options.pairs or (100_000 if cuda else 1_536)
    headline = "ViT-L-14" if "ViT-L-14" in models else models[0]
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as scratch:
        folder = Path(scratch)
        print(f"making {options.pairs:,} pairs", file=sys.stderr)
        workspace = make_input(
            folder, options.pairs, options.shard_size or (10_000 if cuda else 256), options.side
        )
        found = {name: measure(name, workspace, folder, options) for name in models}
    device = torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} CPU cores"
    result = {
        "bench": "embed",
        **{key: found[headline][key] for key in ("ours", "peer", "ratio", "floor")},
        "bar": GPU_GOALS.get(headline) if cuda else 1.0,
        "ok": all(passed(name, figures) for name, figures in found.items()),
        "device": device,
        "unit": "pairs/s",
        "models": found,
    }
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
