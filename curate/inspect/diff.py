"""Two selections side by side: what both keep, what only one keeps and why, and how their columns differ."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.models import PipelineConfig
from curate.dataset import layout
from curate.dataset.family import IMAGES, TABLES, base_family
from curate.dataset.selections import SUBSET, Selection, firsts, selection_refs
from curate.dataset.uid import shard_of
from curate.dataset.workspace import Workspace
from curate.errors import CurateError, UserError
from curate.inspect.diff_sums import Gathering, effect
from curate.inspect.known import known_names
from curate.pages.words import HARMFUL, is_unsafe
from curate.samples.columns import Column

if TYPE_CHECKING:
    from curate.rules.account.funnel import Funnel
    from curate.rules.judging import Judge
    from curate.samples.pool import Batch
    from curate.samples.sources import Tables

GROUPS = ("only_a", "only_b", "both")
LANGUAGES = 8


@dataclass(frozen=True)
class Example:
    """A sample of a group.

    Attributes:
        language: None when unknown, or when there is no column of languages.
        values: column of numbers → value, None where there is none.
        reason: why the other experiment dropped it; None when that is not known, and in ``both``.
        rules: what each rule of the other experiment says: ``rule``, ``expression``, ``result`` (``pass``,
            ``fail``, ``missing``), ``values`` that it saw, ``note``.
        unsafe: a tag, or a rule that it did not pass, says that not everybody wants to see the picture.
    """

    uid: str
    shard: str
    text: str | None
    url: str | None
    language: str | None
    values: dict[str, Any]
    reason: str | None
    rules: list[dict[str, Any]]
    unsafe: bool


@dataclass
class Group:
    """Samples of one kind.

    Attributes:
        samples: how many.
        means: column → mean of its values; absent where there is none. Of booleans, the share of true.
        languages: language → samples, of the languages that are frequent in any group.
        reasons: why the other experiment dropped them → samples.
        rules: what its rules say about them: ``rule``, ``expression``, ``failed``, ``missing``,
            ``uniquely_dropped`` (would be kept were it not for this rule).
        examples: drawn by uid.
    """

    samples: int = 0
    means: dict[str, float] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """The comparison of two experiments.

    Attributes:
        jaccard: the share of ``both`` in all that either keeps.
        compared: the two groups whose means ``effects`` compares: what only one keeps, or, when that is
            nothing on one side, what only the other keeps and what both keep. None when there is just one.
        effects: column → difference of the two means over their pooled standard deviation, positive when
            the first is larger; the columns that differ most come first. Infinite when each group has one
            value throughout.
        language: the column that languages are from.
        notes: what could not be said, and why.
        pictures: whether the pool has any.
    """

    a: str
    b: str
    pool: int
    kept_a: int
    kept_b: int
    jaccard: float
    compared: tuple[str, str] | None
    effects: dict[str, float]
    language: str | None
    groups: dict[str, Group]
    notes: list[str]
    pictures: bool

    def facts(self) -> dict[str, Any]:
        """Plain JSON values; an infinite effect is null."""
        effects = {name: value if math.isfinite(value) else None for name, value in self.effects.items()}
        return {**asdict(self), "effects": effects}

    def titles(self) -> dict[str, str]:
        """Group → its name."""
        return dict(zip(GROUPS, (f"only {self.a}", f"only {self.b}", "both"), strict=True))


def diff(workspace: Workspace, config: PipelineConfig, a: str, b: str, examples: int = 5) -> Difference:
    """Compare what two experiments keep, in one pass over the columns.

    Args:
        examples: of each of the two groups that only one keeps; of what both keep, half as many.

    Raises:
        UserError: an experiment is not there, or has not been run.
    """
    from curate.rules.account.explain import StaleError
    from curate.samples.database import open_database, reading_folder
    from curate.samples.sorting import in_uid_order
    from curate.samples.sources import Tables, samples_of

    known = known_names(workspace, config)
    for name in (a, b):
        if selection_refs(workspace, name):
            continue
        if name in config.filter.experiments:
            raise UserError(
                f"diff: '{name}' has no selection in {workspace.url} yet; run `curate filter` first"
            )
        raise UserError(f"diff: no experiment named '{name}' (experiments: {', '.join(known.experiments)})")
    models, scorers = known.models, known.scorers
    tables = Tables.of(config)
    samples = samples_of(workspace, models, scorers, tables)
    samples.need()
    columns = samples.columns()
    numbers = _numbers(columns, models)
    tags = [n for n, c in columns.items() if is_unsafe(n) and n.endswith("_tag") and _is_text(c)]
    gathered = {name: Gathering(examples if name != "both" else -(-examples // 2)) for name in GROUPS}
    pool = 0
    with ExitStack() as stack:
        whys: dict[str, _Why] = {}
        notes = []
        for name, other in (("only_a", b), ("only_b", a)):
            try:
                whys[name] = _Why(stack, workspace, other, models, scorers, tables)
            except StaleError:
                raise
            except CurateError as error:
                notes.append(f"no reasons of {other}: {error}")
        programs = [why.judge.program for why in whys.values()]
        read = [n for program in programs for n in program.all_columns()]
        if tables is not None:
            # What would have to be computed of every row, languages first of all, only where a rule asks.
            columns = {n: c for n, c in columns.items() if n in read or c.family == TABLES}
            numbers = [n for n in numbers if n in columns]
        language = _language(columns)
        shown = [n for n in ("text", "url", language) if n in columns]
        wanted = [n for n in dict.fromkeys([*shown, *numbers, *tags, *read]) if n is not None]
        rows = samples.pool(again=False)
        if tables is not None:
            scratch = stack.enter_context(reading_folder())
            connection = stack.enter_context(open_database(scratch))
            needed = not all(program.any_order for program in programs)
            rows = in_uid_order(rows, needed, wanted, connection, scratch)
        selected = [_members(workspace, name, sharded=tables is None) for name in (a, b)]
        for batch in rows.scan(wanted):
            pool += batch.table.num_rows
            in_a, in_b = (among(batch) for among in selected)
            for name, mask in (("only_a", in_a & ~in_b), ("only_b", in_b & ~in_a), ("both", in_a & in_b)):
                part = _part(batch, mask)
                gathered[name].add(part.table, numbers, language)
                if name in whys and part.shards:
                    whys[name].add(part)
        groups = {name: _group(gathered[name], whys.get(name)) for name in GROUPS}
        how_many = int(workspace.read_json(layout.DATASET)["shards"]) if tables is None else 0
        for name in GROUPS:
            groups[name].examples = [
                _example(row, how_many, numbers, language, tags, whys.get(name))
                for row in gathered[name].rows()
            ]
    _name_languages(groups, gathered)
    compared = _compared(groups)
    only_a, only_b, both = (groups[name].samples for name in GROUPS)
    either = only_a + only_b + both
    return Difference(
        a=a,
        b=b,
        pool=pool,
        kept_a=only_a + both,
        kept_b=only_b + both,
        jaccard=both / either if either else 1.0,
        compared=compared,
        effects=_effects(gathered, compared, numbers),
        language=language,
        groups=groups,
        notes=notes,
        pictures=tables is None and base_family(workspace) == IMAGES,
    )


class _Why:
    """Why an experiment dropped the samples of a group, by its rules as they were when it ran."""

    def __init__(
        self,
        stack: ExitStack,
        workspace: Workspace,
        experiment: str,
        models: tuple[str, ...],
        scorers: tuple[str, ...],
        tables: Tables | None,
    ) -> None:
        from curate.rules.account.explain import open_judge
        from curate.rules.account.funnel import Funnel
        from curate.rules.account.run import read_run

        run = read_run(workspace, experiment)
        if run is None:
            raise UserError("its selection was not made by `curate filter`")
        judge = open_judge(workspace, experiment, run.as_config(), models, scorers, tables)
        self.judge: Judge = stack.enter_context(judge)
        program = self.judge.program
        self.funnel: Funnel = Funnel(program.rules, program.keep, program.scopes)

    def add(self, batch: Batch) -> None:
        judged = self.judge.judged(batch)
        self.funnel.add(judged.verdicts, judged.copies)

    def rules(self) -> list[dict[str, Any]]:
        wanted = ("rule", "expression", "failed", "missing", "uniquely_dropped")
        return [{key: rule[key] for key in wanted} for rule in self.funnel.facts(self.judge.learned)["rules"]]

    def example(self, row: pa.Table, shard: str) -> tuple[str | None, list[dict[str, Any]], bool]:
        """Reason, what every rule says, and whether it fell to a rule about unsafe pictures."""
        from curate.rules.account.explain import verdict_on

        verdict = verdict_on(self.judge, row, shard)
        unsafe = any(
            rule.result != "pass" and any(map(is_unsafe, (rule.rule, *rule.values))) for rule in verdict.rules
        )
        return verdict.reason, [asdict(rule) for rule in verdict.rules], unsafe


def _numbers(columns: Mapping[str, Column], models: Sequence[str]) -> list[str]:
    """Columns that have a mean, each once."""

    def counts(kind: pa.DataType) -> bool:
        if pa.types.is_uint64(kind):  # a hash, of which a mean says nothing
            return False
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))

    found = [name for name, column in columns.items() if counts(column.type)]
    twin = f"{models[0]}_similarity" if models and "similarity" in columns else None
    return sorted((n for n in found if n != twin), key=lambda name: name != "similarity")


def _language(columns: Mapping[str, Column]) -> str | None:
    names = (n for n, c in columns.items() if (n == "lang" or n.endswith("_lang")) and _is_text(c))
    return next(names, None)


def _is_text(column: Column) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _members(
    workspace: Workspace, experiment: str, sharded: bool
) -> Callable[[Batch], npt.NDArray[np.bool_]]:
    """Tells which rows of a batch are in a selection, bool, shape (n,).

    Args:
        sharded: rows come by the shards of the workspace; otherwise in any order, and all uids are in
            memory, 16 bytes each.
    """
    from curate.rules.kinds.members import UidSet

    selection = Selection(workspace, experiment)

    def of_shards(batch: Batch) -> npt.NDArray[np.bool_]:
        uids = batch.table["uid"]
        found = [
            np.asarray(pc.is_in(uids[rows], selection.read(shard)["uid"].combine_chunks())).astype(bool)
            for shard, rows in batch.slices()
        ]
        return np.concatenate(found) if found else np.zeros(0, bool)

    if sharded:
        return of_shards
    with workspace.open(layout.selection_file(experiment, SUBSET)) as stream:
        subset = np.load(io.BytesIO(stream.read()))
    uids = UidSet(subset[firsts(subset)])
    return lambda batch: uids.member(batch.table["uid"])


def _part(batch: Batch, mask: npt.NDArray[np.bool_]) -> Batch:
    """Some rows of a batch; its shards are those that have any."""
    from curate.samples.pool import Batch

    counts = ((shard, int(mask[rows].sum())) for shard, rows in batch.slices())
    return Batch(batch.table.filter(pa.array(mask)), tuple((s, n) for s, n in counts if n))


def _group(gathered: Gathering, why: _Why | None) -> Group:
    means = {name: m.mean for name, m in gathered.moments.items() if m.count}
    reasons = dict(why.funnel.reasons.most_common()) if why else {}
    return Group(gathered.samples, means, reasons=reasons, rules=why.rules() if why else [])


def _name_languages(groups: Mapping[str, Group], gathered: Mapping[str, Gathering]) -> None:
    """Every group lists the same languages: those with the largest share of any group."""
    shares: dict[str, float] = {}
    for one in gathered.values():
        for name, count in one.languages.items():
            shares[name] = max(shares.get(name, 0.0), count / one.samples)
    listed = sorted(shares, key=lambda name: (-shares[name], name))[:LANGUAGES]
    for name, group in groups.items():
        counts = gathered[name].languages
        found = sorted((n for n in listed if counts[n]), key=lambda n: (-counts[n], n))
        group.languages = {n: counts[n] for n in found}


def _compared(groups: Mapping[str, Group]) -> tuple[str, str] | None:
    there = [name for name in GROUPS if groups[name].samples]
    return (there[0], there[1]) if len(there) > 1 else None


def _effects(
    gathered: Mapping[str, Gathering], compared: tuple[str, str] | None, numbers: Sequence[str]
) -> dict[str, float]:
    if compared is None:
        return {}
    first, second = (gathered[name].moments for name in compared)
    found = {name: effect(first[name], second[name]) for name in numbers}
    known = {name: value for name, value in found.items() if value is not None}
    return dict(sorted(known.items(), key=lambda item: -abs(item[1])))


def _example(
    row: pa.Table,
    shards: int,
    numbers: Sequence[str],
    language: str | None,
    tags: Sequence[str],
    why: _Why | None,
) -> Example:
    (facts,) = row.to_pylist()
    shard = layout.shard_name(shard_of(facts["uid"], shards), shards) if shards else "tables"
    reason, rules, unsafe = why.example(row, shard) if why else (None, [], False)
    return Example(
        uid=facts["uid"],
        shard=shard,
        text=facts.get("text"),
        url=facts.get("url"),
        language=facts[language] if language else None,
        values={name: facts[name] for name in numbers},
        reason=reason,
        rules=rules,
        unsafe=unsafe or any(str(facts[tag] or "").lower() in HARMFUL for tag in tags),
    )
