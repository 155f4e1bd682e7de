"""Expressions that are known without DuckDB: what they are, and that nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.rules.sql.expressions import _KEYWORDS, _PLAIN, _PLAIN_NAME, Checker, Expression, Want
from curate.samples.columns import Column
from curate.samples.database import Database, open_database, select
from curate.samples.types import scan_type

PLACE = "filter.experiments.e.rules.r"
KINDS = [*_PLAIN, pa.float16()]


class Unopened:
    """A database that nobody may ask."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with open_database(tmp_path_factory.mktemp("scratch")) as opened:
        yield opened


def columns_of(name: str, kind: pa.DataType) -> dict[str, Column]:
    return {name: Column("scores/a", name, kind), "text": Column("images", "caption", pa.string())}


class Asking(Checker):
    """Asks DuckDB about everything."""

    def _plain(self, text: str, place: str, want: Want) -> Expression | None:
        return None


NUMBERS = st.one_of(
    st.integers(0, 10**9 - 1).map(str),
    st.tuples(st.integers(0, 999), st.integers(0, 9), st.integers(0, 10**8 - 1)).map(
        lambda p: f"{p[0]}.{'0' * p[1]}{p[2]}"[:13]
    ),
    st.sampled_from(["0.28", "007", "0.0", "16777217", "1677721.7", "0.000001", "123456789.012345"]),
)


@settings(deadline=None, max_examples=300)
@given(
    kind=st.sampled_from(KINDS),
    sign=st.sampled_from([">=", "<=", ">", "<"]),
    minus=st.booleans(),
    number=NUMBERS,
    gaps=st.sampled_from(["", " "]),
)
def test_a_plain_comparison_is_what_duckdb_says(
    database: Database, kind: pa.DataType, sign: str, minus: bool, number: str, gaps: str
) -> None:
    columns = columns_of("clip_score", kind)
    text = f"clip_score{gaps}{sign}{' -' if minus else gaps}{number}"
    asked = Asking(database, columns).check(text, PLACE, "condition")
    found = Checker(database, columns).check(text, PLACE, "condition")
    assert found == asked
    assert (found.short is None) == (asked.short is None)
    if found.short is None:
        return
    bound = np.float64(number) * (-1 if minus else 1)
    scanned = scan_type(kind)
    if pa.types.is_integer(kind):
        info = np.iinfo(kind.to_pandas_dtype())
        near = [int(np.clip(bound + d, info.min, min(info.max, 2**62))) for d in (-1, 0, 1)]
        values = pa.array(near, kind)
    else:
        single = bound.astype(scanned.to_pandas_dtype())
        near = [np.nextafter(single, -np.inf, dtype=single.dtype), single]
        values = pa.array([*near, np.nextafter(single, np.inf, dtype=single.dtype)], scanned)
    table = pa.table({"clip_score": pa.chunked_array([values, pa.nulls(1, values.type)])})
    (slow,) = select(database, table, [found.sql]).columns
    assert found.short(table).to_pylist() == slow.to_pylist()


TEXTS = ["", "en", "de", "größe", "a b", "%", "\\"]


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.sampled_from(TEXTS),
            st.none() | st.floats(-4, 4, width=32),
            st.none() | st.integers(-4, 4),
        ),
        min_size=1,
        max_size=12,
    ),
    parts=st.lists(
        st.sampled_from(
            [
                *(f"text_lang = '{text}'" for text in TEXTS),
                "text_lang='en'",
                "clip_score >= 0.5",
                "clip_score < -1",
                "text_words > 2",
            ]
        ),
        min_size=1,
        max_size=4,
    ),
    word=st.sampled_from([" AND ", " and ", " And "]),
    kind=st.sampled_from([pa.string(), pa.dictionary(pa.int32(), pa.string())]),
    numbered=st.booleans(),
)
def test_what_all_hold_is_what_duckdb_says(
    database: Database, rows: list[Any], parts: list[str], word: str, kind: pa.DataType, numbered: bool
) -> None:
    text = word.join(parts)
    names = {"text_lang": kind, "clip_score": pa.float32(), "text_words": pa.int32()}
    columns = {name: Column("scores/a", name, value) for name, value in names.items()}
    found = Checker(Unopened(), columns).check(text, PLACE, "condition")  # type: ignore[arg-type]
    assert found == Asking(database, columns).check(text, PLACE, "condition")
    given_as = pa.dictionary(pa.int32(), pa.string()) if numbered else kind
    types = [given_as, pa.float32(), pa.int32()]
    values = [pa.array(v, t) for v, t in zip(zip(*rows, strict=True), types, strict=True)]
    table = pa.concat_tables([pa.table(values, names=list(names))] * 2)
    (slow,) = select(database, table, [found.sql]).columns
    assert found.short is not None
    assert found.short(table).to_pylist() == slow.to_pylist()


@pytest.mark.parametrize(
    "text",
    [
        "text_lang = 'it''s'",
        "text_lang = 'en' OR text_lang = 'de'",
        "NOT text_lang = 'en'",
        "text_lang = 'a AND b'",
        "clip_score = 'en'",
        "text_lang >= 3",
        "text_lang <> 'en'",
    ],
)
def test_other_conditions_are_asked_about(text: str) -> None:
    columns = {"text_lang": Column("a", "b", pa.string()), "clip_score": Column("a", "b", pa.float32())}
    assert Checker(Unopened(), columns)._plain(text, PLACE, "condition") is None  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["clip_l14_similarity_score", "similarity", "width", "height", "a_1"])
def test_a_column_is_a_number_without_a_query(database: Database, name: str, kind: pa.DataType) -> None:
    columns = columns_of(name, kind)
    found = Checker(Unopened(), columns).check(name, PLACE, "number")  # type: ignore[arg-type]
    assert found == Asking(database, columns).check(name, PLACE, "number")
    assert found.short is not None


@pytest.mark.parametrize(
    "text", ["clip_score >= 0.28", "clip_score < -3", "clip_score>5", "clip_score <= 7.25"]
)
def test_usual_comparisons_need_no_query(text: str) -> None:
    columns = columns_of("clip_score", pa.float32())
    found = Checker(Unopened(), columns).check(text, PLACE, "condition")  # type: ignore[arg-type]
    assert (found.sql, found.type, found.columns) == (text, "BOOLEAN", ("clip_score",))


@pytest.mark.parametrize(
    ("text", "want", "message"),
    [
        ("clip_score", "condition", "'clip_score' is FLOAT, not a condition"),
        ("clip_score >= 0.28", "number", "'clip_score >= 0.28' is BOOLEAN, not a number"),
        ("clip_scor >= 0.28", "condition", "unknown column 'clip_scor'; did you mean clip_score?"),
        ("clip_scor", "number", "unknown column 'clip_scor'; did you mean clip_score?"),
        ("text", "number", "'text' is VARCHAR, not a number"),
        ("clip_score >= 0.28.1", "condition", "cannot parse"),
        ("clip_score >= ", "condition", "cannot parse"),
    ],
)
def test_what_is_wrong_is_duckdbs_to_say(database: Database, text: str, want: Want, message: str) -> None:
    columns = columns_of("clip_score", pa.float32())
    with pytest.raises(UserError, match=f"{PLACE}: .*") as plain:
        Checker(database, columns).check(text, PLACE, want)
    with pytest.raises(UserError) as asked:
        Asking(database, columns).check(text, PLACE, want)
    assert message in str(plain.value)
    assert str(plain.value) == str(asked.value)


@pytest.mark.parametrize(
    "text", ["CLIP_score", " clip_score", "(clip_score)", "clip_score + 1", '"clip_score"']
)
def test_other_spellings_are_asked_about(database: Database, text: str) -> None:
    columns = columns_of("clip_score", pa.float32())
    assert Checker(database, columns)._plain(text, PLACE, "number") is None
    assert Checker(database, columns).check(text, PLACE, "number").columns == ("clip_score",)


def test_no_keyword_of_sql_is_taken_for_a_column() -> None:
    with duckdb.connect() as connection:
        words = connection.execute(
            "SELECT DISTINCT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        ).fetchall()
    assert {w for (w,) in words if _PLAIN_NAME.fullmatch(w)} == _KEYWORDS
    columns = columns_of("try_cast", pa.float32())
    assert Checker(Unopened(), columns)._plain("try_cast", PLACE, "number") is None  # type: ignore[arg-type]


def test_a_database_is_opened_by_its_first_query(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        assert "_connection" not in vars(database)
        assert database.execute("SELECT ?", [3]).fetchall() == [(3,)]
        connection = vars(database)["_connection"]
    with pytest.raises(duckdb.Error):
        connection.execute("SELECT 1")
