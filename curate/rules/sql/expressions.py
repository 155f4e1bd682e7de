"""SQL expressions of rules: what they read, what they give, and what they may not do.

DuckDB parses; nothing here reads SQL. Its syntax tree says which columns and functions an
expression uses, its binder says which type comes out.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import UserError
from curate.rules.cuts import Cut, Operator
from curate.rules.sql.comparisons import compared_names, cuts_in, is_column, nodes, single_cut
from curate.samples.columns import Column, need
from curate.samples.database import Database, one_line, registered, select, sql_error
from curate.samples.types import plain_type, scan_type

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
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+|similarity|width|height")
_KEYWORDS = {"grouping_id", "pivot_longer", "pivot_wider", "try_cast"}
"""Names of that form that are none to SQL."""
_PLAIN_COMPARISON = re.compile(
    r"(?P<name>\w+) ?"
    r"(?:(?P<sign>>=|<=|>|<)(?P<minus> -| ?)(?P<number>\d{1,9}(?:\.\d{1,9})?)|= ?'(?P<text>[^'\0]*)')",
    re.ASCII,
)
_AND = re.compile(" AND ", re.IGNORECASE)
_SIGNS = {">=": "greater_equal", "<=": "less_equal", ">": "greater", "<": "less"}
_PLAIN = {
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
}
"""Numbers that need no SQL to become DOUBLE, and DuckDB's names of them."""
_EXACT_DIGITS = {pa.float32(): 7, pa.float64(): 15}
"""Decimal numbers of so many digits are rounded once, whoever reads them."""
_UNSIGNED = tuple(f"U{name}" for name in _NUMBERS[:5])


Short = Callable[[pa.Table], pa.ChunkedArray]


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        sql: what DuckDB evaluates; a number is cast to DOUBLE.
        text: what the user wrote.
        place: key path of the rule, for messages.
        columns: names of the columns it reads, as they are stored, sorted.
        type: DuckDB's name of what the text evaluates to.
        short: gives the same values of a table without SQL, where that is possible.
        column: the stored column that it is, if it is one and nothing more.
        cuts: comparisons of a column with a number that stand in it, in their order.
        is_cut: it is the one comparison in ``cuts`` and nothing more.
    """

    sql: str
    text: str
    place: str
    columns: tuple[str, ...]
    type: str
    short: Short | None = field(default=None, compare=False)
    column: str | None = None
    cuts: tuple[Cut, ...] = ()
    is_cut: bool = False

    @property
    def subject(self) -> str:
        """What is compared when it is compared: a stored column, or the expression as it is written."""
        return self.column or self.text


class Checker:
    """Checks expressions against the columns of a pool."""

    def __init__(self, connection: Database, columns: dict[str, Column]) -> None:
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
        plain = self._plain(text, place, want)
        if plain is not None:
            return plain
        tree = self._parse(text, place)
        used = _Used()
        self._walk(tree, used, place, trail=())
        # A lambda's argument may have the name of a column that is used elsewhere: rather read one too many.
        wanted = {n for n in used.names if n not in used.parameters or n in self.columns}
        self._refuse_bare_words(tree, place)
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
        sql = _double(text) if want == "number" else text
        column = names[0] if is_column(tree) and len(tree["column_names"]) == 1 else None
        short: Short | None = None
        if want == "number" and column is not None and kind in _PLAIN.values():
            short = functools.partial(_as_doubles, column)
        elif want == "condition" and (found := _COMPARISON.fullmatch(text)) and len(names) == 1:
            short = self._comparison(names[0], found[2], found[3])
        stored = {name.lower(): name for name in names}
        cuts = (
            replace(cut, column=stored[cut.column.lower()])
            for cut in (cuts_in(tree) if want == "condition" else ())
            if cut.column.lower() in stored
        )
        is_cut = want == "condition" and single_cut(tree) is not None
        return Expression(sql, text, place, tuple(names), kind, short, column, tuple(cuts), is_cut)

    def _plain(self, text: str, place: str, want: Want) -> Expression | None:
        """A number that is a column, or comparisons of columns with numbers and texts, all of which hold.

        What that means is clear without DuckDB, which takes its time to start. None: it has to be asked.
        """
        if want == "number" and self._is_plain(text):
            kind = scan_type(self.columns[text].type)
            if kind not in _PLAIN:
                return None
            number = functools.partial(_as_doubles, text)
            return Expression(_double(text), text, place, (text,), _PLAIN[kind], number, column=text)
        if want != "condition":
            return None
        parts: list[Short] = []
        cuts: list[Cut] = []
        names = set()
        for part in _AND.split(text):
            found = _PLAIN_COMPARISON.fullmatch(part)
            compared = self._plain_comparison(found) if found and self._is_plain(found["name"]) else None
            if found is None or compared is None:
                return None
            parts.append(compared)
            names.add(found["name"])
            if found["number"] is not None:
                value = float(found["minus"].lstrip() + found["number"])
                cuts.append(Cut(found["name"], cast(Operator, found["sign"]), value))
        whole = parts[0] if len(parts) == 1 else functools.partial(_all_hold, parts)
        columns, is_cut = tuple(sorted(names)), len(parts) == len(cuts) == 1
        return Expression(text, text, place, columns, "BOOLEAN", whole, cuts=tuple(cuts), is_cut=is_cut)

    def _is_plain(self, name: str) -> bool:
        """Whether it is the name of a column, and to SQL as well."""
        return name in self.columns and name not in _KEYWORDS and _PLAIN_NAME.fullmatch(name) is not None

    def _plain_comparison(self, found: re.Match[str]) -> Short | None:
        name, stored = found["name"], self.columns[found["name"]].type
        if found["text"] is None:
            bound = _bound(scan_type(stored), found["minus"].lstrip() + found["number"])
            return None if bound is None else functools.partial(_compared, name, _SIGNS[found["sign"]], bound)
        if not pa.types.is_string(plain_type(stored)):
            return None
        return functools.partial(_is_text, name, pa.scalar(found["text"], pa.string()))

    def _comparison(self, name: str, sign: str, number: str) -> Short | None:
        """The comparison of a column with a number, as DuckDB does it: in the type of the column."""
        kind = scan_type(self.columns[name].type)
        bound = _bound(kind, number)
        if bound is None:
            if kind not in _EXACT_DIGITS:
                return None
            ((value,),) = self.connection.execute(f"SELECT CAST({number} AS {_PLAIN[kind]})").fetchall()
            bound = pa.scalar(value, kind)
        return functools.partial(_compared, name, _SIGNS[sign], bound)

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
        for found in nodes(node):
            kind = found["class"]
            if kind == "COLUMN_REF":
                used.names.add(found["column_names"][0])
            elif kind == "LAMBDA":
                used.parameters |= {n["column_names"][0] for n in nodes(found.get("lhs")) if is_column(n)}
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

    def _refuse_bare_words(self, tree: Any, place: str) -> None:
        """Say what ``lang = en`` and ``lang = "en"`` lack: to SQL both name a column."""
        known = {name.lower(): name for name in self.columns}
        for name, word in compared_names(tree):
            column = known.get(name.lower())
            if column is None or not pa.types.is_string(plain_type(self.columns[column].type)):
                continue
            if not difflib.get_close_matches(word.lower(), known, cutoff=0.75):
                raise UserError(
                    f"{place}: unknown column '{word}'; a text wants single quotes: {column} = '{word}'"
                )

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
        except sql_error() as error:
            raise UserError(f"{place}: '{_short(text)}': {one_line(error)}") from None
        return str(rows[0][1])


@lru_cache(maxsize=1)
def _functions() -> dict[str, frozenset[str]]:
    """Function name → scalar, macro, aggregate, window, table, pragma, changing."""
    found: dict[str, set[str]] = {}
    for name, kind, stability in _query_functions("lower(function_name), function_type, stability", ""):
        fixed = kind != "scalar" or stability == "CONSISTENT"
        found.setdefault(name, set()).add(kind if fixed else "changing")
    return {name: frozenset(kinds) for name, kinds in found.items()}


@lru_cache(maxsize=1)
def _macros() -> dict[str, tuple[tuple[frozenset[str], str], ...]]:
    """Macro name → for each of its forms the parameters and the expression it stands for."""
    found: dict[str, tuple[tuple[frozenset[str], str], ...]] = {}
    about = "lower(function_name), parameters, macro_definition"
    for name, parameters, definition in _query_functions(about, "WHERE function_type = 'macro' ORDER BY ALL"):
        found[name] = (*found.get(name, ()), (frozenset(parameters), definition))
    return found


def _query_functions(about: str, which: str) -> list[Any]:
    """What DuckDB says about functions; not asked for by expressions that are plain."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        return connection.execute(f"SELECT DISTINCT {about} FROM duckdb_functions() {which}").fetchall()


class _Used:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self.parameters: set[str] = set()
        """Names that a lambda gives to its own arguments."""


def evaluate(
    connection: Database, table: pa.Table, expressions: Sequence[Expression]
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
            found[expression.sql] = expression.short(table)
    if asked:
        found |= zip(asked, select(connection, table, asked).columns, strict=True)
    return found


def _double(text: str) -> str:
    return f"CAST(({text}\n) AS DOUBLE)"


def _bound(kind: pa.DataType, number: str) -> pa.Scalar | None:
    """A decimal number as a value to compare a column of this type with; None: not without SQL."""
    if pa.types.is_integer(kind) and kind != pa.uint64() and "." not in number:
        return pa.scalar(int(number), pa.int64())
    if len(number.lstrip("-").replace(".", "")) <= _EXACT_DIGITS.get(kind, 0):
        return pa.scalar(float(number), kind)
    return None


def _as_doubles(name: str, table: pa.Table) -> pa.ChunkedArray:
    return table[name].cast(pa.float64(), safe=False)


def _compared(name: str, sign: str, bound: pa.Scalar, table: pa.Table) -> pa.ChunkedArray:
    return pc.call_function(sign, [table[name], bound])


def _is_text(name: str, text: pa.Scalar, table: pa.Table) -> pa.ChunkedArray:
    values = table[name]
    if not pa.types.is_dictionary(values.type):
        return pc.equal(values, text)
    # The text's number is compared, -1 when it is not there.
    chunks = (pc.equal(chunk.indices, pc.index(chunk.dictionary, text)) for chunk in values.chunks)
    return pa.chunked_array(chunks, pa.bool_())


def _all_hold(parts: Sequence[Short], table: pa.Table) -> pa.ChunkedArray:
    return functools.reduce(pc.and_kleene, (part(table) for part in parts))


def _is_number(kind: str) -> bool:
    return kind.split("(")[0] in (*_NUMBERS, *_UNSIGNED)


def _described(kind: str) -> str:
    return "NULL for every row" if kind.strip('"') == "NULL" else kind


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "…"
