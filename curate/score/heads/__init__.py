"""Classifier heads on stored CLIP embeddings, loaded from the files as they were published."""

from curate.score.heads.head import Head
from curate.score.heads.load import load_head
from curate.score.heads.sidecar import head_from_sequential, save_head
from curate.score.heads.spaces import Space

__all__ = ["Head", "Space", "head_from_sequential", "load_head", "save_head"]
