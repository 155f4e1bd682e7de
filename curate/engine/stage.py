"""The contract of a stage: which units there are, and how one is done.

A stage says which units it needs to do and does one unit as a function of files to files. It holds
only its settings and names, so that it pickles small and runs anywhere. Planning, retries, commit
records and progress are the engine's, the same for all stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from curate.dataset.workspace import FileRef, Workspace
from curate.samples.columns import PlannedColumns
from curate.verbs import verb_of


@dataclass(frozen=True)
class Unit:
    """One piece of work: usually a shard.

    Attributes:
        name: names the record and the outputs; units are listed in order of their names.
        inputs: the files it reads, as committed by the stages before.
        payload: small picklable facts the stage needs to do the unit; part of its key.
    """

    name: str
    inputs: tuple[FileRef, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a unit. ``rows_in == rows_out + sum(drops.values())``."""

    outputs: tuple[FileRef, ...]
    rows_in: int
    rows_out: int
    drops: Mapping[str, int] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """One step of the pipeline."""

    name: str
    """Names its records, e.g. ``download`` or ``embed/b32``."""

    settings: Mapping[str, Any]
    """What decides the output bytes: ``Settings.facts()``, no knobs."""

    code_version: ClassVar[int] = 1
    """Raised when the same inputs and settings give other bytes than before."""

    guarded: ClassVar[bool] = False
    """Doing finished units again could lose what cannot be had again (images that are gone from
    the web): the engine refuses unless told to redo."""

    gpu: ClassVar[bool] = False
    """Asks for a worker that owns a GPU, where the cluster has any."""

    partners: tuple[Stage, ...] = ()
    """Stages behind this one whose units of the same name are done in the same pass over the same
    files, when both have work: see ``run_together``."""

    inline: ClassVar[bool] = False
    """Runs in the driver's process: it is one unit that brings its own threads."""

    @property
    def verb(self) -> str:
        """What a user calls it, on the command line and after ``--redo``."""
        return verb_of(self.name)

    def check(self, workspace: Workspace) -> None:
        """Raise what a user has to mend, as far as it can be told now, without doing anything.

        Called for all stages of a verb before the first of them does any work.

        Raises:
            UserError: this stage cannot run.
        """
        return

    def plan_columns(self, planned: PlannedColumns) -> None:
        """Add the columns of the samples that this stage will make to those of the stages before it."""
        return

    def preflight(self, workspace: Workspace, planned: PlannedColumns | None) -> Iterable[str]:
        """What will stop this stage, as far as it can be told before any stage of the run has worked.

        Called for all stages of a run, in the driver. Sources and weights are asked for, once and not for
        long; nothing is fetched. What only the stages before can tell is for ``check``.

        Args:
            planned: the columns that all stages before this one will make; None when the run does not begin
                with the sources, so that the workspace has them.

        Returns:
            One line for each problem: the key, and the fix. A ``UserError`` that is raised is one as well.
        """
        return ()

    @abstractmethod
    def units(self, workspace: Workspace) -> Iterable[Unit]:
        """The units there are now, given what the stages before have committed."""

    @abstractmethod
    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Do one unit: read its inputs, write its outputs through ``workspace.writing``.

        Called in a worker process. Must give the same bytes for the same unit. Raise ``DataError``
        for a unit that cannot be done (it is retried, then quarantined) and ``UserError`` for
        something that no unit can be done without (the run stops).
        """

    def run_together(self, workspace: Workspace, parts: Sequence[tuple[Stage, Unit]]) -> Iterable[Outcome]:
        """Do one unit of this stage and the units of that name of some partners in one pass.

        Args:
            workspace: where everything is.
            parts: this stage first, then partners, each with its own unit.

        Returns:
            As many outcomes, in that order; each is committed as it comes.
        """
        return [stage.run(workspace, unit) for stage, unit in parts]

    def finish(self, workspace: Workspace) -> None:
        """Called in the driver after the units, on every run, also when there was nothing to do.

        Writes what belongs to the stage as a whole. Must be idempotent: a run that is killed
        before it gets here has it called by the next one.
        """
        return


def in_one_pass(stages: Sequence[Stage]) -> None:
    """Make the stages partners: each takes along those behind it."""
    for i, stage in enumerate(stages):
        stage.partners = tuple(stages[i + 1 :])
