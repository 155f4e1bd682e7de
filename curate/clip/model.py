"""A loaded CLIP: what it is, and images and texts to unit vectors."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from curate.clip.sources import Source, checkpoint_digest, resolve
from curate.clip.vectors import Vectors
from curate.config.models import ModelSettings
from curate.errors import DataError, UserError

Encoder = Callable[[torch.Tensor], torch.Tensor]
log = logging.getLogger(__name__)

_DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Clip:
    """A CLIP on a device, with its own transform and tokenizer.

    Attributes:
        model: an open_clip model in eval mode, float32 weights.
        preprocess: the model's transform, RGB PIL image → float32 tensor (3, height, width).
        tokenizer: n texts → int64 tensor (n, context length).
        device: where it runs.
        precision: fp32, or the autocast type.
        facts: what ``model.json`` says, see ``facts_of``.
    """

    model: Any
    preprocess: Callable[[Any], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    device: torch.device
    precision: str
    facts: dict[str, Any]

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.facts["dim"])

    @property
    def checkpoint(self) -> str:
        """Digest of the files the model was loaded from."""
        return str(self.facts["checkpoint"])

    @property
    def logit_scale(self) -> float:
        """Factor between a cosine and a logit, learned in training (100 for OpenAI's models)."""
        return float(self.facts["logit_scale"])

    def encode_images(self, batch: torch.Tensor) -> Vectors:
        """Preprocessed images (n, 3, height, width) → unit vectors, float32 (n, dim)."""
        return self._finite(self.model.encode_image, batch, self.precision)

    def encode_tokens(self, tokens: torch.Tensor, precision: str | None = None) -> Vectors:
        """Tokens (n, context length) → unit vectors, float32 (n, dim)."""
        return self._finite(self.model.encode_text, tokens, precision or self.precision)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Vectors:
        """Texts → unit vectors, float32 (n, dim), in full precision whatever the device.

        For prompts and queries: few texts, whose vectors must not depend on where they are made.
        """
        parts = [
            self.encode_tokens(self.tokenizer(list(texts[i : i + batch_size])), "fp32")
            for i in range(0, len(texts), batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def _finite(self, encode: Encoder, batch: torch.Tensor, how: str) -> Vectors:
        """Encode; what overflows in half precision is done again in full."""
        on_device = batch.to(self.device, non_blocking=True)
        vectors = self._encode(encode, on_device, how)
        if how != "fp32" and not np.isfinite(vectors).all():
            vectors = self._encode(encode, on_device, "fp32")
        if not np.isfinite(vectors).all():
            raise DataError(f"model '{self.facts['model']}' makes vectors that are not finite")
        return vectors

    def _encode(self, encode: Encoder, batch: torch.Tensor, how: str) -> Vectors:
        dtype = _DTYPES[how]
        cast: AbstractContextManager[Any] = (
            torch.autocast(self.device.type, dtype=dtype) if dtype is not None else nullcontext()
        )
        with torch.inference_mode(), cast:
            features = encode(batch)
        with torch.inference_mode():
            out: Vectors = normalize(features.float(), dim=-1).cpu().numpy()
        return out


_loaded: dict[str, tuple[str, Clip]] = {}
_loading = threading.Lock()


def load(settings: ModelSettings) -> Clip:
    """The model that the settings name, built once per process and checkpoint.

    Torch is held to one thread: a worker process has one core, a sum over several threads rounds
    differently, and decoding threads would each bring their own team.

    Raises:
        UserError: no such model, no weights, weights that do not fit, or no such device.
    """
    source = resolve(settings)
    device = _device(settings.device)
    digest = checkpoint_digest(source)
    key = json.dumps([settings.facts(), str(device)], sort_keys=True)
    with _loading:
        cached = _loaded.get(key)
        if cached is None or cached[0] != digest:
            _loaded[key] = (digest, _build(settings, source, device, digest))
        torch.set_num_threads(1)
        return _loaded[key][1]


def state_digest(state: dict[str, Any]) -> str:
    """128-bit digest of tensors by name: the same weights in another file format give the same."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return hasher.hexdigest()


def facts_of(
    model: Any, settings: ModelSettings, source: Source, checkpoint: str, tokenizer: Any
) -> dict[str, Any]:
    """What has to be known to make the same vectors again; plain JSON values, no paths of caches."""
    import open_clip

    preprocess = {k: v for k, v in model.visual.preprocess_cfg.items() if k != "mode"}
    tokens = tokenizer([""])
    return {
        "model": settings.model,
        "pretrained": settings.pretrained,
        "precision": settings.precision,
        "dim": _dim(model, tokens),
        "context_length": int(tokens.shape[1]),
        "logit_scale": float(np.float32(model.logit_scale.detach().exp().cpu().item())),
        "preprocess": json.loads(json.dumps(preprocess)),
        "quick_gelu": source.quick_gelu or _uses_quick_gelu(model),
        "weights": state_digest(model.state_dict()),
        "checkpoint": checkpoint,
        "open_clip": open_clip.__version__,
    }


def _build(settings: ModelSettings, source: Source, device: torch.device, checkpoint: str) -> Clip:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    try:
        # On the CPU first: facts and digest are those of the file, whatever the device does to it.
        model = open_clip.create_model(
            source.name,
            pretrained=source.pretrained,
            precision="fp32",
            device="cpu",
            force_quick_gelu=source.quick_gelu,
            force_preprocess_cfg=source.preprocess or None,
            require_pretrained=True,
        )
        tokenizer = open_clip.get_tokenizer(source.name)
    except ImportError as error:
        raise UserError(
            f"embed.models: model '{settings.model}' needs a package that is missing: {error}"
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever torch makes of a file that is no checkpoint
        raise UserError(
            f"embed.models: {source.weights} does not fit model '{settings.model}': {_first_line(error)}"
        ) from None
    model.eval().requires_grad_(False)
    facts = facts_of(model, settings, source, checkpoint, tokenizer)
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    precision = settings.precision
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if source.quick_gelu:
        log.info("%s %s: with QuickGELU, as these weights were trained", settings.model, settings.pretrained)
    return Clip(model.to(device), transform, tokenizer, device, precision, facts)


def _dim(model: Any, tokens: torch.Tensor) -> int:
    with torch.inference_mode():
        return int(model.encode_text(tokens).shape[-1])


def _uses_quick_gelu(model: Any) -> bool:
    return any(type(module).__name__ == "QuickGELU" for module in model.modules())


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("embed.models: `device: cuda`, but torch finds no CUDA here; use `auto` or `cpu`")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__
