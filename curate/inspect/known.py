"""What a workspace knows, whatever the config was that ran last."""

from __future__ import annotations

from typing import NamedTuple

from curate.config.loading import load_config
from curate.config.models import PipelineConfig
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.plugins import Trust


def last_config(workspace: Workspace) -> PipelineConfig | None:
    """The config that was last run on a workspace; None when none was.

    Of the plug-in files that it names it runs none but those that ``CURATE_PLUGINS`` lists.

    Raises:
        ConfigError: it is of another version, or names another plug-in file.
    """
    if not workspace.exists(layout.CONFIG):
        return None
    with workspace.local(layout.CONFIG) as path:
        return load_config(str(path), trust=Trust.LISTED)


class Known(NamedTuple):
    """Names of what has been made: the config's in its order, then those of configs before it.

    Attributes:
        experiments: that have been run, or are in the config.
        models: aliases of embedding models; the first one's similarity is ``similarity``.
        scorers: names of scorers.
    """

    experiments: tuple[str, ...]
    models: tuple[str, ...]
    scorers: tuple[str, ...]


def known_names(workspace: Workspace, config: PipelineConfig) -> Known:
    """By the config and by the commit records."""
    made = sorted(stage.partition("/")[::2] for stage in RecordStore(workspace).stages())

    def names(verb: str, first: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*first, *(name for its, name in made if its == verb and name)]))

    return Known(
        names("filter", tuple(config.filter.experiments)),
        names("embed", tuple(config.embed.models)),
        names("score", tuple(config.score.scorers)),
    )
