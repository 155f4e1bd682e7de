from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset.family import IMAGES
from curate.errors import UserError
from curate.rules.sql.expressions import Checker, Want, evaluate
from curate.samples.columns import Column
from curate.samples.database import open_database, select
from curate.samples.types import scan_type

COLUMNS = {
    "uid": Column(IMAGES, "uid", pa.string()),
    "text": Column(IMAGES, "caption", pa.string()),
    "width": Column(IMAGES, "width", pa.int32()),
    "height": Column(IMAGES, "height", pa.int32()),
    "exif": Column(IMAGES, "exif", pa.null()),
    "words": Column("scores/t", "words", pa.list_(pa.int32())),
    "similarity": Column("embeddings/b32", "similarity", pa.float32()),
    "half": Column("scores/t", "half", pa.float16()),
    "Odd Name": Column("scores/t", "Odd Name", pa.float64()),
}
PLACE = "filter.experiments.basic.rules.clip"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_database(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("similarity >= 0.3", ["similarity"]),
        ("SIMILARITY >= 0.3 AND Width > height", ["height", "similarity", "width"]),
        ('"Odd Name" > 1 -- a remark', ["Odd Name"]),
        ("true", []),
        ("text.lower().contains('x')", ["text"]),
        ("list_filter(words, lambda x: x > width)[1] > 3", ["width", "words"]),
        ("len([h for h in words if h > 2]) > 1", ["words"]),
        ("len([height for height in words if height > 2]) > height", ["height", "words"]),
        ("half > 0.5 OR exif IS NULL", ["exif", "half"]),
        ("nullif(width, 3) BETWEEN 1 AND least(height, 9)", ["height", "width"]),
        ("CASE WHEN text LIKE '%a%' THEN width ELSE height END IN (1, 2)", ["height", "text", "width"]),
        ("split_part(text, ' ', 1) ~ '^[a-z]+$'", ["text"]),
        ("TRY_CAST(text AS INTEGER) > 3 AND md5(uid) > '8'", ["text", "uid"]),
    ],
)
def test_columns_are_found_by_duckdb(
    connection: duckdb.DuckDBPyConnection, text: str, columns: list[str]
) -> None:
    checked = Checker(connection, COLUMNS).check(text, PLACE, "condition")
    assert list(checked.columns) == columns
    assert checked.type == "BOOLEAN"


@pytest.mark.parametrize(
    ("text", "want", "message"),
    [
        ("similarty >= 0.3", "condition", "unknown column 'similarty'; did you mean similarity?"),
        ("samples.width > 3", "condition", "unknown column 'samples'"),
        ("main.lower(text) = 'a'", "condition", "unknown column 'main'"),
        ("current_date > '2020-01-01'", "condition", "unknown column 'current_date'"),
        ("similarity >=", "condition", "cannot parse 'similarity >=': syntax error at or near \">=\""),
        ("width > ) 3", "condition", "cannot parse 'width > ) 3': syntax error at or near \")\""),
        ("1); DROP TABLE samples; SELECT (1", "condition", "cannot parse"),
        ("1); SELECT (1", "condition", "is not one SQL expression"),
        ("true) FROM read_csv('/etc/passwd') WHERE (true", "condition", "is not one SQL expression"),
        ("true) LIMIT (1", "condition", "is not one SQL expression"),
        ("true), (false", "condition", "is not one SQL expression"),
        ("true) AS x, (false", "condition", "is not one SQL expression"),
        ("similarity", "condition", "'similarity' is FLOAT, not a condition; compare it with something"),
        ("exif", "condition", "'exif' is NULL for every row, not a condition"),
        ("text", "number", "'text' is VARCHAR, not a number"),
        ("width > 3", "number", "'width > 3' is BOOLEAN, not a number"),
        ("(SELECT true)", "condition", "a subquery is not possible: a rule looks at its own row only"),
        ("EXISTS (SELECT 1)", "condition", "a subquery is not possible"),
        ("width = ANY([1, 2])", "condition", "a subquery is not possible"),
        ("width IN (SELECT 1)", "condition", "a subquery is not possible"),
        ("row_number() OVER () > 3", "condition", "a window function is not possible"),
        ("sum(width) > 3", "condition", "sum() is not possible: it looks at other rows"),
        ("avg(width) > 3", "condition", "avg() is not possible: it looks at other rows"),
        ("geomean(width) > 3", "condition", "avg() is not possible: it looks at other rows"),
        ("row_number() > 3", "condition", "row_number() is not possible"),
        ("unnest(words) > 3", "condition", "unnest() is not possible: a rule gives one value"),
        (
            "read_csv('/etc/passwd') IS NULL",
            "condition",
            "read_csv() is not possible",
        ),
        ("COLUMNS('w.*') > 3", "condition", "a star is not possible"),
        ("width > $1", "condition", "a parameter is not possible"),
        ("random() < 0.5", "condition", "random() is not possible: it is not the same at every run"),
        ("now() > '2020-01-01'", "condition", "now() is not possible: it is not the same at every run"),
        ("ago(INTERVAL 1 DAY) > '2020-01-01'", "condition", "ago() is not possible: it is not the same"),
        ("current_localtimestamp() > '2020-01-01'", "condition", "current_localtimestamp() is not possible"),
        ("current_setting('threads') = 2", "condition", "current_setting() is not possible"),
        ("pg_sleep(9) IS NULL", "condition", "sleep_ms() is not possible"),
        ("nosuch(width) > 3", "condition", "Scalar Function with name nosuch does not exist"),
        ("length(width) > 3", "condition", "No function matches the given name and argument types"),
        ("width > 'wide'", "condition", "Could not convert string 'wide' to INT32"),
        ("f(x := 3", "key", "cannot parse"),
        (" ", "key", "'' reads no column"),
        ("''", "key", "reads no column: every row would have the same key"),
    ],
)
def test_what_a_rule_may_not_do_is_said_in_one_line(
    connection: duckdb.DuckDBPyConnection, text: str, want: Want, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        Checker(connection, COLUMNS).check(text, PLACE, want)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{PLACE}: ")
    assert "\n" not in str(caught.value)


def test_numbers_become_doubles(connection: duckdb.DuckDBPyConnection) -> None:
    checked = Checker(connection, COLUMNS).check("width * 0.5", PLACE, "number")
    assert checked.type.startswith("DECIMAL")
    table = select(connection, pa.table({"width": pa.array([3, None], pa.int32())}), [checked.sql])
    assert table["0"].to_pylist() == [1.5, None]
    assert table["0"].type == pa.float64()


def test_division_by_zero_has_no_value(connection: duckdb.DuckDBPyConnection) -> None:
    table = pa.table({"a": [0.0, 1.0, 4.0], "b": [0.0, 0.0, 2.0], "i": [1, 1, 1], "z": [0, 0, 1]})
    answer = select(connection, table, ["a / b > 0.3", "i % z = 0", "i // z > 0", "i / z > 0"])
    assert answer["0"].to_pylist() == [None, None, True]
    for name in "123":
        assert answer[name].to_pylist() == [None, None, True]


def test_row_order_is_kept_over_many_vectors_and_threads(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array(range(300_000), pa.int64())})
    with open_database(tmp_path, threads=4) as connection:
        assert select(connection, table, ["x + 1"])["0"].to_pylist() == list(range(1, 300_001))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "RESET lock_configuration",
    ],
)
def test_the_database_is_locked(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    with pytest.raises(duckdb.Error):
        connection.execute(statement).fetchall()


def test_python_variables_are_no_tables(connection: duckdb.DuckDBPyConnection) -> None:
    secret = pa.table({"x": [1]})
    with pytest.raises(duckdb.Error):
        connection.execute("SELECT * FROM secret").fetchall()
    assert secret.num_rows == 1


LITERALS = st.one_of(
    st.integers(-(10**9) + 1, 10**9 - 1).map(str),
    st.tuples(st.integers(-300, 300), st.integers(0, 10**9 - 1)).map(lambda p: f"{p[0]}.{p[1]}"),
    st.sampled_from(["0.28", "0.3", "0.35", "-0.0", "0.1", "16777217", "0.000000001"]),
)
KINDS = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64()]


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(KINDS), st.sampled_from([">=", "<=", ">", "<"]), LITERALS, st.lists(st.integers(-3, 3))
)
def test_what_needs_no_sql_is_what_sql_says(
    kind: pa.DataType, sign: str, literal: str, steps: list[int]
) -> None:
    near = np.float64(literal) + np.array(steps) * (1 if pa.types.is_integer(kind) else 1e-8)
    if pa.types.is_integer(kind):
        info = np.iinfo(kind.to_pandas_dtype())
        column = pa.array([int(np.clip(v, info.min / 2, info.max / 2)) for v in near], kind)
    else:
        with np.errstate(over="ignore"):
            column = pa.array(np.append(near, [0.0, -0.0, 6e4, -np.inf]).astype(kind.to_pandas_dtype()))
        column = column.cast(scan_type(kind))
    column = pa.concat_arrays([column, pa.nulls(1, column.type)])
    table = pa.table({"x": column})
    with duckdb.connect() as connection:
        checker = Checker(connection, {"x": Column(IMAGES, "x", kind)})
        for text, want in ((f"x {sign} {literal}", "condition"), ("x", "number")):
            expression = checker.check(text, "place", want)
            quick = evaluate(connection, table, [expression])[expression.sql]
            slow = evaluate(connection, table, [replace(expression, short=None)])[expression.sql]
            assert quick.to_pylist() == slow.to_pylist()
            assert quick.type == slow.type
            whole = not pa.types.is_integer(kind) or (kind != pa.uint64() and "." not in literal)
            assert (expression.short is not None) == (want == "number" or whole)


@pytest.mark.parametrize(
    "text", ["x >= 2.8e-1", "x >= 1 AND x <= 2", "x + 1 >= 2", "x >= y", "-x >= 1", "(x) > 1"]
)
def test_anything_else_is_sql(text: str) -> None:
    columns = {n: Column(IMAGES, n, pa.float32()) for n in "xy"}
    with duckdb.connect() as connection:
        assert Checker(connection, columns).check(text, "place", "condition").short is None
