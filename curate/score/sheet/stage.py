"""The stages ``sheet/<scorer>``: the calibration sheet of a scorer, made again when its scores change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from curate.config.models import ScoreSettings
from curate.config.scorers.base import ScorerSettings
from curate.dataset import layout
from curate.dataset.account import step_of
from curate.dataset.family import Family, base_family, base_files
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import UserError
from curate.score.contract import is_cosine
from curate.score.sheet.cards import cards
from curate.score.sheet.render import Sheet, galleries, render
from curate.score.sheet.sample import LIMIT
from curate.score.sheet.scan import columns, scan
from curate.score.stage import ScoreStage

SENSITIVE = ("nsfw", "unsafe", "safety", "violen", "gore", "porn", "nud", "sexual", "explicit", "hate")
"""A scorer is about pictures that not everybody wants to see when one of these is in its name, its type
or the name of its list of prompts: its sheet is blurred until it is clicked."""

LOW_IS_GOOD = (*SENSITIVE, "watermark", "toxic", "spam")
"""The slider of such a scorer begins with keeping low values."""


class SheetStage(Stage):
    """Writes ``sheets/<scorer>.html``."""

    inline = True

    def __init__(
        self, score: ScoreStage, settings: ScorerSettings, *, per_band: int, blur: bool | None
    ) -> None:
        self.scorer = score.scorer_name
        self.name = f"sheet/{self.scorer}"
        self.models = tuple(score.needs.models)
        self.reads_text = "text" in score.scorer.columns
        named = {key: getattr(settings, key, None) for key in ("type", "model", "prompts")}
        self.facts = {key: value for key, value in named.items() if isinstance(value, str)}
        self.words = " ".join((self.scorer, *self.facts.values())).lower()
        declared = score.scorer.outputs or ()
        self.cosines = [f"{self.scorer}_{field.name}" for field in declared if is_cosine(field)]
        self.per_band = per_band
        self.blur = any(word in self.words for word in SENSITIVE) if blur is None else blur
        self.settings: dict[str, Any] = {
            "rows": LIMIT,
            "per_band": per_band,
            "blur": self.blur,
            "facts": self.facts,
        }

    @property
    def verb(self) -> str:
        """A sheet belongs to ``curate score``."""
        return "score"

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """One unit, done again when a file it reads has changed.

        Raises:
            UserError: there are no scores yet; says what to run first.
        """
        if not self._shards(workspace):
            raise UserError(f"{workspace.url}: no scores of '{self.scorer}' yet; {self._first(workspace)}")
        families = (Family.scores(self.scorer), base_family(workspace), *map(Family.embeddings, self.models))
        stages = [family.stage for family in families]
        steps = {stage: step_of(workspace, stage) for stage in stages}
        yield Unit("page", (), {"made_of": {s: step.digest for s, step in steps.items() if step}})

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Read the columns once, then the pictures of the samples that are shown."""
        shards = self._shards(workspace)
        found = columns(workspace, self.scorer, shards[0], self.cosines)
        shown = [column for column in found if column.kind != "other"]
        scanned = scan(workspace, self.scorer, shards, shown, self.models, self.reads_text, LIMIT)
        chosen = {column.name: galleries(scanned, column, self.per_band) for column in shown}
        sampled = scanned.sampled
        places = {
            (int(sampled.shard[i]), int(sampled.row[i]))
            for column in chosen.values()
            for gallery in column
            for i in gallery.shown
        }
        page = render(
            Sheet(
                scorer=self.scorer,
                facts=self.facts,
                columns=found,
                shards=len(shards),
                expected=max(len(shards), len(base_files(workspace))),
                scanned=scanned,
                galleries=chosen,
                cards=cards(workspace, self.scorer, shards, places),
                blur=self.blur,
                low_is_good=any(word in self.words for word in LOW_IS_GOOD),
            )
        )
        ref = workspace.write_bytes(layout.sheet(self.scorer), page.encode("utf-8", "replace"))
        return Outcome((ref,), sampled.rows, sampled.rows)

    def _shards(self, workspace: Workspace) -> list[str]:
        """Names of the shards that are scored, in order."""
        family = Family.scores(self.scorer)
        return list(family.by_shard(RecordStore(workspace).outputs(family.stage)))

    def _first(self, workspace: Workspace) -> str:
        if not base_files(workspace):
            return f"there is nothing to score: run `curate {base_family(workspace).verb}` first"
        for alias in self.models:
            if step_of(workspace, f"embed/{alias}") is None:
                return f"it reads the embeddings of '{alias}': run `curate embed` first"
        return "run `curate score` without --dry-run first, and see `curate status` if it has failed"


def sheet_stages(
    stages: Sequence[Stage], settings: ScoreSettings, *, per_band: int = 6, blur: bool | None = None
) -> list[Stage]:
    """A sheet for each of some stages of scoring.

    Args:
        stages: of ``score_stages``; those that only learn have no sheet.
        settings: of all scorers.
        per_band: samples in a row.
        blur: all sheets, or none; by default those of scorers that sound sensitive.

    Raises:
        UserError: there is no scorer.
    """
    scoring = [stage for stage in stages if isinstance(stage, ScoreStage)]
    if not scoring:
        raise UserError("score.scorers: none defined, so there is nothing to make a sheet of")
    return [
        SheetStage(stage, settings.scorers[stage.scorer_name], per_band=per_band, blur=blur)
        for stage in scoring
    ]
