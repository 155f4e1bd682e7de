from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "embed"))
from clip_shards import save_clip

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small CLIP with random weights."""
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny")
