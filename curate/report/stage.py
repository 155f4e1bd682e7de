"""The report stage: one self-contained HTML page per experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curate.config.models import ReportSettings
from curate.dataset import layout
from curate.dataset.account import account, model_cards, step_of
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import UserError
from curate.report.cards import cards
from curate.report.collect import ReportPlan, collect
from curate.report.page import Facts, render
from curate.report.verdicts import Replay, RuleCut
from curate.rules.account.run import read_account
from curate.samples.columns import Column, columns_of

UNIT = "page"
KEYS = {"uid", "url", "text", "sha256"}
"""Columns that a card has elsewhere, or that say nothing to a reader."""
SHOWN = 7
"""Values on a card."""


class ReportStage(Stage):
    """Writes ``report/<experiment>/index.html``."""

    inline = True

    def __init__(
        self, experiment: str, settings: ReportSettings, models: Sequence[str], scorers: Sequence[str]
    ) -> None:
        self.name = f"report/{experiment}"
        self.experiment = experiment
        self.samples, self.title = settings.samples, settings.title
        self.models, self.scorers = tuple(models), tuple(scorers)
        self.settings: dict[str, Any] = {
            "samples": settings.samples,
            "title": settings.title,
            "models": list(models),
            "scorers": list(scorers),
        }

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """One unit, which is done again when any file of a stage before has changed."""
        if not workspace.exists(layout.selection_file(self.experiment, "counts.parquet")):
            raise UserError(
                f"{workspace.url}: no selection of experiment '{self.experiment}' to report on; "
                "run `curate filter` first"
            )
        steps = self._steps(workspace)
        yield Unit(UNIT, (), {"made_of": {step.stage: step.digest for step in steps}})

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Read everything once and write the page."""
        counts = workspace.read_table(layout.selection_file(self.experiment, "counts.parquet"), ["shard"])
        shards: list[str] = counts["shard"].to_pylist()
        columns = self._columns(workspace, shards)
        funnel = read_account(workspace, self.experiment)
        with Replay(workspace, self.experiment, columns) as replay:
            used = replay.program.all_columns() if replay.program else []
            plan = self._plan(columns, used, replay.cuts)
            found = collect(workspace, replay, shards, columns, plan)
        shown = [n for n in dict.fromkeys([*plan.numeric, *used]) if n in columns and n not in KEYS][:SHOWN]
        config = workspace.read_bytes(layout.CONFIG).decode() if workspace.exists(layout.CONFIG) else ""
        page = render(
            Facts(
                experiment=self.experiment,
                title=self.title,
                steps=self._steps(workspace),
                account=funnel,
                found=found,
                plan=plan,
                cards=cards(workspace, found, columns, shown),
                models=model_cards(workspace, self.models),
                config=config,
            )
        )
        ref = workspace.write_bytes(layout.report_page(self.experiment), page.encode("utf-8", "replace"))
        return Outcome((ref,), found.samples, found.samples, {}, {"kept": found.kept})

    def _steps(self, workspace: Workspace) -> list[Any]:
        steps = account(workspace, self.experiment, self.models, self.scorers)
        export = step_of(workspace, f"export/{self.experiment}")
        return [*steps, export] if export else steps

    def _columns(self, workspace: Workspace, shards: Sequence[str]) -> dict[str, Column]:
        """Columns of the families that are complete; a model or scorer that has not run is left out."""
        if not shards:
            return {}
        store = RecordStore(workspace)

        def complete(stage: str) -> bool:
            return {r.unit for r in store.iterate(stage) if not r.failed} >= set(shards)

        models = [m for m in self.models if complete(f"embed/{m}")]
        scorers = [s for s in self.scorers if complete(f"score/{s}")]
        columns = columns_of(workspace, shards[0], models, scorers)
        if models[:1] != list(self.models[:1]):
            columns.pop("similarity", None)  # it is the first model's or nobody's
        return columns

    def _plan(self, columns: dict[str, Column], used: Sequence[str], cuts: Sequence[RuleCut]) -> ReportPlan:
        numbers = [
            n for n, c in columns.items() if pa.types.is_integer(c.type) or pa.types.is_floating(c.type)
        ]
        similarities = ["similarity", *(f"{m}_similarity" for m in self.models[1:])]
        numeric = [n for n in dict.fromkeys([*similarities, *used]) if n in numbers]
        first = f"{self.models[0]}_similarity" if self.models else ""
        if "similarity" in numeric and first in numeric:
            numeric.remove(first)
        drawn = tuple(dict.fromkeys(each for each in cuts if each.cut.column in numeric))
        languages = [n for n in columns if n.endswith("_lang")] or [n for n in columns if n == "lang"]
        return ReportPlan(tuple(numeric), drawn, next(iter(languages), None), self.samples)
