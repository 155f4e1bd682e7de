"""The whole trail of one sample: where it came from, what happened to it, why it stayed or went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.config.models import PipelineConfig
from curate.dataset import layout
from curate.dataset.family import CANDIDATES, IMAGES, TABLES, Family, base_family
from curate.dataset.selections import SUBSET
from curate.dataset.uid import complete_uid, shard_of
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.known import known_names

if TYPE_CHECKING:
    from curate.config.filters import Experiment
    from curate.rules.account.explain import Verdict


ROWS = 1000
"""Rows of one uid, in tables that are filtered as they are, that are looked at."""


def explain(workspace: Workspace, config: PipelineConfig, uid: str) -> dict[str, Any]:
    """What every stage recorded about a uid.

    Args:
        uid: 32 hex digits, or so many of the first that no other sample has them.

    Returns:
        ``uid``, ``shard`` and, as far as they exist, ``candidate``, ``image`` (no such key in a pool
        without images), ``embeddings`` (by
        model), ``scores`` (by scorer), ``experiments`` (by name: the verdict of every rule and
        whether it was selected) and ``export`` (by name: key and tar). Of tables that are filtered as they
        are: the candidate is the row, its shard the file.

    Raises:
        UserError: not a uid, or a workspace without shards.

    The rules are those that an experiment ran with, also when the config has changed since.
    """
    from curate.rules.account.explain import verdict

    if config.filter.tables is not None:
        return _in_tables(workspace, config, uid.lower())
    if not workspace.exists(layout.DATASET):
        raise UserError(f"{workspace.url}: nothing was ingested here yet")
    shards = int(workspace.read_json(layout.DATASET)["shards"])

    def uids_of(number: int) -> pa.ChunkedArray | None:
        path = CANDIDATES.path(layout.shard_name(number, shards))
        return workspace.read_table(path, ["uid"])["uid"] if workspace.exists(path) else None

    uid = complete_uid(uid.lower(), shards, uids_of, "explain")
    shard = layout.shard_name(shard_of(uid, shards), shards)
    trail: dict[str, Any] = {"uid": uid, "shard": shard}
    trail["candidate"] = _row(workspace, CANDIDATES.path(shard), uid)
    if trail["candidate"] is None:
        return trail
    if base_family(workspace) == IMAGES:
        trail["image"] = _row(workspace, IMAGES.path(shard), uid)
        if trail["image"] is None or trail["image"]["status"] != "success":
            return trail
    known = known_names(workspace, config)
    trail["embeddings"] = {
        m: row for m in known.models if (row := _row(workspace, Family.embeddings(m).path(shard), uid))
    }
    trail["scores"] = {
        s: row for s in known.scorers if (row := _row(workspace, Family.scores(s).path(shard), uid))
    }
    trail["experiments"] = {}
    trail["export"] = {}
    for name in known.experiments:
        found = _told(
            workspace, name, lambda name, run: verdict(workspace, name, run, known.models, known.scorers, uid)
        )
        if found is None:
            continue
        trail["experiments"][name] = found
        if exported := _exported(workspace, name, uid):
            trail["export"][name] = exported
    return trail


def _in_tables(workspace: Workspace, config: PipelineConfig, uid: str) -> dict[str, Any]:
    from curate.rules.account.explain import open_judge, verdict_of_rows
    from curate.samples.sources import Tables, TableSamples

    tables = Tables.of(config)
    assert tables is not None
    pool = TableSamples(workspace, tables).tables_pool
    uid = complete_uid(uid, 1, lambda _: pool.uids_that_begin_with(uid), "explain")
    places = list(islice(pool.places(uid), ROWS))
    if not places:
        return {"uid": uid, "shard": "none", "candidate": None}
    stored = [name for name, column in pool.columns.items() if column.family == TABLES]
    (row,) = pool.read(places[0].shard, stored).slice(places[0].row, 1).to_pylist()
    told = {}

    def judged(name: str, experiment: Experiment) -> Verdict | None:
        with open_judge(workspace, name, experiment, (), (), tables) as judge:
            return verdict_of_rows(judge, pool, places)

    for name in known_names(workspace, config).experiments:
        if (found := _told(workspace, name, judged)) is not None:
            told[name] = found
    return {"uid": uid, "shard": places[0].shard, "candidate": row, "experiments": told}


def _told(
    workspace: Workspace, name: str, judge: Callable[[str, Experiment], Verdict | None]
) -> dict[str, Any] | None:
    """What an experiment says by its rules as it ran; an ``error`` where it cannot; None without a run."""
    from curate.rules.account.run import read_run

    if not workspace.exists(layout.selection_file(name, SUBSET)):
        return None
    try:
        run = read_run(workspace, name)
        found = judge(name, run.as_config()) if run is not None else None
        return None if found is None else asdict(found)
    except UserError as error:
        return {"error": str(error)}


def _row(workspace: Workspace, path: str, uid: str) -> dict[str, Any] | None:
    if not workspace.exists(path):
        return None
    rows = _matching(workspace.read_table(path), uid).to_pylist()
    return dict(rows[0]) if rows else None


def _matching(table: pa.Table, uid: str) -> pa.Table:
    return table.filter(pc.equal(table["uid"], uid))


def _exported(workspace: Workspace, experiment: str, uid: str) -> dict[str, Any] | None:
    """Keys of a uid, and the tars that hold them, if any were written.

    Export tables are in uid order, so their footers say which one to open.
    """
    folder = layout.export_file(experiment, "x").rsplit("/", 1)[0]
    keys: list[str] = []
    tars: list[str] = []
    for path in sorted(p for p in workspace.sizes(folder) if p.endswith(".parquet")):
        with workspace.parquet(path) as file:
            position = file.schema_arrow.get_field_index("uid")
            for group in range(file.metadata.num_row_groups):
                limits = file.metadata.row_group(group).column(position).statistics
                if limits is not None and limits.min <= uid <= limits.max:
                    rows = _matching(file.read_row_group(group, ["uid", "key"]), uid)
                    keys += rows["key"].to_pylist()
                    if rows.num_rows:
                        tars.append(path.removesuffix(".parquet") + ".tar")
    there = {tar for tar in tars if workspace.exists(tar)}  # none with `export.tars: false`
    return {"keys": keys, "tars": sorted(there)} if keys else None
