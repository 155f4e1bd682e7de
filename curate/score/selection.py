"""``--only``: some scorers instead of all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from curate.engine.stage import Stage
from curate.errors import UserError
from curate.score.stage import LearnStage, ScoreStage


def select_stages(stages: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    """The stages of the named scorers, in their order, without those of the scorers that they read.

    Args:
        stages: of ``score_stages``.
        names: of scorers; none means all.

    Raises:
        UserError: no scorer of that name.
    """
    known = [stage.scorer_name for stage in stages if isinstance(stage, ScoreStage)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"defined: {', '.join(known) or 'none'}"
            raise UserError(f"--only: no scorer named '{name}' in score.scorers; {hint}")
    if not names:
        return list(stages)
    chosen = [s for s in stages if isinstance(s, LearnStage | ScoreStage) and s.scorer_name in names]
    for stage in chosen:
        stage.partners = tuple(partner for partner in stage.partners if partner in chosen)
    return list(chosen)
