"""Settings of the rule ``experiment``: what another experiment kept."""

from __future__ import annotations

from pydantic import Field

from curate.config.rules.base import RuleSettings


class ExperimentRule(RuleSettings):
    """The selection of another experiment of the same config, with its repeats."""

    kind = "experiment"
    implementation = "curate.rules.kinds.experiment:OtherExperiment"

    experiment: str = Field(description="Name of an experiment of the same config.")

    def experiments(self) -> tuple[str, ...]:
        """That experiment."""
        return (self.experiment,)
