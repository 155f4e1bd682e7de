from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.s3 import S3, serve_s3


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with serve_s3() as server:
        yield server
