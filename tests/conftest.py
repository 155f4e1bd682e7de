from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# No test may fail because a machine is slow.
settings.register_profile("curate", deadline=None)
settings.load_profile("curate")

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Real inputs that lie beside a maintainer's checkout; a user's clone has not got them."""
    if not (FIXTURES / "MANIFEST.md").is_file():
        pytest.skip(f"no fixtures at {FIXTURES}: this test needs the maintainers' real inputs")
    return FIXTURES
