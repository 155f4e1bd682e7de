"""The model whose vectors an index holds, for queries that have no vector yet."""

from __future__ import annotations

from typing import Any

from curate.clip.vectors import STORED, fits
from curate.config.models import ModelSettings
from curate.errors import UserError


def settings_from(facts: dict[str, Any]) -> ModelSettings:
    """The settings of the model that ``model.json`` names; vectors that came ready say no precision."""
    ready = facts["weights"] == STORED
    return ModelSettings(
        model=facts["model"],
        pretrained=facts["pretrained"],
        precision="auto" if ready else facts["precision"],
        text_model=facts.get("text_model"),
    )


def load_fitting(settings: ModelSettings, facts: dict[str, Any], made: str) -> Any:
    """The model of some settings (``curate.clip.model.Clip``), when its vectors can be compared with others.

    Args:
        settings: which model, and where it runs.
        facts: ``checkpoint``, ``dim`` and ``text_weights`` of those vectors.
        made: what was made of them, for the message.

    Raises:
        UserError: it does not load, or it is another one.
    """
    from curate.clip.model import load

    clip = load(settings)
    texts = facts["checkpoint"] == STORED or clip.facts.get("text_weights") == facts.get("text_weights")
    if not fits(clip.checkpoint, clip.dim, facts) or not texts:
        raise UserError(
            f"the weights of '{settings.model}' are not those that {made} with; "
            "run `curate embed` and `curate index` again"
        )
    return clip
