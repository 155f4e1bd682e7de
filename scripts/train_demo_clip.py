"""Train the small CLIP that the demo and the tests run on; write it to ``curate/demo/clip``.

    python scripts/train_demo_clip.py

Everything comes from seeds: pictures and captions of ``curate.demo``, drawn under keys that no demo
world uses, so the demo is held-out data. Uses two processes to draw the pictures and one thread to
train; about half an hour on two cores. Prints the held-out figures as the last line, as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import random
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from curate.demo import captions
from curate.demo.pictures import encode, render, size_of
from curate.demo.scene import draw_scene

SIDE = 64
CONTEXT = 32
TEXTS = 6
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}
PREPROCESS_CFG = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
TRAIN_SEED = 770_000
HELD_OUT_SEEDS = (880_001, 880_002)
WATERMARK_PROMPTS = (
    ["a stock photo with a watermark", "watermarked stock photo", "a photo with a watermark across it"],
    ["a photo", "a picture without text", "a clean photo"],
)
UNSAFE_PROMPTS = (
    ["unsafe stand-in content", "a photo with an unsafe stand-in emblem", "unsafe stand-in"],
    ["a photo", "a harmless picture", "a clean photo"],
)


def shrink(picture: Image.Image) -> Image.Image:
    """What ``open_clip.image_transform`` does for this model: shortest side bicubic, centre crop."""
    scale = SIDE / min(picture.size)
    width, height = (max(SIDE, round(v * scale)) for v in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return picture.crop((left, top, left + SIDE, top + SIDE))


def draw_one(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture ``index`` of the training bank, uint8 (3, SIDE, SIDE), and its tokenised captions."""
    rng = random.Random(f"train/{TRAIN_SEED}/{index}")
    key = f"{TRAIN_SEED}/{index}"
    scene = draw_scene(key, watermark=rng.random() < 0.18, unsafe=rng.random() < 0.10)
    coded = encode(render(scene, size_of(key)), "jpeg", rng.randint(55, 95))
    picture = Image.open(io.BytesIO(coded)).convert("RGB")
    if rng.random() < 0.5:  # pipelines shrink pictures before they store them
        picture.thumbnail((256, 256), Image.Resampling.BICUBIC)
    texts = [captions.caption(scene, rng, explicit=0.6) for _ in range(TEXTS)]
    return np.asarray(shrink(picture)).transpose(2, 0, 1), tokens(texts)


def tokens(texts: list[str]) -> np.ndarray:
    out: np.ndarray = _tokenizer()(texts).numpy().astype(np.int32)
    return out


_TOKENIZER: list[open_clip.SimpleTokenizer] = []


def _tokenizer() -> open_clip.SimpleTokenizer:
    if not _TOKENIZER:
        _TOKENIZER.append(open_clip.SimpleTokenizer(context_length=CONTEXT))
    return _TOKENIZER[0]


def bank(count: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """``count`` training pictures and their captions; kept in ``cache`` between runs of the same code."""
    demo = Path(captions.__file__).parent
    code = b"".join((demo / name).read_bytes() for name in ("scene.py", "sprites.py", "pictures.py", "captions.py"))
    digest = hashlib.sha256(code + Path(__file__).read_bytes().partition(b"def bank")[0]).hexdigest()[:12]
    folder = cache / f"{digest}-{count}"
    if not (folder / "texts.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pictures = np.lib.format.open_memmap(
            folder / "pictures.npy", mode="w+", dtype=np.uint8, shape=(count, 3, SIDE, SIDE)
        )
        texts = np.zeros((count, TEXTS, CONTEXT), np.int32)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            for i, (pixels, coded) in enumerate(pool.imap(draw_one, range(count), chunksize=64)):
                pictures[i], texts[i] = pixels, coded
        pictures.flush()
        np.save(folder / "texts.npy", texts)
    return np.load(folder / "pictures.npy"), np.load(folder / "texts.npy")


def distractors(count: int) -> np.ndarray:
    """Texts that describe no picture: boilerplate, fragments and captions in other languages."""
    rng = random.Random(f"distractors/{TRAIN_SEED}")
    out = []
    for i in range(count):
        kind = rng.random()
        if kind < 0.6:
            out.append(captions.boilerplate(rng))
        elif kind < 0.75:
            out.append(captions.too_short(rng))
        else:
            out.append(captions.translate(draw_scene(f"d/{i}"), rng.choice(captions.LANGUAGES), rng))
    return tokens(out)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift by up to 3 pixels and change the light; no mirror, because captions say left and right."""
    padded = functional.pad(pixels.float(), (3, 3, 3, 3), mode="replicate")
    dx, dy = (int(v) for v in torch.randint(0, 7, (2,), generator=generator))
    shifted = padded[:, :, dy : dy + SIDE, dx : dx + SIDE]
    gain = 0.9 + 0.2 * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return (shifted * gain).clamp(0, 255)


def train(model: CLIP, pictures: np.ndarray, texts: np.ndarray, steps: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(TRAIN_SEED)
    noise = distractors(2000)
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1 or "embedding" in n]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    peak = 2e-3
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
    model.train()
    began, order, place = time.monotonic(), torch.randperm(len(pictures), generator=generator), 0
    running = 0.0
    for step in range(steps):
        if place + batch > len(order):
            order, place = torch.randperm(len(pictures), generator=generator), 0
        rows = np.sort(order[place : place + batch].numpy())
        place += batch
        rate = peak * min(1.0, (step + 1) / 150) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate + 1e-6
        which = torch.randint(TEXTS, (batch,), generator=generator).numpy()
        extra = noise[torch.randint(len(noise), (batch // 8,), generator=generator).numpy()]
        pixels = normalise(augment(torch.from_numpy(pictures[rows]), generator))
        coded = torch.from_numpy(np.concatenate([texts[rows, which], extra])).long()
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(coded, normalize=True)
        logits = model.logit_scale.exp() * image @ text.T
        labels = torch.arange(batch)
        loss = functional.cross_entropy(logits, labels) + functional.cross_entropy(logits[:, :batch].T, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(60))
        running = 0.97 * running + 0.03 * float(loss.detach())
        if step % 100 == 99:
            shown = running / 2 / (1 - 0.97 ** (step + 1))
            print(f"step {step + 1} loss {shown:.3f} {time.monotonic() - began:.0f} s", flush=True)
    forget_unused(model, np.concatenate([texts.reshape(-1, CONTEXT), noise]))


@torch.no_grad()
def forget_unused(model: CLIP, seen: np.ndarray) -> None:
    """Zero the embeddings of tokens that training never saw, so that unknown words say nothing."""
    used = torch.zeros(model.token_embedding.num_embeddings, dtype=torch.bool)
    used[torch.from_numpy(np.unique(seen)).long()] = True
    model.token_embedding.weight[~used] = 0


def save(model: CLIP, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_file(state, out / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative (ties count half), by ranks."""
    scores = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    high = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(high / (len(positive) * len(negative)))


def best_f1(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """The threshold of best F1, and that F1."""
    best = (0.0, 0.0)
    for threshold in np.arange(-0.2, 0.9, 0.005):
        hits, wrong = (positive >= threshold).sum(), (negative >= threshold).sum()
        f1 = 2 * hits / max(1, hits + wrong + len(positive))
        if f1 > best[1]:
            best = (float(threshold), float(f1))
    return best


def batched(items: list[Any], size: int) -> Iterable[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@torch.no_grad()
def evaluate(folder: Path, seeds: Iterable[int] = HELD_OUT_SEEDS, images: int = 2600) -> dict[str, float]:
    """Held-out figures, measured as a user would: worlds of other seeds, real bytes, open_clip's own loaders."""
    from curate.demo.world import World, WorldConfig

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()

    def prompts(texts: list[str]) -> torch.Tensor:
        vectors = model.encode_text(tokenizer(texts), normalize=True).mean(0)
        return functional.normalize(vectors, dim=0)

    heads = {
        "watermark": prompts(WATERMARK_PROMPTS[0]) - prompts(WATERMARK_PROMPTS[1]),
        "unsafe": prompts(UNSAFE_PROMPTS[0]) - prompts(UNSAFE_PROMPTS[1]),
    }
    scores: dict[str, list[float]] = {}
    for seed in seeds:
        world = World(WorldConfig(seed=seed, images=images))
        rows = [r for r in world.truth().to_pylist() if r["http_kind"] in ("ok", "redirect", "wrong_type")]
        for part in batched(rows, 256):
            pixels = [preprocess(Image.open(io.BytesIO(world.image_bytes(r["url"]))).convert("RGB")) for r in part]
            image = model.encode_image(torch.stack(pixels), normalize=True)
            text = model.encode_text(tokenizer([r["text"] for r in part]), normalize=True)
            cosine = (image * text).sum(1).tolist()
            for i, row in enumerate(part):
                scores.setdefault(f"alt/{row['alt_kind']}", []).append(cosine[i])
                for name, head in heads.items():
                    scores.setdefault(f"{name}/{row[name]}", []).append(float(image[i] @ head))
    got = {name: np.array(values) for name, values in scores.items()}
    match, mismatch = got["alt/match"], got["alt/mismatch"]
    junk = np.concatenate([mismatch, got["alt/boilerplate"], got["alt/too_short"]])
    threshold, f1 = best_f1(match, junk)
    figures = {
        "pairs": sum(len(v) for k, v in got.items() if k.startswith("alt/")),
        "auc_match_mismatch": auc(match, mismatch),
        "auc_match_junk": auc(match, junk),
        "auc_watermark": auc(got["watermark/True"], got["watermark/False"]),
        "auc_unsafe": auc(got["unsafe/True"], got["unsafe/False"]),
        "threshold": threshold,
        "f1": f1,
    }
    for name in ("watermark", "unsafe"):
        figures[f"threshold_{name}"], figures[f"f1_{name}"] = best_f1(got[f"{name}/True"], got[f"{name}/False"])
    for kind in ("match", "mismatch", "boilerplate", "too_short", "other_language"):
        figures[f"mean_{kind}"] = float(got[f"alt/{kind}"].mean())
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--out", type=Path, default=root / "curate" / "demo" / "clip")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/curate-demo-clip"))
    parser.add_argument("--pictures", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--evaluate-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(TRAIN_SEED)
    if not args.evaluate_only:
        pictures, texts = bank(args.pictures, args.cache)
        print(f"{len(pictures)} pictures drawn", flush=True)
        model = CLIP(**MODEL_CFG).to(memory_format=torch.channels_last)
        train(model, pictures, texts, args.steps, args.batch)
        save(model, args.out)
    figures = evaluate(args.out)
    (args.out / "README.md").write_text(card(figures, args))
    print(json.dumps(figures))


def card(figures: dict[str, float], args: argparse.Namespace) -> str:
    """The model card."""
    table = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    return f"""# The demo's CLIP
date {date.today()} {args.steps}
{table}
"""


if __name__ == "__main__":
    main()
