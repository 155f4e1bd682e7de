"""A workspace on S3: killed at random moments, rerun once, and the bytes are those of a local run."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import s3fs

from tests.contract.s3 import S3, serve_s3
from tests.e2e.conftest import DATA_SUFFIXES, Web, fingerprints


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serve_s3() as server:
        yield server


def objects(s3: S3, url: str) -> dict[str, str]:
    """Digest of every data file of a workspace on S3; not records and logs."""
    fs = s3fs.S3FileSystem(**s3.options, skip_instance_cache=True, use_listings_cache=False)
    root = url.removeprefix("s3://")
    found = {}
    for path in fs.find(root):
        relative = str(path).removeprefix(f"{root}/")
        if relative.endswith(DATA_SUFFIXES) and not relative.startswith(".curate/"):
            found[relative] = hashlib.sha256(fs.cat_file(path)).hexdigest()
    return found


def test_killed_on_s3(web: Web, finished: Path, curate_command: list[str], s3: S3, tmp_path: Path) -> None:
    rng = random.Random(5)
    url = f"{s3.bucket('curate')}/some/folder"
    config = web.config(tmp_path)
    # Credentials come as most people have them: from the environment.
    environment = {**os.environ, **s3.environment}
    command = [*curate_command, "run", str(config), "-w", url]
    with (tmp_path / "log").open("wb") as log:
        for _ in range(2):
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                process.wait(rng.uniform(8.0, 25.0))
            except subprocess.TimeoutExpired:
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                process.wait()
                psutil.wait_procs(family, timeout=30)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert objects(s3, url) == fingerprints(finished)
    # A rerun of what is done does nothing, and says so.
    again = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "again" not in again.stderr
    assert again.stderr.count("done before") == done.stderr.count("✓")
    for verb in (["status"], ["verify", "--deep"], ["query", "SELECT count(*) FROM samples"]):
        looked = subprocess.run(
            [*curate_command, *verb, "-w", url], capture_output=True, text=True, env=environment, timeout=120
        )
        assert looked.returncode == 0, looked.stdout + looked.stderr
