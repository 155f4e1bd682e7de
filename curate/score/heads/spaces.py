"""Which CLIP made the vectors that a head was trained on, and whether stored vectors are of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Space:
    """One model's embeddings: the same architecture with other weights is another space.

    Attributes:
        model: open_clip's name of the architecture.
        pretrained: its tag; None for a model that is named without one (a hub id).
        hubs: hub ids of the same weights.
    """

    model: str
    pretrained: str | None
    hubs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.model} ({self.pretrained})" if self.pretrained else self.model

    def made(self, facts: Mapping[str, Any]) -> bool:
        """Whether ``model.json`` names these weights. Local copies cannot be told by their name."""
        model, tag = _plain(str(facts["model"])), facts.get("pretrained")
        if model in {_plain(hub) for hub in self.hubs}:
            return True
        same_tag = (None if tag is None else _tag(str(tag))) == (self.pretrained and _tag(self.pretrained))
        return model == _plain(self.model) and same_tag


def _plain(model: str) -> str:
    """Spellings of one architecture; QuickGELU is set by the weights' tag, not by the name."""
    name = model.casefold()
    return name if ":" in name else name.replace("/", "-").removesuffix("-quickgelu")


def _tag(tag: str) -> str:
    return tag.casefold().replace("-", "_")


OPENAI_B32 = Space("ViT-B-32", "openai", ("hf-hub:timm/vit_base_patch32_clip_224.openai",))
OPENAI_B16 = Space("ViT-B-16", "openai", ("hf-hub:timm/vit_base_patch16_clip_224.openai",))
OPENAI_L14 = Space("ViT-L-14", "openai", ("hf-hub:timm/vit_large_patch14_clip_224.openai",))
LAION_H14 = Space("ViT-H-14", "laion2b_s32b_b79k", ("hf-hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K",))
