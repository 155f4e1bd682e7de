"""SQL over a workspace, and what is said of files and statements that are not as they should be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.config.loading import check, dump
from curate.dataset import layout
from curate.dataset.family import IMAGES, Family
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.query import run_query
from tests.unit.filter.filter_pool import (
    cut_in_shards,
    run_experiment,
    uid_from,
    write_pool,
    write_similarities,
)

ROWS = 30
SHARDS = 3


def rows() -> list[dict[str, Any]]:
    return [
        {
            "uid": uid_from(i * (2**128 // ROWS) + 1),
            "text": f"caption {i}",
            "url": f"http://h/{i}",
            "similarity": i / 100,
            "text_length": i,
            "text_lang": "en" if i % 2 else "de",
        }
        for i in range(ROWS)
    ]


@pytest.fixture
def pool(tmp_path: Path) -> Workspace:
    return write_pool(tmp_path / "work", cut_in_shards(rows(), SHARDS))


def one(workspace: Workspace, sql: str) -> Any:
    (value,) = run_query(workspace, sql).column(0).to_pylist()
    return value


def refused(workspace: Workspace, sql: str) -> str:
    with pytest.raises(UserError) as caught:
        run_query(workspace, sql)
    return str(caught.value)


def with_config(workspace: Workspace, *models: str) -> None:
    named = {name: {"model": "demo"} for name in models}
    config = check({"workspace": workspace.url, "embed": {"models": named}})
    workspace.write_bytes(layout.CONFIG, dump(config).encode())


def test_samples_have_the_columns_of_every_family(pool: Workspace) -> None:
    assert one(pool, "SELECT count(*) FROM samples") == ROWS
    assert one(pool, "SELECT count(text_length) FROM Samples WHERE text LIKE 'caption%'") == ROWS
    assert one(pool, "SELECT max(b32_similarity) FROM samples") == pytest.approx(0.29)
    assert one(pool, "SELECT count(*) FROM images") > ROWS
    assert one(pool, "SELECT count(*) FROM images JOIN scores_TEXT USING (uid)") == ROWS
    assert one(pool, "SELECT count(*) FROM embeddings_b32") == ROWS
    assert one(pool, "SELECT count(*) FROM records WHERE stage = 'score/text'") == SHARDS


def test_similarity_is_that_of_the_first_model_of_the_last_config(pool: Workspace) -> None:
    for i, part in enumerate(cut_in_shards([{**r, "similarity": 0.9} for r in rows()], SHARDS)):
        write_similarities(pool, layout.shard_name(i, SHARDS), part, "a_later_one")
    assert "similarity" in refused(pool, "SELECT similarity FROM samples")
    with_config(pool, "b32", "a_later_one")
    assert one(pool, "SELECT max(similarity) FROM samples") == pytest.approx(0.29)
    with_config(pool, "a_later_one", "b32")
    assert one(pool, "SELECT min(similarity) FROM samples") == pytest.approx(0.9)
    with_config(pool, "not_yet", "b32")
    assert "similarity" in refused(pool, "SELECT similarity FROM samples")
    pool.write_bytes(layout.CONFIG, b"embedd: {}\n")
    assert one(pool, "SELECT count(*) FROM samples") == ROWS


def test_a_similarity_of_the_rows_own_stays_what_it_is(pool: Workspace) -> None:
    with_config(pool, "b32")
    for path in pool.sizes("images"):
        table = pool.read_table(path)
        pool.write_table(path, table.append_column("similarity", pa.array([7.0] * len(table))))
    assert (
        run_query(pool, "SELECT similarity, b32_similarity FROM samples").column(0).unique()
        == pa.chunked_array([[7.0]]).unique()
    )


@pytest.mark.parametrize("sql", ["", "   ;", "-- nothing", "\n"])
def test_no_statement(pool: Workspace, sql: str) -> None:
    assert refused(pool, sql) == "query: no statement"


@pytest.mark.parametrize("sql", ["SET threads = 1", "CREATE VIEW v AS SELECT 1", "SELECT 1 WHERE false"])
def test_statements_that_give_no_rows(pool: Workspace, sql: str) -> None:
    assert run_query(pool, sql).num_rows == 0


def test_rows_can_be_copied_to_a_file(pool: Workspace, tmp_path: Path) -> None:
    assert one(pool, f"COPY (SELECT uid FROM samples) TO '{tmp_path / 'x.csv'}'") == ROWS
    assert len((tmp_path / "x.csv").read_text().splitlines()) == ROWS + 1


def test_several_statements_and_columns_of_one_name(pool: Workspace) -> None:
    assert one(pool, "CREATE TABLE t AS FROM samples; SELECT count(*) FROM t") == ROWS
    table = run_query(pool, "SELECT 1 AS a, 2 AS a_1, 3 AS a, 4 AS a")
    assert table.to_pylist() == [{"a": 1, "a_1": 2, "a_2": 3, "a_3": 4}]


def test_python_is_not_looked_into(pool: Workspace) -> None:
    assert "Table with name sql does not exist" in refused(pool, "SELECT * FROM sql")


def test_what_is_no_workspace(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("workspace: x")
    for place in (file, tmp_path, tmp_path / "nix"):
        assert refused(Workspace(str(place)), "SELECT 1") == (
            f"{place}: no workspace here (no .curate folder); give one with --workspace"
        )


@pytest.mark.parametrize("damage", [b"", b"no parquet at all", "half"])
def test_a_broken_file_costs_only_what_reads_it(pool: Workspace, damage: bytes | str) -> None:
    path = Path(pool.location(Family.scores("text").path("00001")))
    path.write_bytes(path.read_bytes()[:200] if damage == "half" else damage)  # type: ignore[arg-type]
    for sql in ("SELECT count(*) FROM scores_text", "FROM samples", "SELECT 1; SELECT uid FROM scores_text"):
        said = refused(pool, sql)
        assert said.count("\n") == 0
        assert str(path) in said
        assert "curate score" in said
    assert one(pool, "SELECT count(*) AS samples FROM embeddings_b32") == ROWS
    assert run_query(pool, "SHOW TABLES")["name"].to_pylist() == ["embeddings_b32", "images", "records"]


def test_a_file_with_other_bytes_in_the_middle(pool: Workspace) -> None:
    path = Path(pool.location(Family.scores("text").path("00001")))
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 150 + data[154:])
    said = refused(pool, "SELECT uid FROM scores_text")
    assert said.endswith("; a file of scores_text may be broken")
    assert one(pool, "SELECT count(*) FROM images") > ROWS


def test_a_file_that_is_gone_is_no_null(pool: Workspace) -> None:
    Path(pool.location(Family.scores("text").path("00001"))).unlink()
    Path(pool.location(Family.scores("text").path("00002"))).unlink()
    for sql in ("SELECT count(text_length) FROM samples", "FROM SCORES_TEXT"):
        assert refused(pool, sql) == (
            f"query: {pool.url}/scores/text/00001.parquet is gone; run `curate score` again"
        )
    assert one(pool, "SELECT count(*) AS samples FROM images") > ROWS
    Path(pool.location(IMAGES.path("00000"))).unlink()
    assert "images/00000.parquet is gone; run `curate download` again" in refused(pool, "FROM images")


def test_a_stage_that_is_not_done_yet_has_what_it_has(pool: Workspace) -> None:
    pool.write_bytes("scores/new/learned.npz", b"x")
    pool.write_bytes("embeddings/new/model.json", b"{}")
    shutil.rmtree(pool.location("scores/text"))
    assert one(pool, "SELECT count(*) FROM samples") == ROWS
    assert "scores_" not in str(run_query(pool, "SHOW TABLES")["name"].to_pylist())


def test_selections(pool: Workspace) -> None:
    run_experiment(pool, "some", {"rules": {"l": "text_lang = 'en'"}})
    run_experiment(pool, "none", {"rules": {"l": "text_lang = 'fr'"}})
    assert one(pool, "SELECT sum(repeats) FROM selection_some JOIN samples USING (uid)") == ROWS // 2
    assert one(pool, "SELECT count(*) FROM Selection_None") == 0
    assert "no such" in refused(_without(pool, "counts.parquet"), "FROM selection_some")
    assert one(pool, "SELECT count(*) FROM samples") == ROWS


def _without(pool: Workspace, name: str) -> Workspace:
    pool.remove(layout.selection_file("some", name))
    return pool


def test_names_that_differ_in_case_alone(pool: Workspace) -> None:
    run_experiment(pool, "a", {"rules": {"l": "text_lang = 'en'"}})
    run_experiment(pool, "A", {"rules": {"l": "text_length = 3"}})
    run_experiment(pool, "ab", {"rules": {"l": "text_length < 3"}})
    for name in ("selection_a", "selection_A", "SELECTION_a"):
        assert refused(pool, f"SELECT count(*) FROM {name}") == (
            "query: selection_a can be selections/A or selections/a: SQL takes no notice of case; "
            "give one of them another name"
        )
    assert one(pool, "SELECT count(*) FROM selection_ab") == 3
    assert one(pool, "SELECT count(*) FROM samples") == ROWS


def test_tables_are_listed_when_a_name_is_unknown(pool: Workspace) -> None:
    run_experiment(pool, "some", {"rules": {"l": "text_lang = 'en'"}})
    said = refused(pool, "SELECT * FROM samples JOIN scores_txt USING (uid)").splitlines()
    assert said[:3] == [
        "query: Catalog Error: Table with name scores_txt does not exist!",
        '  Did you mean "scores_text"?',
        "  tables:",
    ]
    assert "    scores_text(uid, text_length, text_score, text_lang)" in said
    assert "    selection_some(uid, repeats)" in said
    assert said[-1].startswith("    records(stage, unit, rows_in, ")
    said = refused(pool, "SELECT nope FROM scores_text").splitlines()
    assert said[1].startswith("  Candidate bindings:")
    assert "    images(uid, status, caption, url, sha256, width, height)" in said


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT CAST(text AS int) FROM samples", "Could not convert"),
        ("SELECT * FROM read_parquet('/nix/*.parquet')", "No files found"),
        ("SELECT ?", "Values were not provided"),
        ("SELECT '\udcff'", "UTF-8"),
    ],
)
def test_other_mistakes_are_one_line(pool: Workspace, sql: str, words: str) -> None:
    said = refused(pool, sql)
    assert said.startswith("query: ")
    assert words in said
    assert "\n" not in said


def test_a_quote_in_the_path(tmp_path: Path) -> None:
    workspace = write_pool(tmp_path / "it's", cut_in_shards(rows(), SHARDS))
    assert one(workspace, "SELECT count(*) FROM samples") == ROWS


def test_a_table_that_is_named_by_a_text(pool: Workspace) -> None:
    run_experiment(pool, "some", {"rules": {"l": "text_lang = 'en'"}})
    for name, number in (("records", 3 * SHARDS + 1), ("Selection_some", ROWS // 2), ("samples", ROWS)):
        assert one(pool, f"SELECT count(*) FROM query_table('{name}')") == number
