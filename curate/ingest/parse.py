"""First half of ingest: input files to judged rows, spilled in uid order.

Memory of a worker: ``rows_in_memory`` rows (about 0.5 kB each, at most 1 GiB) and their sorted copy, however
large the input file is.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.config.base import fingerprint
from curate.config.models import IngestSettings, SourceSettings
from curate.dataset import layout
from curate.dataset.family import CANDIDATES
from curate.dataset.workspace import FileRef, Workspace
from curate.engine.reporting import report
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import DataError, UserError, reaching
from curate.ingest.inputs import InputFile, expand_inputs, guess_format, is_web
from curate.ingest.rules import Rules, clean_text, judge, uid_column
from curate.ingest.sorting import drop_duplicates, sort_by_uid
from curate.ingest.tables import iter_table_batches
from curate.ingest.unpack import BYTES_LOST
from curate.ingest.wat import iter_wat_batches
from curate.network import why_not_url
from curate.reasons import IngestReason
from curate.samples.columns import Column, PlannedColumns

log = logging.getLogger(__name__)

SPILL_GROUP_ROWS = 16_384
"""Small row groups, so that a uid range of a spill is read without the rest."""

CANDIDATE_COLUMNS = {
    "url": pa.string(),
    "text": pa.string(),
    "title": pa.string(),
    "page_url": pa.string(),
    "source": pa.string(),
    "licence": pa.string(),
    "opt_out": pa.bool_(),
}
"""Every candidate has these after its uid, NULL where its source does not say."""

ACT_ELSEWHERE = frozenset({"sources", "shard_size", "inputs_per_unit"})
"""Settings of ingest that decide no row of a spill by themselves: what of a source does is part of each of
its units, the sizes only say how rows are spread over units and shards."""

MAX_SPILL_BYTES = 1 << 30
"""Rows are also spilled when they take this much memory, however few they are."""


class ParseStage(Stage):
    """Parses input files and applies the rules on URL and text. A unit is a few input files."""

    code_version = 1
    guarded = True

    def __init__(self, settings: IngestSettings) -> None:
        self.name = "parse"
        self.ingest = settings
        self.settings = {k: v for k, v in settings.facts().items() if k not in ACT_ELSEWHERE}

    def plan_columns(self, planned: PlannedColumns) -> None:
        """The candidates: what every source gives, the languages, and what tables carry along."""
        kinds = {"uid": pa.string(), **CANDIDATE_COLUMNS}
        if self.ingest.languages is not None:
            kinds |= {"lang": pa.string(), "lang_score": pa.float32()}
        planned.update({name: Column(CANDIDATES, name, kind) for name, kind in kinds.items()})
        for source in self.ingest.sources:
            planned.untyped |= {column.partition(":")[0] for column in source.extra_columns} - kinds.keys()

    def preflight(self, workspace: Workspace, planned: PlannedColumns | None) -> Iterator[str]:
        """Whether every source is there: what it names is listed, and one file of it is asked for."""
        for number, source in enumerate(self.ingest.sources):
            place = f"ingest.sources.{number}.paths"
            # Asked here, a name that does not resolve is told from a file that is not there.
            silent = [
                w for path in source.paths if is_web(path) and "*" not in path and (w := why_not_url(path))
            ]
            if silent:
                yield from (f"{place}: {why}" for why in silent)
                continue
            try:
                with reaching(place):
                    files = expand_inputs(source.paths, source.storage_options, prefix=source.prefix)
            except UserError as error:
                yield str(error)
                continue
            listed = next((file.url for file in files if file.size is None), None)
            if listed and is_web(listed) and (why := why_not_url(listed)):
                yield f"{place}: {why}"

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """Input files in groups; a group is named after its files, so that adding files moves none."""
        seen: set[str] = set()
        for source in self.ingest.sources:
            files = expand_inputs(source.paths, source.storage_options, prefix=source.prefix)
            size = self.ingest.inputs_per_unit
            for start in range(0, len(files), size):
                unit = _unit(source, files[start : start + size])
                if unit.name not in seen:
                    seen.add(unit.name)
                    yield unit

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Parse the unit's files into one or more spills sorted by uid."""
        source = next(s for s in self.ingest.sources if _facts(s) == unit.payload["source"])
        counts: Counter[str] = Counter()
        stats = Counter({"bytes": sum(ref.size for ref in unit.inputs), BYTES_LOST: 0})
        outputs: list[FileRef] = []
        spilled: Counter[str] = Counter()
        waiting: list[pa.RecordBatch] = []
        rows = size = kept_rows = parsed = 0

        def spill() -> None:
            nonlocal rows, size, kept_rows
            table, duplicates, collisions = drop_duplicates(sort_by_uid(_concat(waiting)))
            spilled[IngestReason.DUPLICATE] += duplicates
            spilled[IngestReason.UID_COLLISION] += collisions
            path = layout.spill(f"{unit.name}-{len(outputs):04d}")
            outputs.append(workspace.write_table(path, table, SPILL_GROUP_ROWS))
            kept_rows += table.num_rows
            waiting.clear()
            rows = size = 0

        for ref in unit.inputs:
            lost = stats[BYTES_LOST]
            for batch in self._batches(ref.path, source, counts, stats):
                waiting.append(batch)
                rows += batch.num_rows
                size += batch.nbytes
                parsed += batch.num_rows
                report(parsed + counts.total(), parsed, counts)
                if rows >= self.ingest.rows_in_memory or size >= MAX_SPILL_BYTES:
                    spill()
            if lost := stats[BYTES_LOST] - lost:
                log.warning("%s: damaged, %s bytes were lost", ref.path, f"{lost:,}")
        if waiting:
            spill()
        drops = {reason: n for reason, n in (counts + spilled).items() if n}
        return Outcome(
            outputs=tuple(outputs),
            rows_in=kept_rows + sum(drops.values()),
            rows_out=kept_rows,
            drops=drops,
            stats=stats,
        )

    def _batches(
        self, url: str, source: SourceSettings, counts: Counter[str], stats: Counter[str]
    ) -> Iterator[pa.RecordBatch]:
        kind = guess_format(url) if source.format == "auto" else source.format
        limit = self.ingest.batch_rows
        options = dict(source.storage_options)
        try:
            if kind == "wat":
                batches = iter_wat_batches(
                    url, batch_rows=limit, counts=counts, stats=stats, fs_options=options
                )
            else:
                batches = iter_table_batches(
                    url,
                    format=kind,
                    url_column=source.url_column,
                    text_column=source.text_column,
                    uid_column=source.uid_column,
                    extra_columns=source.extra_columns,
                    swap_width_height=source.swap_width_height,
                    batch_rows=limit,
                    counts=counts,
                    stats=stats,
                    fs_options=options,
                )
            for batch in batches:
                kept, dropped = judge(_repaired(batch, self.ingest.text_repair), self._rules())
                counts.update(dropped)
                if kept.num_rows:
                    yield _candidates(kept, url)
        except OSError as error:
            raise DataError(f"{url}: cannot be read ({error})") from error

    def _rules(self) -> Rules:
        s = self.ingest
        return Rules(
            min_text_length=s.min_text_length,
            max_text_length=s.max_text_length,
            max_url_length=s.max_url_length,
            blocked_extensions=s.blocked_extensions,
            blocked_url_substrings=s.blocked_url_substrings,
            blocked_domains=frozenset(s.blocked_domains),
            languages=None if s.languages is None else frozenset(s.languages),
            drop_opt_out=s.drop_opt_out,
        )


def _facts(source: SourceSettings) -> dict[str, Any]:
    """How a source's files are read, wherever they lie."""
    return {k: v for k, v in source.facts().items() if k != "paths"}


def _unit(source: SourceSettings, files: list[InputFile]) -> Unit:
    facts = _facts(source)
    text = "\n".join([fingerprint(facts), *(f.url for f in files)])
    name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    refs = tuple(FileRef(f.url, f.size or 0, f.fingerprint) for f in files)
    return Unit(name, refs, {"source": facts})


def _repaired(batch: pa.RecordBatch, mode: str) -> pa.RecordBatch:
    if mode == "none":
        return batch
    position = batch.schema.get_field_index("text")
    return batch.set_column(position, "text", clean_text(batch.column(position), mode))


def _candidates(batch: pa.RecordBatch, url: str) -> pa.RecordBatch:
    """A batch in the columns of candidates: uid (the table's own, or computed), then
    ``CANDIDATE_COLUMNS``, then whatever else the source carries."""
    names = batch.schema.names
    uid = batch.column("uid") if "uid" in names else uid_column(batch.column("text"), batch.column("url"))
    columns = {"uid": pc.cast(uid, pa.string())}
    for name, kind in CANDIDATE_COLUMNS.items():
        if name in names:
            columns[name] = pc.cast(batch.column(name), kind)
        elif name == "source":
            columns[name] = pa.repeat(url, batch.num_rows)
        else:
            columns[name] = pa.nulls(batch.num_rows, kind)
    rest = {name: batch.column(name) for name in names if name not in columns}
    return pa.RecordBatch.from_pydict({**columns, **rest})


def _concat(batches: list[pa.RecordBatch]) -> pa.Table:
    tables = [pa.Table.from_batches([b]) for b in batches]
    return pa.concat_tables(tables, promote_options="permissive")
