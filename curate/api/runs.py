"""A run from Python: the same pipeline, without a console."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from curate.api.dataset import Dataset
from curate.config.loading import check, load_config
from curate.config.models import PipelineConfig
from curate.config.secrets import public_dump
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.errors import UserError
from curate.pipeline import build
from curate.verbs import VERBS


def open_dataset(url: str | Path, storage_options: Mapping[str, Any] | None = None) -> Dataset:
    """Open a workspace that a run has made.

    Args:
        url: a folder, or any URL that fsspec knows, such as ``s3://bucket/folder``.
        storage_options: of fsspec, for that URL.

    Raises:
        UserError: there is no workspace.
    """
    return Dataset(Workspace(str(url), dict(storage_options or {})))


def run(
    config: str | Path | Mapping[str, Any] | PipelineConfig,
    *,
    stages: Sequence[str] = tuple(VERBS),
    overrides: Iterable[str] = (),
    redo: Iterable[str] = (),
    progress: TextIO | None = None,
) -> Dataset:
    """Run a config, or some of its stages, and open what it made. What is done already is skipped.

    Processes are started for the work: in a script, call this below ``if __name__ == "__main__":``.

    Args:
        config: a YAML file, the name of a preset, its data, or a checked config.
        stages: verbs, such as ``("filter", "report")``.
        overrides: ``key.path=value``, as ``--set``; of a config that is a file or a preset.
        redo: verbs whose finished shards may be done again, as ``--redo``.
        progress: where progress is written; by default nowhere.

    Raises:
        UserError: something to fix before anything can go on; the message says what.
        BudgetExceededError: too much of a stage failed.
        IncompleteError: it ended with quarantined shards; everything else is committed.
    """
    for verb in {*stages, *redo}.difference(VERBS, {"all"}):
        raise UserError(f"run: no such verb: '{verb}' (verbs: {', '.join(VERBS)})")
    checked = _config(config, list(overrides))
    workspace = Workspace(checked.workspace, checked.storage_options)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - no path of anybody's
        console = Console(file=progress or nowhere)
        engine = Engine(workspace, checked.run, console, redo=frozenset(redo))
        engine.run(build(checked, tuple(v for v in VERBS if v in stages)), config_text=public_dump(checked))
    return Dataset(workspace)


def _config(config: str | Path | Mapping[str, Any] | PipelineConfig, overrides: list[str]) -> PipelineConfig:
    if isinstance(config, str | Path):
        return load_config(str(config), overrides)
    if overrides:
        raise UserError("run: overrides go with a file or a preset; change the data itself")
    return config if isinstance(config, PipelineConfig) else check(config)
