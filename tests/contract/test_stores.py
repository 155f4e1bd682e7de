"""The contract of a store, held against every store there is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from curate.dataset.stores.open import open_store
from curate.dataset.stores.protocol import Store
from curate.testing.stores import StoreContract
from tests.contract.s3 import S3


class TestLocalFolder(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(str(tmp_path), {})

    def test_a_lock_keeps_others_out(self, store: Store, opened: Callable[[], Store]) -> None:
        with store.lock("lock") as first, opened().lock("lock") as second:
            assert (first, second) == (True, False)
        with opened().lock("lock") as third:
            assert third


class TestFileUrl(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(f"file://{tmp_path}", {})


class TestMemory(StoreContract):
    @pytest.fixture
    def opened(self) -> Callable[[], Store]:
        name = uuid.uuid4().hex
        fsspec.filesystem("memory").makedirs(name)  # an empty folder is there only when it was made
        return lambda: open_store(f"memory://{name}", {})


class TestS3(StoreContract):
    @pytest.fixture
    def opened(self, s3: S3) -> Callable[[], Store]:
        url = s3.bucket(f"b-{uuid.uuid4().hex}")
        # Each a client of its own, as in another process.
        return lambda: open_store(url, {**s3.options, "skip_instance_cache": True})


class TestS3Prefix(TestS3):
    @pytest.fixture
    def opened(self, s3: S3) -> Callable[[], Store]:
        url = f"{s3.bucket(f'b-{uuid.uuid4().hex}')}/some/prefix"
        return lambda: open_store(url, {**s3.options, "skip_instance_cache": True})
