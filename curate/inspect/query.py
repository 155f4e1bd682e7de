"""SQL over a workspace: every column family is a DuckDB view over its parquet files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

import duckdb
import pyarrow as pa

from curate.dataset import layout
from curate.dataset.family import IMAGES, Family, base_family, stored_families
from curate.dataset.records import RecordStore
from curate.dataset.selections import SELECTED, SUBSET, Selection
from curate.dataset.workspace import Workspace
from curate.errors import ConfigError, CurateError, UserError
from curate.inspect.known import last_config
from curate.inspect.status import need_workspace
from curate.samples.columns import HIDDEN_IMAGE_COLUMNS

_Named = TypeVar("_Named", Family, str)

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
        self._families: dict[str, list[Family]] = {}
        for family in stored_families(workspace):
            self._families.setdefault(family.view.lower(), []).append(family)
        views = list(self._families)
        self._selections = _selections(workspace)
        samples = ["samples"] if {"images", "candidates"} & set(views) else []
        self.names = [*views, *samples, *self._selections, "records"]
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
                elif name in self._selections:
                    self._make_selection(_only(name, self._selections[name], "selections/"))
                else:
                    self._make_family(_only(name, self._families[name]))
            except CurateError as error:
                self.problems[name] = str(error)

    def described(self) -> Iterator[str]:
        """Of every table its columns, or why it cannot be read."""
        for name in self.names:
            if name in self.problems:
                yield f"  {name}: {self.problems[name]}"
            else:
                shown = self._spelled(name)
                yield f"  {shown}({', '.join(self._columns(name))})"

    def _spelled(self, name: str) -> str:
        if name in self._families:
            return self._families[name][0].view
        return _selection_view(self._selections[name][0]) if name in self._selections else name

    def _columns(self, name: str) -> list[str]:
        return [row[0] for row in self._connection.execute(f"DESCRIBE {_quoted(name)}").fetchall()]

    def _make_selection(self, experiment: str) -> None:
        view = _selection_view(experiment)
        selection = Selection(self._workspace, experiment)
        shards = list(selection.kept) if view.lower() in self._words else []
        rows = pa.concat_tables([selection.read(shard) for shard in shards] or [SELECTED])
        self._connection.register(view, rows)

    def _make_family(self, family: Family) -> None:
        workspace, view = self._workspace, family.view
        again = f"run `curate {family.verb}` again"
        committed = family.by_shard(RecordStore(workspace).outputs(family.stage)).values()
        there = workspace.sizes(family.folder)
        for gone in (ref.path for ref in committed if ref.path not in there):
            raise UserError(f"{workspace.url}/{gone} is gone; {again}")
        path = workspace.store.for_duckdb(self._connection, family.path("*"))
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
        parts = [
            n
            for n, (family, *_) in self._families.items()
            if family == base or family.kind in ("embeddings", "scores")
        ]
        if base.view not in parts:
            raise UserError(f"samples: there are no {base} yet; run `curate {base.verb}`")
        self.make(parts)
        for part in parts:
            if part in self.problems:
                raise UserError(self.problems[part])
        columns = {self._families[part][0]: self._columns(part) for part in parts}
        self._connection.execute(
            f"CREATE VIEW samples AS {_samples_sql(columns, base, _first_model(self._workspace))}"
        )


def _selections(workspace: Workspace) -> dict[str, list[str]]:
    """View in lower case → the experiments that it can be the selection of."""
    found: dict[str, list[str]] = {}
    for experiment in workspace.folders(layout.SELECTIONS):
        if workspace.exists(layout.selection_file(experiment, SUBSET)):
            found.setdefault(_selection_view(experiment).lower(), []).append(experiment)
    return found


def _selection_view(experiment: str) -> str:
    return f"selection_{experiment}"


def _only(view: str, named: list[_Named], kind: str = "") -> _Named:
    """What a view stands for.

    Raises:
        UserError: several names differ in case only.
    """
    if len(named) > 1:
        which = " or ".join(f"{kind}{name}" for name in named)
        raise UserError(f"{view} can be {which}: SQL takes no notice of case; give one of them another name")
    return named[0]


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


def _samples_sql(families: dict[Family, list[str]], base: Family, first_model: str | None) -> str:
    """The samples, with the columns of every score and similarity beside them."""
    columns, where = [f"{base.view}.*"], ""
    if base == IMAGES:
        hidden = [c for c in families[base] if c in HIDDEN_IMAGE_COLUMNS]
        columns = [f"images.* EXCLUDE ({', '.join(hidden)})", "images.caption AS text"]
        where = " WHERE images.status = 'success'"
    joins = []
    for family, stored in families.items():
        table = _quoted(family.view)
        if family.kind == "embeddings" and "similarity" in stored:  # not of one modality alone
            columns.append(f"{table}.similarity AS {_quoted(f'{family.name}_similarity')}")
            if family.name == first_model and "similarity" not in families[base]:
                columns.append(f"{table}.similarity")
            joins.append(table)
        elif family.kind == "scores":
            columns.append(f"{table}.* EXCLUDE (uid)")
            joins.append(table)
    joined = " ".join(f"LEFT JOIN {table} ON {table}.uid = {base.view}.uid" for table in joins)
    return f"SELECT {', '.join(columns)} FROM {base.view} {joined}{where}"


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
