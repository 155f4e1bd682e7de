"""The one table of stages: in which order data flows, what each is called, and where it is built.

Nothing is imported for it: ``curate --help`` and ``curate status`` read it, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate import extras

if TYPE_CHECKING:
    from curate.config.models import PipelineConfig
    from curate.engine.stage import Stage


@dataclass(frozen=True)
class Verb:
    """One command, and the stages it stands for.

    Attributes:
        name: the command.
        records: first parts of the names of its stages, in the order in which they run.
        help: of the command.
        needs: what a config lacks that gives it nothing to do.
    """

    name: str
    records: tuple[str, ...]
    help: str
    needs: str = ""

    def stages(self, config: PipelineConfig) -> list[Stage]:
        """The stages of a config, in order, built by ``curate.<name>.stages.stages``.

        Raises:
            ConfigError: a section that it needs is missing.
            MissingExtraError: a package that it needs is not installed.
        """
        module = importlib.import_module(f"curate.{self.name}.stages")
        build: Callable[[PipelineConfig], Iterable[Stage]] = module.stages
        with extras.named(f"{self.name}"):
            return list(build(config))


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "ingest",
            ("parse", "ingest"),
            "WAT files or tables of url+text to candidates: parsed, judged, deduplicated, sharded by uid.",
        ),
        Verb(
            "download",
            ("download",),
            "Candidates to images in webdataset shards; a row per candidate, with a reason if it failed.",
            needs="`download: null` means a pool without images",
        ),
        Verb(
            "embed",
            ("stored", "embed"),
            "Images and texts to CLIP embeddings and their similarity, with every model of embed.models.",
            needs="there are no embed.models",
        ),
        Verb(
            "score",
            ("learn", "score", "sheet"),
            """Every scorer of score.scorers: text, image, zero-shot prompts.

Scores that are there already are not computed again. To choose a threshold by looking:

1. [bold]curate score my.yaml --only watermark --sheet[/]
2. open sheets/watermark.html of the workspace and move the slider
3. paste the rule it shows into filter.experiments of my.yaml
4. [bold]curate filter my.yaml[/]
""",
            needs="there are no score.scorers",
        ),
        Verb(
            "filter",
            ("filter", "filter-grid"),
            """Every experiment of filter.experiments: which samples stay, and a funnel that says why.

To learn thresholds on a small pool and apply exactly these to a large one, or to a later one:

1. [bold]curate filter my.yaml -w ./small[/]
2. [bold]curate filter my.yaml -w ./large --frozen ./small[/]

Quantiles, cuts of top, cap, equal and sample, and counts of frequency and
balance are then those of ./small. Rules that know nothing but uids (dedup,
near, semdedup, samplers with repeats) look at ./large, as ever. To have
[bold]curate run[/] do so too, write `frozen: ./small` into the experiment.

To choose a threshold by what it keeps, write filter.grids (docs/grids.md):
[bold]curate filter my.yaml --grid[/] compares all points in one pass over the columns.
""",
            needs="there are no filter.experiments",
        ),
        Verb(
            "index",
            ("index",),
            "kNN indices over the kept samples.",
            needs="there are no filter.experiments to index, or no embed.models",
        ),
        Verb(
            "export",
            ("export",),
            "Training shards, tables and the dataset card of the kept samples.",
            needs="there are no filter.experiments to export",
        ),
        Verb(
            "report",
            ("report",),
            "One self-contained HTML page per experiment.",
            needs="there are no filter.experiments to report",
        ),
    )
}
"""Name → verb, in the order of the data flow."""

_ORDER = {record: place for place, record in enumerate(r for verb in VERBS.values() for r in verb.records)}


def stage_order(stage: str) -> tuple[int, str]:
    """Sort key of stage names: the data flow first, then the name; stages of other versions come last."""
    return _ORDER.get(stage.partition("/")[0], len(_ORDER)), stage


def verb_of(stage: str) -> str:
    """The command that runs a stage: ``ingest`` of ``parse``, ``score`` of ``learn/mix``."""
    record = stage.partition("/")[0]
    return next((verb.name for verb in VERBS.values() if record in verb.records), record)
