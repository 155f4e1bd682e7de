"""What the rules of an experiment have to see of a pool before they can judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from curate.config.filters import Keep, rule_names
from curate.dataset.workspace import FileRef
from curate.rules.contract import CompiledRule, Learned, Learner, RuleFiles
from curate.rules.judging import Judge, failed
from curate.rules.logic import in_scope
from curate.rules.program import Program
from curate.samples.database import Database, sql_error
from curate.samples.pool import Pool, UidAt


def learn(
    program: Program,
    pool: Pool,
    connection: Database,
    scratch: Path,
    given: Mapping[str, Learned] | None = None,
) -> tuple[dict[str, Learned], list[FileRef]]:
    """Let the rules that look at other rows see them: one pass over their columns, or several with ``then``.

    Memory and scratch disk: what each kind of rule says, one batch, a number per shard.

    Args:
        given: what some rules learned elsewhere, its files already in place. They do not learn here.

    Returns:
        Rule name → what it learned, and the files that were written here for it.
    """
    given = given or {}
    learned: dict[str, Learned] = {rule.name: given.get(rule.name, {}) for rule in program.rules}
    written: list[FileRef] = []
    for rule in program.rules if program.learns else ():
        rule.check_files()
    for rules in program.passes(given):
        written += _one_pass(program, rules, pool, learned, connection, scratch)
    return learned, written


def _one_pass(
    program: Program,
    rules: Sequence[CompiledRule],
    pool: Pool,
    learned: dict[str, Learned],
    connection: Database,
    scratch: Path,
) -> list[FileRef]:
    numbers = {rule.name: number for number, rule in enumerate(program.rules)}
    looks: list[tuple[tuple[Keep, ...], list[tuple[CompiledRule, Learner]]]] = []
    for rule in rules:
        scope = program.scopes.get(rule.name, ())
        mine = next((learners for other, learners in looks if other == scope), None)
        if mine is None:
            mine = []
            looks.append((scope, mine))
        if not any(learner.joins(rule) for _, learner in mine):
            files = RuleFiles(pool.workspace, program.name, numbers[rule.name])
            mine.append((rule, rule.learner(connection, scratch, files)))
    before = {name for scope, _ in looks for part in scope for name in rule_names(part)}
    columns = sorted(set(program.columns(before)).union(*(r.columns for r in rules)))
    uids = max(rule.learns_uids for rule in rules)
    if before:
        uids = max(uids, program.uids(before))
    lengths: dict[str, int] = {}
    with Judge(program, pool, learned, connection, before) as judge:
        for batch in pool.scan(columns, uids=uids):
            lengths |= dict(batch.shards)
            truths = judge.truths(batch) if before else {}
            for scope, learners in looks:
                left = in_scope(scope, truths, batch.table.num_rows) if scope else None
                for rule, learner in learners:
                    try:
                        learner.add(batch, left)
                    except sql_error() as error:
                        raise failed(rule, batch.shards[0][0], batch.shards[-1][0], error) from None

    uid_at = UidAt(pool, lengths)
    written: list[FileRef] = []
    for rule, learner in (each for _, learners in looks for each in learners):
        learned[rule.name], refs = learner.finish(uid_at)
        learned.update(learner.joined(uid_at))
        written += refs
    return written
