"""SQL expressions of rules: what they read, what they give, and what they may not do.

DuckDB parses; nothing here reads SQL. Its syntax tree says which columns and functions an
expression uses, its binder says which type comes out.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset.samples import Column, need
from curate.errors import UserError
from curate.rules.database import one_line, registered, select

Want = Literal["condition", "number", "key"]

_ROW_LOCAL = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "LAMBDA_REF",
    "OPERATOR",
    "TYPE",
}
"""Classes of nodes that look at nothing but their own row. A class that is not listed is refused."""

_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "DEFAULT": "DEFAULT",
}

_NOT_CONSTANT = {"age", "current_localtime", "current_localtimestamp", "json_serialize_plan"}
"""Functions that DuckDB lists as consistent although they look at the clock or at the catalogue."""

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
_COMPARISON = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*")
_SIGNS = {">=": "greater_equal", "<=": "less_equal", ">": "greater", "<": "less"}
_PLAIN = {"FLOAT", "DOUBLE", *(f"{sign}{n}" for sign in ("", "U") for n in ("TINYINT", "SMALLINT"))} | {
    f"{sign}{n}" for sign in ("", "U") for n in ("INTEGER", "BIGINT")
}
"""Numbers that need no SQL to become DOUBLE."""
_UNSIGNED = tuple(f"U{name}" for name in _NUMBERS[:5])


Short = Callable[[pa.ChunkedArray], pa.ChunkedArray]


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        sql: what DuckDB evaluates; a number is cast to DOUBLE.
        text: what the user wrote.
        place: key path of the rule, for messages.
        columns: names of the columns it reads, as they are stored, sorted.
        type: DuckDB's name of what the text evaluates to.
        short: gives the same values of a column without SQL, where that is possible.
    """

    sql: str
    text: str
    place: str
    columns: tuple[str, ...]
    type: str
    short: Short | None = field(default=None, compare=False)


class Checker:
    """Checks expressions against the columns of a pool."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, columns: dict[str, Column]) -> None:
        self.connection = connection
        self.columns = columns

    def check(self, text: str, place: str, want: Want) -> Expression:
        """Parse and bind one expression.

        Args:
            text: SQL of one expression over the samples' columns.
            place: key path of the rule, begins every message.
            want: ``condition`` must be BOOLEAN, ``number`` numeric, ``key`` may be anything.

        Raises:
            UserError: syntax, unknown column or function, wrong type, or something that looks
                beyond its own row or is not the same at every run.
        """
        tree = self._parse(text, place)
        used = _Used()
        self._walk(tree, used, place, trail=())
        # A lambda's argument may have the name of a column that is used elsewhere: rather read one too many.
        wanted = {n for n in used.names if n not in used.parameters or n in self.columns}
        names = sorted({self._stored_name(n, place) for n in wanted})
        kind = self._bind(text, names, place)
        if want == "condition" and kind != "BOOLEAN":
            raise UserError(
                f"{place}: '{_short(text)}' is {_described(kind)}, not a condition; "
                "compare it with something, e.g. `… >= 0.3`"
            )
        if want == "number" and not _is_number(kind):
            raise UserError(f"{place}: '{_short(text)}' is {_described(kind)}, not a number")
        if want == "key" and not names:
            raise UserError(f"{place}: '{_short(text)}' reads no column: every row would have the same key")
        sql = f"CAST(({text}\n) AS DOUBLE)" if want == "number" else text
        short: Short | None = None
        if want == "number" and _is_ref(tree) and len(tree["column_names"]) == 1 and kind in _PLAIN:
            short = _as_doubles
        elif want == "condition" and (found := _COMPARISON.fullmatch(text)) and len(names) == 1:
            short = self._comparison(self.columns[names[0]], found[2], found[3])
        return Expression(sql, text, place, tuple(names), kind, short)

    def _comparison(self, column: Column, sign: str, number: str) -> Short | None:
        """The comparison of a column with a number, as DuckDB does it: in the type of the column."""
        kind = scan_type(column.type)
        name = {pa.float32(): "FLOAT", pa.float64(): "DOUBLE"}.get(kind)
        if name is None:
            if not pa.types.is_integer(kind) or kind == pa.uint64() or not number.lstrip("-").isdigit():
                return None
            kind, name = pa.int64(), "BIGINT"
        ((value,),) = self.connection.execute(f"SELECT CAST({number} AS {name})").fetchall()
        return functools.partial(_compared, _SIGNS[sign], pa.scalar(value, kind))

    def _parse(self, text: str, place: str) -> Any:
        """The syntax tree of exactly one expression."""
        answer = self._serialized(f"SELECT ({text}\n)")
        if answer["error"]:
            bare = self._serialized(f"SELECT {text}")
            worse = bare if bare["error"] else answer
            if "Only SELECT" not in worse["error_message"]:
                raise UserError(f"{place}: cannot parse '{_short(text)}': {one_line(worse['error_message'])}")
        statements = [] if answer["error"] else [s["node"] for s in answer["statements"]]
        if len(statements) != 1 or len(statements[0].get("select_list", ())) != 1:
            raise UserError(f"{place}: '{_short(text)}' is not one SQL expression")
        (tree,) = statements[0]["select_list"]
        frame = {k: v for k, v in statements[0].items() if k != "select_list"}
        if frame != self._plain_frame or tree.get("alias"):
            raise UserError(f"{place}: '{_short(text)}' is not one SQL expression")
        return tree

    @cached_property
    def _plain_frame(self) -> Any:
        """What is around the select list of a query that is nothing but an expression."""
        (statement,) = self._serialized("SELECT (1\n)")["statements"]
        return {k: v for k, v in statement["node"].items() if k != "select_list"}

    def _serialized(self, sql: str) -> Any:
        ((text,),) = self.connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
        return json.loads(text)

    def _walk(self, node: Any, used: _Used, place: str, trail: tuple[str, ...]) -> None:
        """Collect column names below a node; refuse what is not row-local."""
        for found in _nodes(node):
            kind = found["class"]
            if kind == "COLUMN_REF":
                used.names.add(found["column_names"][0])
            elif kind == "LAMBDA":
                used.parameters |= {n["column_names"][0] for n in _nodes(found.get("lhs")) if _is_ref(n)}
            elif kind == "FUNCTION":
                self._function(found, used, place, trail)
            elif kind not in _ROW_LOCAL:
                what = _REFUSED.get(kind, kind.lower())
                raise UserError(f"{place}: {what} is not possible: a rule looks at its own row only")

    def _function(self, node: Mapping[str, Any], used: _Used, place: str, trail: tuple[str, ...]) -> None:
        name = str(node["function_name"]).lower()
        # `text.lower()` is a call on a column; the parser takes the column for a schema.
        qualifiers = [q for q in (node.get("catalog"), node.get("schema")) if q]
        used.names |= set(qualifiers[:1])
        kinds = _functions().get(name, frozenset())
        if name in _NOT_CONSTANT or name.startswith("__internal") or kinds & {"changing"}:
            raise UserError(f"{place}: {name}() is not possible: it is not the same at every run")
        if kinds & {"aggregate", "window"}:
            raise UserError(
                f"{place}: {name}() is not possible: it looks at other rows, a rule at its own row only"
            )
        for parameters, definition in _macros().get(name, ()) if name not in trail else ():
            tree = self._serialized(f"SELECT ({definition}\n)")["statements"][0]["node"]["select_list"]
            inner = _Used()
            self._walk(tree, inner, place, (*trail, name))
            if inner.names - inner.parameters - parameters:  # current_timestamp and its like
                raise UserError(f"{place}: {name}() is not possible: it is not the same at every run")
        if (kinds and not kinds & {"scalar", "macro"}) or name == "unnest":
            raise UserError(f"{place}: {name}() is not possible: a rule gives one value for its own row")

    def _stored_name(self, name: str, place: str) -> str:
        """SQL names ignore case; the stored one is what has to be read."""
        if name not in self.columns:
            same = [c for c in self.columns if c.lower() == name.lower()]
            if len(same) == 1:
                return same[0]
        need(self.columns, name, place)
        return name

    def _bind(self, text: str, names: list[str], place: str) -> str:
        """DuckDB's type of an expression over columns of these names."""
        fields = [pa.field(n, scan_type(self.columns[n].type)) for n in names]
        # A row of NULLs, so that constants are evaluated, too.
        schema = pa.schema(fields or [pa.field("uid", pa.string())])
        nulls = pa.table([pa.nulls(1, f.type) for f in schema], schema)
        try:
            with registered(self.connection, "samples", nulls):
                self.connection.execute(f"SELECT ({text}\n) AS value FROM samples").fetchall()
                rows = self.connection.execute(f"DESCRIBE SELECT ({text}\n) AS value FROM samples").fetchall()
        except duckdb.Error as error:
            raise UserError(f"{place}: '{_short(text)}': {one_line(error)}") from None
        return str(rows[0][1])


@lru_cache(maxsize=1)
def _functions() -> dict[str, frozenset[str]]:
    """Function name → scalar, macro, aggregate, window, table, pragma, changing."""
    found: dict[str, set[str]] = {}
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name), function_type, stability FROM duckdb_functions()"
        ).fetchall()
    for name, kind, stability in rows:
        fixed = kind != "scalar" or stability == "CONSISTENT"
        found.setdefault(name, set()).add(kind if fixed else "changing")
    return {name: frozenset(kinds) for name, kinds in found.items()}


@lru_cache(maxsize=1)
def _macros() -> dict[str, tuple[tuple[frozenset[str], str], ...]]:
    """Macro name → for each of its forms the parameters and the expression it stands for."""
    found: dict[str, tuple[tuple[frozenset[str], str], ...]] = {}
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name), parameters, macro_definition FROM duckdb_functions() "
            "WHERE function_type = 'macro' ORDER BY ALL"
        ).fetchall()
    for name, parameters, definition in rows:
        found[name] = (*found.get(name, ()), (frozenset(parameters), definition))
    return found


class _Used:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self.parameters: set[str] = set()
        """Names that a lambda gives to its own arguments."""


def evaluate(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, expressions: Sequence[Expression]
) -> dict[str, pa.ChunkedArray]:
    """SQL → values of row-local expressions over a table, in its row order; equal ones only once.

    What can be had without SQL is: a query costs more than most of what it computes.

    Raises:
        duckdb.Error: an expression fails on a row.
    """
    found, asked = {}, []
    for expression in {e.sql: e for e in expressions}.values():
        if expression.short is None:
            asked.append(expression.sql)
        else:
            found[expression.sql] = expression.short(table[expression.columns[0]])
    if asked:
        found |= zip(asked, select(connection, table, asked).columns, strict=True)
    return found


def _as_doubles(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(pa.float64(), safe=False)


def _compared(sign: str, bound: pa.Scalar, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.call_function(sign, [values, bound])


def scan_type(stored: pa.DataType) -> pa.DataType:
    """The Arrow type in which DuckDB sees a stored column: it does not read half floats."""
    return pa.float32() if pa.types.is_float16(stored) else stored


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All expression nodes in a serialized tree, outermost first."""
    if isinstance(value, dict):
        if isinstance(value.get("class"), str):
            yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _is_ref(node: Mapping[str, Any]) -> bool:
    return bool(node["class"] == "COLUMN_REF")


def _is_number(kind: str) -> bool:
    return kind.split("(")[0] in (*_NUMBERS, *_UNSIGNED)


def _described(kind: str) -> str:
    return "NULL for every row" if kind.strip('"') == "NULL" else kind


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "…"
