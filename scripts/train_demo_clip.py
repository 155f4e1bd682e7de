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
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from curate.demo.config import DELIVERED, WorldConfig
from curate.demo.model import CLIP_FOLDER, UNSAFE_PROMPTS, WATERMARK_PROMPTS
from curate.demo.pictures import encode, render, size_of
from curate.demo.scene import AGENCIES, COLOURS, OBJECTS, PATTERNS, WATERMARKS, Scene, draw_scene
from curate.demo.world import Resource, World

SIDE = 64
CONTEXT = 32
TEXTS = 5
HARD = 4
SOURCES = ("scene.py", "sprites.py", "textures.py", "overlays.py", "pictures.py", "captions.py")
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 12, "head_width": 64},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}
PREPROCESS_CFG = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
TRAIN_SEED = 770_001
HELD_OUT_SEEDS = (880_001, 880_002)


def shrink(picture: Image.Image) -> Image.Image:
    """What ``open_clip.image_transform`` does for this model: shortest side bicubic, centre crop."""
    scale = SIDE / min(picture.size)
    width, height = (max(SIDE, round(v * scale)) for v in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return picture.crop((left, top, left + SIDE, top + SIDE))


def scene_of(index: int, rng: random.Random) -> Scene:
    """Scene ``index`` of the training bank: more marks and emblems than a demo world has."""
    return draw_scene(f"{TRAIN_SEED}/{index}", watermark=rng.random() < 0.30, unsafe=rng.random() < 0.10)


def draw_picture(index: int) -> np.ndarray:
    """Picture ``index`` of the training bank, uint8 (3, SIDE, SIDE)."""
    rng = random.Random(f"train/{TRAIN_SEED}/{index}")
    scene = scene_of(index, rng)
    coded = encode(render(scene, size_of(scene.look)), "jpeg", rng.randint(55, 95))
    picture = Image.open(io.BytesIO(coded)).convert("RGB")
    if rng.random() < 0.5:  # pipelines shrink pictures before they store them
        picture.thumbnail((256, 256), Image.Resampling.BICUBIC)
    return np.asarray(shrink(picture)).transpose(2, 0, 1)


def draw_texts(index: int) -> np.ndarray:
    """Tokens of TEXTS true captions of picture ``index`` and of HARD captions that are wrong in one point."""
    scene = scene_of(index, random.Random(f"train/{TRAIN_SEED}/{index}"))
    rng = random.Random(f"texts/{TRAIN_SEED}/{index}")
    true = [captions.caption(scene, rng, explicit=0.9) for _ in range(TEXTS)]
    wrong = []
    for _ in range(HARD):
        what = rng.choices(
            ("shape", "colour", "count", "pattern", "watermark", "unsafe"), (36, 8, 8, 6, 32, 10)
        )[0]
        wrong.append(captions.caption(one_wrong(scene, what, rng), rng, explicit=1.0))
    return tokens(true + wrong)


def one_wrong(scene: Scene, what: str, rng: random.Random) -> Scene:
    """The scene with one thing changed that captions tell.

    A mark or an emblem can only be added: a caption that leaves one out is still true, so where there is
    one already, the shape is changed instead.
    """
    if what == "watermark" and scene.watermark is None:
        return replace(scene, watermark=rng.choice(WATERMARKS), agency=rng.choice(AGENCIES))
    if what == "unsafe" and not scene.unsafe:
        return replace(scene, unsafe=True)
    group = scene.groups[0]
    if what == "colour":
        group = replace(group, colour=rng.choice([c for c in COLOURS if c not in scene.colours]))
    elif what == "count":
        group = replace(group, count=rng.choice([n for n in (1, 2, 3, 4) if n != group.count]))
    elif what == "pattern":
        group = replace(group, pattern=rng.choice([p for p in PATTERNS if p not in ("solid", group.pattern)]))
    else:
        group = replace(group, shape=rng.choice([s for s in OBJECTS if s not in scene.shapes]))
    return replace(scene, groups=(group, *scene.groups[1:]))


def tokens(texts: list[str]) -> np.ndarray:
    out: np.ndarray = _tokenizer()(texts).numpy().astype(np.int32)
    return out


_TOKENIZER: list[open_clip.SimpleTokenizer] = []


def _tokenizer() -> open_clip.SimpleTokenizer:
    if not _TOKENIZER:
        _TOKENIZER.append(open_clip.SimpleTokenizer(context_length=CONTEXT))
    return _TOKENIZER[0]


def bank(count: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """``count`` training pictures, kept in ``cache`` between runs of the same code, and their texts."""
    demo = Path(captions.__file__).parent
    digest = hashlib.sha256(b"".join((demo / name).read_bytes() for name in SOURCES)).hexdigest()[:12]
    path = cache / f"{digest}-{TRAIN_SEED}-{SIDE}-{count}.npy"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            pictures = np.zeros((count, 3, SIDE, SIDE), np.uint8)
            for i, pixels in enumerate(pool.imap(draw_picture, range(count), chunksize=64)):
                pictures[i] = pixels
            np.save(path.with_suffix(".part.npy"), pictures)
            path.with_suffix(".part.npy").rename(path)
        texts = np.zeros((count, TEXTS + HARD, CONTEXT), np.int32)
        for i, coded in enumerate(pool.imap(draw_texts, range(count), chunksize=64)):
            texts[i] = coded
    return np.load(path), texts


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


def train(pictures: np.ndarray, texts: np.ndarray, steps: int, batch: int, out: Path) -> None:
    """Train on image-text pairs with in-batch negatives, hard negatives and texts that describe nothing.

    The model in training knows only the tokens that occur, which saves a fifth of the time; ``save``
    spreads them over CLIP's whole vocabulary.
    """
    noise = distractors(2000)
    used, compact = np.unique(np.concatenate([texts.reshape(-1, CONTEXT), noise]), return_inverse=True)
    compact = compact.reshape(-1, CONTEXT)  # order is kept, so the end token is still the highest
    texts, noise = compact[: -len(noise)].reshape(texts.shape), compact[-len(noise) :]
    config = {**MODEL_CFG, "text_cfg": {**MODEL_CFG["text_cfg"], "vocab_size": len(used)}}
    model = CLIP(**config).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(TRAIN_SEED)
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1 or "embedding" in n]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    peak = 2e-3
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
    model.train()
    began, order, place = time.monotonic(), torch.randperm(len(pictures), generator=generator), 0
    running = 0.0
    labels = torch.arange(batch)
    for step in range(steps):
        if place + batch > len(order):
            order, place = torch.randperm(len(pictures), generator=generator), 0
        rows = np.sort(order[place : place + batch].numpy())
        place += batch
        rate = peak * min(1.0, (step + 1) / 150) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate + 1e-6
        true = texts[rows, torch.randint(TEXTS, (batch,), generator=generator).numpy()]
        hard = texts[rows, TEXTS + torch.randint(HARD, (batch,), generator=generator).numpy()]
        extra = noise[torch.randint(len(noise), (batch // 8,), generator=generator).numpy()]
        pixels = normalise(augment(torch.from_numpy(pictures[rows]), generator))
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(torch.from_numpy(np.concatenate([true, hard, extra])).long(), normalize=True)
        logits = model.logit_scale.exp() * image @ text.T
        loss = functional.cross_entropy(logits, labels)
        loss = (loss + functional.cross_entropy(logits[:, :batch].T, labels)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(60))
        running = 0.97 * running + 0.03 * float(loss.detach())
        if step % 100 == 99:
            shown = running / (1 - 0.97 ** (step + 1))
            print(f"step {step + 1} loss {shown:.3f} {time.monotonic() - began:.0f} s", flush=True)
            save(model, used, out)
    save(model, used, out)


def save(model: CLIP, used: np.ndarray, out: Path) -> None:
    """Write the model in float16; tokens that training never saw get zeros, so that they say nothing."""
    out.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    known = state["token_embedding.weight"]
    table = torch.zeros(MODEL_CFG["text_cfg"]["vocab_size"], known.shape[1], dtype=known.dtype)
    table[torch.from_numpy(used).long()] = known
    state["token_embedding.weight"] = table
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


def resource_of(world: World, url: str) -> Resource:
    found = world.find(url)
    assert found is not None, url
    return found


def batched(items: list[Any], size: int) -> Iterable[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@torch.no_grad()
def evaluate(folder: Path, seeds: Iterable[int] = HELD_OUT_SEEDS, images: int = 2600) -> dict[str, float]:
    """Held-out figures, measured as a user would: worlds of other seeds, real bytes, open_clip's loaders."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()

    def prompts(texts: Sequence[str]) -> torch.Tensor:
        vectors = model.encode_text(tokenizer(list(texts)), normalize=True)
        return vectors.mean(0)

    heads = {
        "watermark": prompts(WATERMARK_PROMPTS[0]) - prompts(WATERMARK_PROMPTS[1]),
        "unsafe": prompts(UNSAFE_PROMPTS[0]) - prompts(UNSAFE_PROMPTS[1]),
    }
    scores: dict[str, list[float]] = {}
    for seed in seeds:
        world = World(WorldConfig(seed=seed, images=images))
        rows = [r for r in world.truth().to_pylist() if r["http_kind"] in DELIVERED]
        for part in batched(rows, 256):
            pixels = [
                preprocess(Image.open(io.BytesIO(world.image_bytes(r["url"]))).convert("RGB")) for r in part
            ]
            image = model.encode_image(torch.stack(pixels), normalize=True)
            text = model.encode_text(tokenizer([r["text"] for r in part]), normalize=True)
            cosine = (image * text).sum(1).tolist()
            for i, row in enumerate(part):
                scores.setdefault(f"alt/{row['alt_kind']}", []).append(cosine[i])
                for name, head in heads.items():
                    scores.setdefault(f"{name}/{row[name]}", []).append(float(image[i] @ head))
            scenes = [world.scene(resource_of(world, r["url"]).content) for r in part]
            for wrong in ("colour", "shape", "count"):
                rng = random.Random(f"{wrong}/{seed}")
                texts = [captions.caption(one_wrong(scene, wrong, rng), rng) for scene in scenes]
                text = model.encode_text(tokenizer(texts), normalize=True)
                scores.setdefault(f"wrong/{wrong}", []).extend((image * text).sum(1).tolist())
    got = {name: np.array(values) for name, values in scores.items()}
    match, mismatch = got["alt/match"], got["alt/mismatch"]
    junk = np.concatenate([mismatch, got["alt/boilerplate"], got["alt/too_short"]])
    threshold, f1 = best_f1(match, junk)
    figures = {
        "pairs": sum(len(v) for k, v in got.items() if k.startswith("alt/")),
        "auc_match_mismatch": auc(match, mismatch),
        "auc_match_junk": auc(match, junk),
        "auc_match_one_colour_wrong": auc(match, got["wrong/colour"]),
        "auc_match_one_shape_wrong": auc(match, got["wrong/shape"]),
        "auc_match_one_count_wrong": auc(match, got["wrong/count"]),
        "auc_watermark": auc(got["watermark/True"], got["watermark/False"]),
        "auc_unsafe": auc(got["unsafe/True"], got["unsafe/False"]),
        "threshold": threshold,
        "f1": f1,
    }
    for name in ("watermark", "unsafe"):
        figures[f"threshold_{name}"], figures[f"f1_{name}"] = best_f1(
            got[f"{name}/True"], got[f"{name}/False"]
        )
    for kind in ("match", "mismatch", "boilerplate", "too_short", "other_language"):
        figures[f"mean_{kind}"] = float(got[f"alt/{kind}"].mean())
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=CLIP_FOLDER)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/curate-demo-clip"))
    parser.add_argument("--pictures", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--evaluate-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(TRAIN_SEED)
    if not args.evaluate_only:
        pictures, texts = bank(args.pictures, args.cache)
        print(f"{len(pictures)} pictures drawn", flush=True)
        train(pictures, texts, args.steps, args.batch, args.out)
    figures = evaluate(args.out)
    (args.out / "README.md").write_text(card(figures, args))
    print(json.dumps(figures))


def card(figures: dict[str, float], args: argparse.Namespace) -> str:
    """The model card."""
    table = "\n".join(f"| {name} | {value:g} |" for name, value in figures.items())
    vision, text = MODEL_CFG["vision_cfg"], MODEL_CFG["text_cfg"]
    return f"""# The demo's CLIP

A CLIP of a few megabytes that knows one small world: the drawn pictures of `curate.demo`. It exists so
that the demo and the tests of curate run a real model on a laptop without a download. It knows nothing
about photographs and must not be used on real data.

- Architecture: open_clip's `CLIP`; a ModifiedResNet of width {vision["width"]}, layers
  {vision["layers"]}, at {SIDE} x {SIDE} pixels; a text transformer of {text["layers"]} layers, width
  {text["width"]}, {CONTEXT} tokens, CLIP's own vocabulary of {text["vocab_size"]:,}; joint space of
  {MODEL_CFG["embed_dim"]} dimensions.
- Files: `open_clip_config.json` and `open_clip_model.safetensors` (float16). Load with
  `open_clip.create_model_from_pretrained("local-dir:<this folder>")`.
- Data: {args.pictures:,} pictures drawn by `curate.demo` under keys of seed {TRAIN_SEED}; for each {TEXTS}
  true English captions and {HARD} that are wrong in one point (hard negatives); texts that describe
  nothing (boilerplate, fragments, other languages) as further negatives. No picture or text by anybody
  else. Embeddings of tokens that training never saw are zero.
- Training: {args.steps:,} steps of {args.batch} pairs, contrastive loss, AdamW, one CPU thread. Again, in
  about half an hour on two cores: `python scripts/train_demo_clip.py`.
- "Unsafe" is a harmless emblem that says UNSAFE STAND-IN; there is no unsafe content in the training
  data.
- Made: {date.today().isoformat()}. Licence: Apache-2.0.

## Held-out figures

Measured on demo worlds of seeds {", ".join(map(str, HELD_OUT_SEEDS))}: real image bytes, open_clip's own
loading and preprocessing. `auc_*` is the chance that a random positive scores above a random negative.
*Junk* is mismatched alt texts, boilerplate and fragments together; *one colour (shape, count) wrong* is a
caption of the very picture in which just that is changed. Thresholds are those of best F1: `threshold` on
the cosine of image and text, the other two on the difference of mean similarities to the positive and to
the negative prompts. Captions in other languages are true and still score low: the model reads English
only.

| figure | value |
|---|---|
{table}

The zero-shot prompts are `WATERMARK_PROMPTS` and `UNSAFE_PROMPTS` of `curate.demo.model`, for example
{WATERMARK_PROMPTS[0][0]!r} against {WATERMARK_PROMPTS[1][0]!r} and
{UNSAFE_PROMPTS[0][0]!r} against {UNSAFE_PROMPTS[1][0]!r}.
"""


if __name__ == "__main__":
    main()
