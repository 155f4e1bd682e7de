from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small CLIP with random weights."""
    from tests.unit.embed.clip_shards import save_clip

    return save_clip(tmp_path_factory.mktemp("clip") / "tiny")
