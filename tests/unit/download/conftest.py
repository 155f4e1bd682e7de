from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.download.web import Site


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.stop()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once."""
    monkeypatch.setattr("curate.download.fetch.MAX_PAUSE", 0.0)
