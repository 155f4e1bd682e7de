"""SQL over a workspace: every column family is a DuckDB view over its parquet files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

import duckdb
import pyarrow as pa

from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.samples import BASES, IMAGES_HIDDEN, base_family, family_path, files_by_shard, stage_of
from curate.dataset.selections import SELECTED, SUBSET, Selection
from curate.dataset.workspace import Workspace
from curate.errors import ConfigError, CurateError, UserError
from curate.inspect.known import last_config
from curate.inspect.status import need_workspace

RECORDS = pa.schema(
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


def run_query(workspace: Workspace, sql: str) -> pa.Table:
    """The result of a statement, or of the last of several, as an Arrow table.

    The tables are ``candidates``, ``images``, ``embeddings_<model>``, ``scores_<scorer>``,
    ``selection_<experiment>``, ``records`` and ``samples``: images, or candidates in a pool without, with
    all scores and similarities joined by uid; ``similarity`` is that of the last config's first model.
    Only the files of tables that the statement reads are opened. A selection that it reads is held in
    memory, 40 bytes for every kept sample.

    Raises:
        UserError: the folder is no workspace, there is no statement, a table that is read has a file that
            is broken or gone, or what DuckDB says; with the tables there are when a name is unknown.
    """
    need_workspace(workspace)
    if any("\ud800" <= letter <= "\udfff" for letter in sql):
        raise UserError("query: the statement is not valid UTF-8")
    # A name that is no table is not to be found among the variables of this program.
    with duckdb.connect(config={"python_enable_replacements": "false"}) as connection:
        try:
            return _answer(connection, _Tables(connection, workspace, _words(sql)), sql)
        except duckdb.Error as error:
            raise UserError(f"query: {_said(error)}") from None


def _answer(connection: duckdb.DuckDBPyConnection, tables: _Tables, sql: str) -> pa.Table:
    statements = len(connection.extract_statements(sql))
    if not statements:
        raise UserError("query: no statement")
    read = _read(connection, sql, tables.names)
    tables.make(read or tables.names)
    for name in read:
        if name in tables.problems:
            raise UserError(f"query: {tables.problems[name]}")
    try:
        return _distinct(connection.sql(sql).to_arrow_table())
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        tables.make(tables.names)
        said = _said(error)
        if statements == 1:  # what was done before the last one is not done twice
            try:
                # Now that all tables are there, DuckDB knows which may have been meant.
                connection.sql(sql)
            except duckdb.Error as again:
                said = _said(again)
        lines = [f"query: {said}", "tables:", *tables.described()]
        # What is indented goes with the line before.
        raise UserError("\n  ".join("\n".join(lines).splitlines())) from None
    except duckdb.Error as error:
        # Of bytes that make no sense it says neither in which file they are, nor that they are in one.
        broken = (
            f"; a file of {' or '.join(read)} may be broken" if read and type(error) is duckdb.Error else ""
        )
        raise UserError(f"query: {_said(error)}{broken}") from None


class _Tables:
    """The tables of a workspace, made when they are asked for.

    Args:
        words: of the statement. A table that is held in memory is without rows when it is none of them.

    Attributes:
        names: of all there are, in lower case: to SQL that is the same.
        problems: name → why it cannot be read.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, workspace: Workspace, words: Collection[str]
    ) -> None:
        self._connection = connection
        self._workspace = workspace
        self._words = words
        self._families: dict[str, list[str]] = {}
        for family in _families(workspace):
            self._families.setdefault(_view(family).lower(), []).append(family)
        views = list(self._families)
        selections = [name for name in views if name.startswith("selection_")]
        samples = ["samples"] if {"images", "candidates"} & set(views) else []
        self.names = [*(v for v in views if v not in selections), *samples, *selections, "records"]
        self.problems: dict[str, str] = {}
        self._made: set[str] = set()

    def make(self, names: Iterable[str]) -> None:
        """Make those that are not made yet."""
        for name in names:
            if name in self._made:
                continue
            self._made.add(name)
            try:
                if name == "samples":
                    self._make_samples()
                elif name == "records":
                    rows = _records(self._workspace) if name in self._words else RECORDS.empty_table()
                    self._connection.register(name, rows)
                elif len(self._families[name]) > 1:
                    which = " or ".join(self._families[name])
                    raise UserError(
                        f"{name} can be {which}: SQL takes no notice of case; give one of them another name"
                    )
                else:
                    self._make_family(self._families[name][0])
            except CurateError as error:
                self.problems[name] = str(error)

    def described(self) -> Iterator[str]:
        """Of every table its columns, or why it cannot be read."""
        for name in self.names:
            if name in self.problems:
                yield f"  {name}: {self.problems[name]}"
            else:
                shown = _view(self._families[name][0]) if name in self._families else name
                yield f"  {shown}({', '.join(self._columns(name))})"

    def _columns(self, name: str) -> list[str]:
        return [row[0] for row in self._connection.execute(f"DESCRIBE {_quoted(name)}").fetchall()]

    def _make_family(self, family: str) -> None:
        kind, _, name = family.partition("/")
        workspace, view = self._workspace, _view(family)
        if kind == "selections":
            selection = Selection(workspace, name)
            shards = list(selection.kept) if view.lower() in self._words else []
            rows = pa.concat_tables([selection.read(shard) for shard in shards] or [SELECTED])
            self._connection.register(view, rows)
            return
        stage = stage_of(family)
        again = f"run `curate {stage.partition('/')[0]}` again"
        committed = files_by_shard(family, RecordStore(workspace).outputs(stage)).values()
        there = workspace.sizes(family_path(family, "x").rpartition("/")[0])
        for gone in (ref.path for ref in committed if ref.path not in there):
            raise UserError(f"{workspace.url}/{gone} is gone; {again}")
        path = _scheme(self._connection, workspace) + workspace.full(family_path(family, "*"))
        literal = path.replace("'", "''")
        try:
            self._connection.execute(
                f"CREATE VIEW {_quoted(view)} AS "
                f"SELECT * FROM read_parquet('{literal}', union_by_name = true)"
            )
        except duckdb.InvalidInputException as error:
            raise UserError(f"{_said(error)}; remove that file and {again}") from None
        except duckdb.Error as error:
            raise UserError(_said(error)) from None

    def _make_samples(self) -> None:
        base = base_family(self._workspace)
        parts = [n for n in self._families if n == base or n.startswith(("embeddings_", "scores_"))]
        if base not in parts:
            raise UserError(f"samples: there are no {base} yet; run `curate {BASES[base]}`")
        self.make(parts)
        for part in parts:
            if part in self.problems:
                raise UserError(self.problems[part])
        columns = {_view(self._families[part][0]): self._columns(part) for part in parts}
        self._connection.execute(
            f"CREATE VIEW samples AS {_samples_sql(columns, base, _first_model(self._workspace))}"
        )


def _families(workspace: Workspace) -> Iterator[str]:
    """Those that have a file, and the selections."""
    embeddings = [f"embeddings/{name}" for name in _folders(workspace, "embeddings")]
    scores = [f"scores/{name}" for name in _folders(workspace, "scores")]
    for family in ("candidates", "images", *embeddings, *scores):
        folder = family_path(family, "x").rpartition("/")[0]
        if any(path.endswith(".parquet") for path in workspace.sizes(folder)):
            yield family
    for experiment in _folders(workspace, "selections"):
        if workspace.exists(layout.selection_file(experiment, SUBSET)):
            yield f"selections/{experiment}"


def _view(family: str) -> str:
    return family.replace("selections/", "selection/").replace("/", "_")


def _folders(workspace: Workspace, root: str) -> list[str]:
    try:
        entries = workspace.fs.ls(workspace.full(root), detail=True)
    except FileNotFoundError:
        return []
    return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")


def _read(connection: duckdb.DuckDBPyConnection, sql: str, names: Iterable[str]) -> list[str]:
    """Those of the tables that a statement reads; at worst, all whose names occur in it."""
    try:
        found = {name.lower() for name in connection.get_table_names(sql)}
    except duckdb.Error:  # several statements, or a join that needs to know columns
        found = _words(sql)
    return [name for name in names if name in found]


def _words(sql: str) -> set[str]:
    return set(re.findall(r"\w+", sql.lower()))


def _first_model(workspace: Workspace) -> str | None:
    """The model whose similarity is ``similarity``, by the config that ran last."""
    try:
        config = last_config(workspace)
    except ConfigError:
        # Of another version: everything else can be asked all the same.
        return None
    return None if config is None else next(iter(config.embed.models), None)


def _samples_sql(views: dict[str, list[str]], base: str, first_model: str | None) -> str:
    """The samples, with the columns of every score and similarity beside them."""
    columns, where = [f"{base}.*"], ""
    if base == "images":
        hidden = [c for c in views[base] if c in IMAGES_HIDDEN]
        columns = [f"images.* EXCLUDE ({', '.join(hidden)})", "images.caption AS text"]
        where = " WHERE images.status = 'success'"
    joins = []
    for view in views:
        table = _quoted(view)
        if view.startswith("embeddings_") and "similarity" in views[view]:  # not of one modality alone
            model = view.removeprefix("embeddings_")
            columns.append(f"{table}.similarity AS {_quoted(f'{model}_similarity')}")
            if model == first_model and "similarity" not in views[base]:
                columns.append(f"{table}.similarity")
            joins.append(table)
        elif view.startswith("scores_"):
            columns.append(f"{table}.* EXCLUDE (uid)")
            joins.append(table)
    joined = " ".join(f"LEFT JOIN {table} ON {table}.uid = {base}.uid" for table in joins)
    return f"SELECT {', '.join(columns)} FROM {base} {joined}{where}"


def _scheme(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> str:
    """What DuckDB needs before a path of a workspace that is not local."""
    if workspace.is_local:
        return ""
    protocol = workspace.fs.protocol
    name = protocol if isinstance(protocol, str) else protocol[0]
    if not connection.filesystem_is_registered(name):
        connection.register_filesystem(workspace.fs)
    return f"{name}://"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _said(error: duckdb.Error) -> str:
    """DuckDB's message without its drawing of the statement."""
    return str(error).split("\n\nLINE", 1)[0].strip()


def _distinct(table: pa.Table) -> pa.Table:
    """Columns of one name get numbers, as DuckDB gives them when it stores a result."""
    taken = set(table.column_names)
    names: list[str] = []
    for name in table.column_names:
        number = 0
        new = name
        while new in names or (number and new in taken):
            number += 1
            new = f"{name}_{number}"
        names.append(new)
    return table.rename_columns(names)


def _records(workspace: Workspace) -> pa.Table:
    store = RecordStore(workspace)
    rows = (r for stage in store.stages() for r in store.iterate(stage))
    return pa.Table.from_pylist([{n: getattr(r, n) for n in RECORDS.names} for r in rows], RECORDS)
