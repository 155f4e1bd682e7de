"""What every scorer's settings say about themselves."""

from __future__ import annotations

from curate.config.kinds import KindSettings, OpenSet


class AnyScorer(KindSettings):
    """Settings of one scorer; subclasses add a literal ``type``."""

    def models(self) -> tuple[str, ...]:
        """Aliases of the models whose embeddings it reads."""
        alias = getattr(self, "model", None)
        return (alias,) if alias else ()

    def uses(self) -> tuple[str, ...]:
        """Columns it reads that a user named: of samples, models or other scorers."""
        return ()


SCORERS = OpenSet("scorer", AnyScorer, "curate.config.scorers", "curate.scorers")
