"""What the stages before a filter have committed, and which columns that gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.samples import BASES, Column, base_family, columns_of, files_by_shard
from curate.dataset.selections import SUBSET
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError
from curate.rules.digests import with_digest


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """What decides the bytes of a selection, as JSON values: also the digests of the files that rules name.

    Raises:
        UserError: such a file is missing, or not the one whose digest the rule has.
    """
    facts = experiment.facts()
    if facts["frozen"] is None:
        del facts["frozen"]
    rules = {name: with_digest(name, facts["rules"][name], rule) for name, rule in experiment.rules.items()}
    # The order of the rules decides reasons; mappings lose theirs in a fingerprint.
    return {**facts, "rules": rules, "order": list(rules)}


class Families:
    """What the stages before have committed."""

    def __init__(self, store: RecordStore) -> None:
        self.store = store
        self.absent: list[str] = []
        self._outputs: dict[str, dict[str, FileRef]] = {}

    def of(self, stage: str) -> dict[str, FileRef]:
        """Path → ref of a stage's outputs."""
        if stage not in self._outputs:
            self._outputs[stage] = self.store.outputs(stage)
        return self._outputs[stage]

    def shards(self) -> list[str]:
        """Names of the shards whose samples are known, in order."""
        base = base_family(self.store.workspace)
        return list(files_by_shard(base, self.of(BASES[base])))

    def columns(
        self, workspace: Workspace, shard: str, models: tuple[str, ...], scorers: tuple[str, ...]
    ) -> dict[str, Column]:
        """The columns of all families that are there; names those that are not in ``absent``."""
        have_models = [m for m in models if self._there(f"embed/{m}")]
        have_scorers = [s for s in scorers if self._there(f"score/{s}")]
        columns = columns_of(workspace, shard, have_models, have_scorers)
        if models and have_models[:1] != [models[0]]:
            columns.pop("similarity", None)
        return columns

    def _there(self, stage: str) -> bool:
        if stage in self._outputs or self.store.has_outputs(stage):
            return True
        self.absent.append(stage)
        return False

    def ref(self, stage: str, path: str, asking: str) -> FileRef:
        """One committed file.

        Raises:
            DataError: it is not there.
        """
        try:
            return self.of(stage)[path]
        except KeyError:
            raise DataError(f"{asking} needs {path}, which {stage} has not made; run {stage} first") from None

    def selections(self, experiments: Iterable[str], asking: str) -> list[FileRef]:
        """The files that say what some experiments kept. Raises DataError when one is not there."""
        return [
            self.ref(f"filter/{name}", layout.selection_file(name, file), asking)
            for name in sorted(set(experiments))
            for file in ("counts.parquet", SUBSET)
        ]
