"""A loaded CLIP: what it is, and images and texts to unit vectors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import normalize

from curate.clip.batches import pieces
from curate.clip.pixels import Preparation, Prepared
from curate.clip.sources import Source, checkpoint_digest, resolve
from curate.clip.text import CausalText, Encoder, SentenceText, Tokens, causal_text
from curate.clip.vectors import Vectors
from curate.config.models import ModelSettings
from curate.errors import DataError, UserError

log = logging.getLogger(__name__)

_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
_PURE = {"pure_fp16": torch.float16, "pure_bf16": torch.bfloat16}

_BATCH_SIZE = {"cuda": 256, "cpu": 64}

_launching = threading.RLock()
"""One batch at a time is put on a device's queue; waiting for it is done outside."""


@dataclass(frozen=True)
class Pending:
    """Vectors that a device may still be working on.

    Attributes:
        parts: tensors of unit vectors in the host's memory, and how many of their rows count.
        done: the CUDA event behind them, None when they are there.
        again: computes them in full precision.
    """

    parts: Sequence[tuple[torch.Tensor, int]]
    done: Any
    again: Callable[[], Vectors]

    def result(self) -> Vectors:
        """Unit vectors, float32 (n, dim). What overflowed in half precision is done again in full."""
        if self.done is not None:
            self.done.synchronize()
        vectors: Vectors = np.concatenate([part.numpy()[:rows] for part, rows in self.parts])
        return vectors if np.isfinite(vectors).all() else self.again()


@dataclass(eq=False)
class Clip:
    """A CLIP on a device, with its own transform and tokenizer.

    Attributes:
        model: an open_clip model in eval mode.
        preparation: what its image tower takes.
        tokenizer: n texts → int64 tensor (n, context length).
        tokenizer_name: what ``open_clip.get_tokenizer`` takes, for other processes.
        device: where it runs.
        precision: fp32, the autocast type, or the type of the weights.
        facts: what ``model.json`` says, see ``facts_of``.
        batch_size: rows per forward pass; halved when the device runs out of memory.
        short_text: the text tower for less than a whole context, where it has one.
        sentence_text: the text tower of another model, instead of its own.
        compile: use ``torch.compile`` for whole batches.
    """

    model: Any
    preparation: Preparation
    tokenizer: Callable[[list[str]], torch.Tensor]
    tokenizer_name: str
    device: torch.device
    precision: str
    facts: dict[str, Any]
    batch_size: int
    short_text: CausalText | None = None
    sentence_text: SentenceText | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        self._compiled: dict[str, Encoder] = {}

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

    def prepare(self, image: Image.Image) -> Prepared:
        """RGB image → (height, width, 3), see ``Preparation``."""
        return self.preparation.prepare(image)

    def encode_images(self, batch: npt.NDArray[Any]) -> Vectors:
        """Prepared images (n, height, width, 3) → unit vectors, float32 (n, dim)."""
        return self.start_images(batch).result()

    def start_images(self, batch: npt.NDArray[Any]) -> Pending:
        """``encode_images`` without waiting; the batch must stay as it is until the result is there."""
        return self._start("image", self._image, batch)

    def start_tokens(self, tokens: Tokens) -> Pending:
        """Tokens (n, length) → unit vectors; less than a context only where there is ``short_text``."""
        return self._start("text", self._text if self.short_text is None else self.short_text, tokens)

    def ends(self, tokens: Tokens) -> npt.NDArray[np.int64]:
        """Index of the last token that counts, (n,): the last one where the tower is not causal."""
        if self.short_text is None:
            return np.full(len(tokens), tokens.shape[1] - 1, np.int64)
        return self.short_text.ends(torch.from_numpy(tokens)).numpy()

    def encode_captions(self, texts: Sequence[str], precision: str | None = None) -> Vectors:
        """One batch of texts → unit vectors, float32 (n, dim), by whichever tower is for texts."""
        with _launching:
            if self.sentence_text is None:
                tokens = self.tokenizer(list(texts)).to(self.device)
                out = self._forward(self._text, tokens, precision or self.precision)
            else:
                out = self._forward(self.sentence_text.encode, texts, precision or self.precision)
            return self._checked(out.cpu().numpy())

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Vectors:
        """Texts → unit vectors, float32 (n, dim), in full precision whatever the device.

        For prompts and queries: few texts, whose vectors must not depend on where they are made.
        """
        starts = range(0, len(texts), batch_size)
        parts = [self.encode_captions(texts[i : i + batch_size], "fp32") for i in starts]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def _image(self, batch: torch.Tensor) -> torch.Tensor:
        pixels = self.preparation.normalised(batch)
        return self.model.encode_image(pixels.to(_weights_type(self.model)))  # type: ignore[no-any-return]

    def _text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.encode_text(tokens)  # type: ignore[no-any-return]

    def _start(self, kind: str, encode: Encoder, batch: npt.NDArray[Any]) -> Pending:
        with _launching:
            parts = list(self._launch(kind, encode, batch, self.precision))
            done = None
            if self.device.type == "cuda":
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record()
        return Pending(parts, done, lambda: self._again(kind, encode, batch))

    def _again(self, kind: str, encode: Encoder, batch: npt.NDArray[Any]) -> Vectors:
        with _launching:
            parts = list(self._launch(kind, encode, batch, "fp32"))
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return self._checked(np.concatenate([part.numpy()[:rows] for part, rows in parts]))

    def _launch(
        self, kind: str, encode: Encoder, batch: npt.NDArray[Any], how: str
    ) -> Iterator[tuple[torch.Tensor, int]]:
        """All rows in forward passes of few shapes; smaller ones from where memory ran out."""
        at = 0
        while at < len(batch):
            rest, size = batch[at:], self.batch_size
            try:
                for start, stop, rows in pieces(len(rest), size):
                    run = self._fast(kind, encode) if rows == size and how == self.precision else encode
                    part = self._forward(run, self._moved(rest[start:stop], rows), how)
                    yield part.to("cpu", non_blocking=self.device.type == "cuda"), stop - start
                    at += stop - start
            except torch.OutOfMemoryError:
                if size == 1:
                    raise UserError(
                        f"embed.models: not enough memory on {self.device} for one sample of "
                        f"'{self.facts['model']}'"
                    ) from None
                self.batch_size = size // 2
                log.warning("out of memory on %s: going on with batches of %d", self.device, self.batch_size)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _moved(self, rows: npt.NDArray[Any], fill_to: int) -> torch.Tensor:
        """Rows on the device, the last one repeated up to a number of rows."""
        if len(rows) < fill_to:
            rows = np.concatenate([rows, np.repeat(rows[-1:], fill_to - len(rows), axis=0)])
        return torch.from_numpy(rows).to(self.device, non_blocking=True)

    def _forward(self, encode: Callable[[Any], torch.Tensor], batch: Any, how: str) -> torch.Tensor:
        cast: AbstractContextManager[Any] = nullcontext()
        if how in _AUTOCAST:
            cast = torch.autocast(self.device.type, dtype=_AUTOCAST[how])
        elif how == "fp32" and self.precision in _PURE:
            cast = _in_full(self.model, _PURE[self.precision])
        with cast, torch.inference_mode():
            features = encode(batch)
        with torch.inference_mode():
            return normalize(features.float(), dim=-1)

    def _fast(self, kind: str, encode: Encoder) -> Encoder:
        """The compiled form, which leaves itself out the first time it fails."""
        if not self.compile:
            return encode

        def run(batch: torch.Tensor) -> torch.Tensor:
            if not self.compile:
                return encode(batch)
            try:
                if kind not in self._compiled:
                    self._compiled[kind] = torch.compile(encode, dynamic=False)
                return self._compiled[kind](batch)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - compilers fail in their own many ways
                log.warning("torch.compile does not work here, going on without: %s", _first_line(error))
                self.compile = False
                return encode(batch)

        return run

    def _checked(self, vectors: Vectors) -> Vectors:
        if vectors.shape[1] != self.dim:
            raise UserError(
                f"embed.models: text_model '{self.facts['text_model']}' makes vectors of {vectors.shape[1]} "
                f"dimensions; the images of '{self.facts['model']}' have {self.dim}"
            )
        if not np.isfinite(vectors).all():
            raise DataError(f"model '{self.facts['model']}' makes vectors that are not finite")
        return vectors


def _weights_type(model: Any) -> torch.dtype:
    return next(p.dtype for p in model.visual.parameters() if p.is_floating_point())  # type: ignore[no-any-return]


@contextlib.contextmanager
def _in_full(model: Any, usual: torch.dtype) -> Iterator[None]:
    """Weights in float32 for the moment; there and back loses nothing."""
    model.float()
    try:
        yield
    finally:
        model.to(usual)


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
    key = json.dumps([settings.facts(), str(device), settings.batch_size, settings.compile], sort_keys=True)
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
    model: Any, settings: ModelSettings, source: Source, checkpoint: str, tokenizer: Any, exact: bool
) -> dict[str, Any]:
    """What has to be known to make the same vectors again; plain JSON values, no paths of caches."""
    import open_clip

    preprocess = {k: v for k, v in model.visual.preprocess_cfg.items() if k != "mode"}
    tokens = tokenizer([""])
    return {
        "model": settings.model,
        "pretrained": settings.pretrained,
        "precision": settings.precision,
        "modalities": list(settings.modalities),
        "dim": _dim(model, tokens),
        "context_length": int(tokens.shape[1]),
        "logit_scale": float(np.float32(model.logit_scale.detach().exp().cpu().item())),
        "preprocess": json.loads(json.dumps(preprocess)),
        "preparation": "exact" if exact else "fast",
        "quick_gelu": source.quick_gelu or _uses_quick_gelu(model),
        "weights": state_digest(model.state_dict()),
        "checkpoint": checkpoint,
        "open_clip": open_clip.__version__,
    }


def _build(settings: ModelSettings, source: Source, device: torch.device, checkpoint: str) -> Clip:
    import open_clip

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
    preparation = Preparation.of(model.visual.preprocess_cfg, settings.preprocess == "exact")
    facts = facts_of(model, settings, source, checkpoint, tokenizer, preparation.exact)
    short = causal_text(model, tokenizer)
    sentence = None
    if settings.text_model is not None:
        sentence = SentenceText(settings.text_model, device)
        facts.update(text_model=settings.text_model, text_weights=state_digest(sentence.state))
    precision = settings.precision
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if source.quick_gelu:
        log.info("%s %s: with QuickGELU, as these weights were trained", settings.model, settings.pretrained)
    model = model.to(device, _PURE.get(precision, torch.float32))
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    return Clip(
        model,
        preparation,
        tokenizer,
        source.name,
        device,
        precision,
        facts,
        settings.batch_size or _BATCH_SIZE[device.type],
        short,
        sentence,
        settings.compile,
    )


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
