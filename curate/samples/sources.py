"""Where the samples of an experiment are: in the workspace, or in tables that are read as they are."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from curate.config.models import PipelineConfig
from curate.config.scorers.base import ScorerSettings
from curate.config.tables import TableSettings
from curate.dataset import layout
from curate.dataset.family import Family, base_family
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import UserError
from curate.samples.columns import Column
from curate.samples.committed import Committed
from curate.samples.derived import derived_facts, derived_of
from curate.samples.folded import FoldedPool, FoldedTables
from curate.samples.pool import Pool
from curate.samples.tables import open_tables, table_files


class Samples(ABC):
    """What there is to filter.

    Attributes:
        absent: what could still give columns, for messages.
    """

    absent: list[str]

    @abstractmethod
    def there(self) -> bool:
        """Whether there is anything yet."""

    @contextlib.contextmanager
    def naming_absent(self) -> Iterator[None]:
        """Add what could still give columns to a message about an unknown one."""
        try:
            yield
        except UserError as error:
            if self.absent and "unknown column" in str(error):
                raise UserError(f"{error} (not there yet: {', '.join(self.absent)})") from None
            raise

    @abstractmethod
    def need(self) -> None:
        """Raises UserError when nothing is there yet; says what to run."""

    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """Every column by its public name. Raises UserError when one cannot be told from another."""

    @abstractmethod
    def inputs(
        self, columns: Iterable[Column], vectors: Iterable[tuple[str, str]], asking: str
    ) -> list[FileRef]:
        """The files that hold these columns and embeddings.

        Raises:
            DataError: one is missing; says who asks.
        """

    @abstractmethod
    def pool(self, again: bool = True) -> Pool:
        """The rows.

        Args:
            again: somebody will ask for the same columns again.
        """


class WorkspaceSamples(Samples):
    """What the stages before have committed."""

    def __init__(self, workspace: Workspace, models: tuple[str, ...], scorers: tuple[str, ...]) -> None:
        self.workspace, self.models, self.scorers = workspace, models, scorers
        self.committed = Committed(workspace)
        self.shards = tuple(self.committed.shards())

    @property
    def absent(self) -> list[str]:  # type: ignore[override]
        """Stages that have not run."""
        return self.committed.absent

    def there(self) -> bool:
        """Whether any shard is."""
        return bool(self.shards)

    def need(self) -> None:
        """Some shard has to be there."""
        if not self.there():
            base = base_family(self.workspace)
            raise UserError(f"{self.workspace.url}: has no {base}; run {base.verb} first")

    def columns(self) -> dict[str, Column]:
        """Of all families that are there."""
        return self.committed.columns(self.shards[0], self.models, self.scorers)

    def inputs(
        self, columns: Iterable[Column], vectors: Iterable[tuple[str, str]], asking: str
    ) -> list[FileRef]:
        """The families' files of all shards; the base's always."""
        ref = self.committed.ref
        families = {base_family(self.workspace), *(column.family for column in columns)}
        found = [ref(f.stage, f.path(s), asking) for f in sorted(families) for s in self.shards]
        for alias, modality in vectors:
            stage = Family.embeddings(alias).stage
            found += [ref(stage, layout.embedding(alias, modality, s), asking) for s in self.shards]
        return found

    def pool(self, again: bool = True) -> Pool:
        """Columns that are read again are folded into files of their own first."""
        return (FoldedPool if again else Pool)(self.workspace, self.shards, self.columns())


@dataclass(frozen=True)
class Tables:
    """Tables to filter instead of the workspace's samples.

    Attributes:
        scorers: name → settings of the config's scorers.
        keep: columns are kept for the next experiment.
    """

    settings: TableSettings
    scorers: Mapping[str, ScorerSettings]
    keep: bool = False

    @classmethod
    def of(cls, config: PipelineConfig) -> Tables | None:
        """Those of a config, if it has any."""
        if config.filter.tables is None:
            return None
        keep = config.filter.tables.keep_columns
        if keep is None:
            keep = len(config.filter.experiments) > 1 or bool(config.filter.grids)
        return cls(config.filter.tables, config.score.scorers, keep)

    def facts(self) -> dict[str, Any]:
        """What decides which columns there are, as JSON values; the files are inputs."""
        return {**self.settings.facts(), "paths": None, "scorers": derived_facts(derived_of(self.scorers))}


class TableSamples(Samples):
    """Rows of published files."""

    def __init__(self, workspace: Workspace, tables: Tables) -> None:
        self.workspace, self.tables = workspace, tables
        self.files = table_files(tables.settings)
        self.tables_pool = open_tables(workspace, tables.settings, self.files, tables.scorers)
        self.absent = [
            f"scorer {name}, which needs a workspace"
            for name, settings in tables.scorers.items()
            if not settings.row_local
        ]

    def there(self) -> bool:
        """An empty list of files is an error of its own."""
        return True

    def need(self) -> None:
        """They are always there."""

    def columns(self) -> dict[str, Column]:
        """Of the files, and what is computed from them."""
        return self.tables_pool.columns

    def inputs(
        self, columns: Iterable[Column], vectors: Iterable[tuple[str, str]], asking: str
    ) -> list[FileRef]:
        """All files, by size and time of change."""
        for alias, _ in vectors:
            raise UserError(
                f"{asking} reads embeddings of '{alias}', and tables have none; see docs/pools.md"
            )
        return self.files

    def pool(self, again: bool = True) -> Pool:
        """In the order of the files."""
        pool = self.tables_pool
        if not (again and self.tables.keep):
            return pool
        return FoldedTables(**{f.name: getattr(pool, f.name) for f in fields(pool)})


def inputs_of(
    workspace: Workspace,
    samples: Samples,
    names: Iterable[str],
    vectors: Iterable[tuple[str, str]],
    uses: Iterable[str],
    asking: str,
) -> tuple[FileRef, ...]:
    """The files that decide a selection.

    Args:
        names: columns that rules or the account read.
        vectors: alias and modality of the stored embeddings that rules read.
        uses: experiments whose selections it builds on.
        asking: the stage, for messages.

    Raises:
        DataError: one is missing.
    """
    columns = samples.columns()
    inputs = samples.inputs([columns[name] for name in names], vectors, asking)
    return (*inputs, *Committed(workspace).selections(uses, asking))


def samples_of(
    workspace: Workspace, models: tuple[str, ...], scorers: tuple[str, ...], tables: Tables | None
) -> Samples:
    """The tables when there are any, otherwise the workspace's samples."""
    if tables is not None:
        return TableSamples(workspace, tables)
    return WorkspaceSamples(workspace, models, scorers)
