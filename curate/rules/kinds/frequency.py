"""The rule ``frequency``: how often a value occurs among the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.config.rules.frequency import FrequencyRule
from curate.dataset.workspace import FileRef
from curate.rules.contract import (
    BoundRule,
    CompiledRule,
    Compiling,
    Learned,
    LearnedForm,
    Learner,
    Rows,
    RuleFiles,
    Verdict,
    rows_in_scope,
)
from curate.rules.learned import is_count, is_text
from curate.rules.logic import Mask
from curate.rules.sql.keys import key_text, looked_up
from curate.rules.uidfiles import GROUP_ROWS
from curate.samples.database import Database, registered, select
from curate.samples.pool import Batch, UidAt, Uids

SCHEMA = pa.schema([("key", pa.string()), ("count", pa.int64())])
_STEM = "counts"


@dataclass(frozen=True)
class Frequency(CompiledRule):
    """Values that occur neither too often nor too rarely. NULL is missing.

    ALIGN (arXiv 2102.05918, section 3.2) and COYO-700M drop texts that more than 10 images share.
    """

    settings: FrequencyRule

    any_order = True
    learns = True
    learns_uids = Uids.NONE
    judges_uids = Uids.RAW

    @classmethod
    def compile(cls, settings: FrequencyRule, at: Compiling) -> Frequency:
        """See ``CompiledRule.compile``."""
        value = key_text(at.key(settings.frequency))
        bounds = [f"at most {settings.at_most}"] * (settings.at_most is not None)
        bounds += [f"at least {settings.at_least}"] * (settings.at_least is not None)
        text = f"{settings.frequency} occurs {' and '.join(bounds)} times"
        return cls(at.name, at.place, settings, text, (value,), 1)

    @classmethod
    def learned_form(cls, settings: FrequencyRule) -> LearnedForm:
        """A file of values, and how many there are."""
        return LearnedForm({"file": is_text, "values": is_count, "values_passed": is_count}, _STEM)

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Counts in DuckDB, which spills."""
        return _FrequencyLearner(self, connection, files)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """The values that occur often are in memory: those that are too frequent, or frequent enough.

        A value that is not listed is a rare one, also when it is another pool's.
        """
        table = files.workspace.read_table(files.named(learned["file"]), ["key"])
        places = dict.fromkeys(table["key"].to_pylist(), 0)
        listed_pass = self.settings.at_least is not None

        def judge(rows: Rows) -> Verdict:
            listed = looked_up(rows.values[0], places) == 0
            return Verdict.on_present(rows.values[0], listed == listed_pass)

        return BoundRule(judge)

    def account(self, learned: Learned) -> dict[str, Any]:
        """Different values, and how many of them pass."""
        return {"values": learned["values"], "values_passed": learned["values_passed"]}


class _FrequencyLearner(Learner):
    def __init__(self, rule: Frequency, connection: Database, files: RuleFiles) -> None:
        self.rule, self.connection, self.files = rule, connection, files
        self.table = f"values_{files.number:02d}"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {self.table} (key VARCHAR)")

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        values = select(self.connection, rows_in_scope(batch, in_scope), [self.rule.expressions[0].sql])
        with registered(self.connection, "samples", values):
            self.connection.execute(f'INSERT INTO {self.table} SELECT "0" FROM samples WHERE "0" IS NOT NULL')

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        rule, table = self.rule.settings, self.table
        bounds = [f"n <= {rule.at_most}"] * (rule.at_most is not None)
        bounds += [f"n >= {rule.at_least}"] * (rule.at_least is not None)
        passes = " AND ".join(bounds)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table}_counts AS "
            f"SELECT key, count(*) AS n FROM {table} GROUP BY key"
        )
        self.connection.execute(f"DROP TABLE {table}")
        ((values, passed),) = self.connection.execute(
            f"SELECT count(*), count(*) FILTER (WHERE {passes}) FROM {table}_counts"
        ).fetchall()
        listed_pass = rule.at_least is not None
        condition = passes if listed_pass else f"NOT ({passes})"
        reader = self.connection.sql(
            f"SELECT key, n AS count FROM {table}_counts WHERE {condition} ORDER BY key"
        ).to_arrow_reader(GROUP_ROWS)
        listed = pa.Table.from_batches(reader, reader.schema).cast(SCHEMA)
        ref = self.files.workspace.write_table(self.files.path(_STEM), listed)
        self.connection.execute(f"DROP TABLE {table}_counts")
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "values": values,
            "values_passed": passed,
        }
        return facts, [ref]
