"""Text towers: only as far as the texts go, or one of sentence-transformers.

CLIP pads every caption to 77 tokens and most are under 20. Where attention is causal and the vector is
read at the end-of-text token, nothing behind that token can change it, so a batch is run only as long
as its longest caption: the same numbers for a quarter of the work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curate.errors import UserError

Encoder = Callable[[torch.Tensor], torch.Tensor]
Tokens = npt.NDArray[np.int64]
"""Token ids (n, length), padded."""

LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192)
"""Lengths that captions are rounded up to: few shapes, little padding."""

log = logging.getLogger(__name__)

_PROBES = ("", "a dog", "two people on a beach")


class CausalText:
    """open_clip's causal text tower for token batches that are shorter than its context.

    The same layers in the same order as ``encode_text``; that method insists on whole contexts.
    """

    def __init__(self, tower: Any) -> None:
        self._tower = tower
        self._pooling = tower.text_pool_type if hasattr(tower, "text_pool_type") else tower.pool_type
        self._end = getattr(tower, "text_eos_id", None) or getattr(tower, "eos_id", None)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (n, length) → features (n, dim), not normalised."""
        tower, length = self._tower, tokens.shape[1]
        kind = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(kind) + tower.positional_embedding[:length].to(kind)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        x = tower.ln_final(x)
        x = x[torch.arange(len(x), device=x.device), self.ends(tokens)]
        project = tower.text_projection
        if project is not None:
            x = project(x) if isinstance(project, torch.nn.Linear) else x @ project
        out: torch.Tensor = x
        return out

    def ends(self, tokens: torch.Tensor) -> torch.Tensor:
        """Index of the end-of-text token, (n,): what comes behind it has no effect."""
        if self._pooling == "eos" and self._end is not None:
            return torch.eq(tokens, self._end).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)


def causal_text(model: Any, tokenizer: Callable[[list[str]], torch.Tensor]) -> CausalText | None:
    """The short way for a model, if it has one and it gives what the model itself gives."""
    tower = getattr(model, "text", model)
    wanted = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    if not all(hasattr(tower, name) for name in wanted) or getattr(tower, "attn_mask", None) is None:
        return None
    pooling = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    if pooling not in ("argmax", "eos") or getattr(tower, "cls_emb", None) is not None:
        return None
    if getattr(tower, "use_pad_mask", False):
        return None
    short = CausalText(tower)
    tokens = tokenizer(list(_PROBES))
    length = int(short.ends(tokens).max()) + 1
    with torch.inference_mode():
        expected, found = model.encode_text(tokens), short(tokens[:, :length])
    if not torch.allclose(expected, found, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        log.warning("this text tower is not as causal as it says; captions are run at full length")
        return None
    return short


def by_length(ends: npt.NDArray[np.int64], context: int) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Group rows by the length they have to be run at.

    Args:
        ends: index of each row's last token that counts, (n,).
        context: tokens of a whole row.

    Returns:
        (length, ascending rows) with every row once.
    """
    lengths = np.array([*(n for n in LENGTHS if n < context), context])
    group = np.searchsorted(lengths, ends + 1)
    return [(int(lengths[g]), np.flatnonzero(group == g)) for g in np.unique(group)]


class SentenceText:
    """A sentence-transformers model as text tower (``M-CLIP`` and the like)."""

    def __init__(self, name: str, device: torch.device) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise UserError(
                f"embed.models: text_model '{name}' needs the extra: pip install 'curate[multilingual]'"
            ) from None
        try:
            self._model = SentenceTransformer(name, device=str(device)).eval()
        except Exception as error:  # noqa: BLE001 - what the hub or a folder without a model raises
            raise UserError(f"embed.models: text_model '{name}' does not load: {error}") from None
        self._model.requires_grad_(False)

    @property
    def state(self) -> dict[str, Any]:
        """Weights by name."""
        return dict(self._model.state_dict())

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts → features (n, dim), not normalised."""
        return self._model.encode(
            list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True
        )
