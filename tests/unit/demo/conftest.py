from __future__ import annotations

import pytest

from curate.demo.world import World, WorldConfig


@pytest.fixture(scope="session")
def small_world() -> World:
    return World(WorldConfig(seed=41, images=300))
