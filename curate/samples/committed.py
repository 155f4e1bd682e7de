"""What the stages before a filter have committed, and which columns that gives."""

from __future__ import annotations

from collections.abc import Iterable

from curate.dataset import layout
from curate.dataset.family import Family, base_family, need_all_shards
from curate.dataset.records import RecordStore
from curate.dataset.selections import SUBSET
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError
from curate.samples.columns import Column, columns_of


class Committed:
    """The outputs of the stages of a workspace, read once each.

    Attributes:
        absent: stages that were asked about and have committed nothing, for messages.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.absent: list[str] = []
        self._records = RecordStore(workspace)
        self._outputs: dict[str, dict[str, FileRef]] = {}

    def of(self, stage: str) -> dict[str, FileRef]:
        """Path → ref of a stage's outputs."""
        if stage not in self._outputs:
            self._outputs[stage] = self._records.outputs(stage)
        return self._outputs[stage]

    def shards(self) -> list[str]:
        """Names of the shards of the pool, in order.

        Raises:
            UserError: only a part of them is there.
        """
        base = base_family(self.workspace)
        found = base.by_shard(self.of(base.stage))
        need_all_shards(self.workspace, base, found)
        return list(found)

    def columns(self, shard: str, models: tuple[str, ...], scorers: tuple[str, ...]) -> dict[str, Column]:
        """The columns of all families that are there; the stages of the others go to ``absent``."""
        have_models = [m for m in models if self._has(Family.embeddings(m))]
        have_scorers = [s for s in scorers if self._has(Family.scores(s))]
        columns = columns_of(self.workspace, shard, have_models, have_scorers)
        if models and have_models[:1] != [models[0]]:
            columns.pop("similarity", None)  # it is the first model's or nobody's
        return columns

    def _has(self, family: Family) -> bool:
        if family.stage in self._outputs or self._records.has_outputs(family.stage):
            return True
        self.absent.append(family.stage)
        return False

    def ref(self, stage: str, path: str, asking: str) -> FileRef:
        """One committed file.

        Args:
            asking: the stage that needs it, for messages.

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
