"""SQL over a workspace: every column family is a DuckDB view over its parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import pyarrow as pa

from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.samples import IMAGES_HIDDEN, base_family
from curate.dataset.selections import SELECTED, SUBSET, Selection
from curate.dataset.workspace import Workspace
from curate.errors import UserError


def connect(workspace: Workspace, sql: str) -> tuple[duckdb.DuckDBPyConnection, dict[str, list[str]]]:
    """A connection with the workspace's views.

    A selection that the statement names is held in memory, 40 bytes for every kept sample.

    Returns:
        The connection and, for each view, its columns: ``candidates``, ``images``,
        ``embeddings_<model>``, ``scores_<scorer>``, ``selection_<experiment>``, ``samples`` (images, or
        candidates in a pool without, with every score joined by uid) and ``records``.
    """
    connection = duckdb.connect()
    scheme = ""
    if not workspace.is_local:
        connection.register_filesystem(workspace.fs)
        protocol = workspace.fs.protocol
        scheme = f"{protocol if isinstance(protocol, str) else protocol[0]}://"
    views: dict[str, list[str]] = {}
    for view, pattern in _families(workspace):
        path = (scheme + workspace.full(pattern)).replace("'", "''")
        connection.execute(
            f"CREATE VIEW {view} AS SELECT * FROM read_parquet('{path}', union_by_name = true)"
        )
        views[view] = [row[0] for row in connection.execute(f"DESCRIBE {view}").fetchall()]
    base = base_family(workspace)
    if base in views:
        connection.execute(f"CREATE VIEW samples AS {_samples_sql(views, base)}")
        views["samples"] = [row[0] for row in connection.execute("DESCRIBE samples").fetchall()]
    for experiment in _folders(workspace, "selections"):
        view = f"selection_{experiment}"
        if workspace.exists(layout.selection_file(experiment, SUBSET)):
            selection = Selection(workspace, experiment)
            shards = list(selection.kept) if view.lower() in sql.lower() else []
            connection.register(view, pa.concat_tables([selection.read(s) for s in shards] or [SELECTED]))
            views[view] = SELECTED.column_names
    connection.register("records", _records(workspace))
    views["records"] = ["stage", "unit", "rows_in", "rows_out", "seconds", "finished", "failed", "error"]
    return connection, views


def run_query(workspace: Workspace, sql: str) -> pa.Table:
    """The result of one statement as an Arrow table.

    Raises:
        UserError: DuckDB's message, and the tables there are.
    """
    connection, views = connect(workspace, sql)
    try:
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        tables = "; ".join(f"{v}({', '.join(c)})" for v, c in views.items())
        raise UserError(f"query: {str(error).splitlines()[0]}\ntables: {tables}") from None


def _families(workspace: Workspace) -> Iterable[tuple[str, str]]:
    if any(p.endswith(".parquet") for p in workspace.sizes("candidates")):
        yield "candidates", layout.candidates("*")
    if any(p.endswith(".parquet") for p in workspace.sizes("images")):
        yield "images", layout.image_table("*")
    for model in _folders(workspace, "embeddings"):
        yield f"embeddings_{model}", layout.embedding_table(model, "*")
    for scorer in _folders(workspace, "scores"):
        yield f"scores_{scorer}", layout.scores(scorer, "*")


def _folders(workspace: Workspace, root: str) -> list[str]:
    try:
        entries = workspace.fs.ls(workspace.full(root), detail=True)
    except FileNotFoundError:
        return []
    return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")


def _samples_sql(views: dict[str, list[str]], base: str) -> str:
    """The samples, with the columns of every score and similarity beside them."""
    columns, where = [f"{base}.*"], ""
    if base == "images":
        hidden = [c for c in views[base] if c in IMAGES_HIDDEN]
        columns = [f"images.* EXCLUDE ({', '.join(hidden)})", "images.caption AS text"]
        where = " WHERE images.status = 'success'"
    joins = []
    for view in views:
        if view.startswith("embeddings_"):
            if "similarity" in views[view]:  # not of one modality alone
                columns.append(f"{view}.similarity AS {view.removeprefix('embeddings_')}_similarity")
                joins.append(view)
        elif view.startswith("scores_"):
            columns.append(f"{view}.* EXCLUDE (uid)")
            joins.append(view)
    joined = " ".join(f"LEFT JOIN {view} ON {view}.uid = {base}.uid" for view in joins)
    return f"SELECT {', '.join(columns)} FROM {base} {joined}{where}"


def _records(workspace: Workspace) -> pa.Table:
    store = RecordStore(workspace)
    rows: list[dict[str, Any]] = [
        {
            "stage": r.stage,
            "unit": r.unit,
            "rows_in": r.rows_in,
            "rows_out": r.rows_out,
            "seconds": r.seconds,
            "finished": r.finished,
            "failed": r.failed,
            "error": r.error,
        }
        for stage in store.stages()
        for r in store.iterate(stage)
    ]
    schema = pa.schema(
        [
            ("stage", pa.string()),
            ("unit", pa.string()),
            ("rows_in", pa.int64()),
            ("rows_out", pa.int64()),
            ("seconds", pa.float64()),
            ("finished", pa.string()),
            ("failed", pa.bool_()),
            ("error", pa.string()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)
