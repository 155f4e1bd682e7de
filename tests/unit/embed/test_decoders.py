from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from curate.clip.model import load
from curate.dataset.tars import image_spans
from curate.embed import decoders as module
from curate.embed.blocks import Blocks
from curate.embed.decoders import Decoders
from curate.embed.encoding import embed
from curate.errors import DataError
from tests.unit.embed.clip_shards import jpeg, samples, settings_of, tar_of


@pytest.fixture(scope="module")
def processes() -> Iterator[Decoders]:
    """What decodes beside a GPU, on the CPU."""
    pool = Decoders(module._processes(2), Blocks(shared=True, pinned=False), processes=True)
    yield pool
    pool.executor.shutdown(cancel_futures=True)


@pytest.fixture
def threads() -> Iterator[Decoders]:
    with ThreadPoolExecutor(2) as executor:
        yield Decoders(executor, Blocks(shared=False, pinned=False), processes=False)


def shard(folder: Path, count: int = 50) -> tuple[Path, dict[str, int], list[str]]:
    rows = samples(count)
    images = [(uid, b"broken" if i % 7 == 3 else jpeg(i, (40 + i, 48))) for i, (uid, _, _) in enumerate(rows)]
    path = folder / "00000.tar"
    path.write_bytes(tar_of(images))
    return path, {uid: i for i, (uid, _, _) in enumerate(rows)}, [text for _, text, _ in rows]


def test_processes_and_threads_give_the_same_bytes(
    tmp_path: Path, tiny: Path, processes: Decoders, threads: Decoders
) -> None:
    tar, uids, captions = shard(tmp_path)
    clip = load(settings_of(tiny))
    (one,), (two,) = (
        embed([(clip, ("image", "text"))], uids, captions, tar, p) for p in (processes, threads)
    )
    assert one.image is not None
    assert two.image is not None
    assert one.image.tobytes() == two.image.tobytes()
    assert one.reason.equals(two.reason)
    assert one.similarity.equals(two.similarity)
    assert set(np.flatnonzero(np.isnan(one.image[:, 0])).tolist()) == {i for i in range(50) if i % 7 == 3}


def test_blocks_are_used_again(tmp_path: Path, tiny: Path, processes: Decoders) -> None:
    tar, uids, captions = shard(tmp_path)
    clip = load(settings_of(tiny))

    def descriptors() -> int:
        embed([(clip, ("image",))], uids, captions, tar, processes)
        return len(list(Path("/proc/self/fd").iterdir()))

    assert descriptors() == descriptors() == descriptors()


def test_a_process_that_dies_fails_the_shard_and_not_the_next(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, uids, captions = shard(tmp_path)
    clip = load(settings_of(tiny))
    pool = Decoders(module._processes(1), Blocks(shared=True, pinned=False), processes=True)
    pool.tokenize(clip, ["a"]).result()
    (child,) = pool.executor._processes.values()  # type: ignore[attr-defined]
    os.kill(child.pid, signal.SIGKILL)
    monkeypatch.setattr(module, "_pools", {(True, 1): pool})
    for modality in ("image", "text", "image"):  # found out while waiting, then when handing out work
        with pytest.raises(DataError, match="process that decodes images died"):
            embed([(clip, (modality,))], uids, captions, tar, pool)
        assert module._pools == {}
    pool.executor.shutdown()


def test_decoding_processes_end_with_their_parent(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import os, sys, time\n"
        "from curate.embed import decoders as d\n"
        "if __name__ == '__main__':\n"
        "    pool = d._processes(2)\n"
        "    [f.result() for f in [pool.submit(time.sleep, 0.3) for _ in range(2)]]\n"
        "    print(*pool._processes, flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive


@pytest.mark.parametrize("daemon", [True, False])
def test_a_daemonic_worker_uses_threads(daemon: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing
    from types import SimpleNamespace

    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=daemon))
    assert module._may_have_processes() is not daemon


def test_spans_point_at_the_images(tmp_path: Path) -> None:
    tar, _, _ = shard(tmp_path)
    data = tar.read_bytes()
    found = list(image_spans(tar))
    assert len(found) == 50
    assert data[found[3][1] :][: found[3][2]] == b"broken"
    assert data[found[4][1] :][:2] == b"\xff\xd8"
