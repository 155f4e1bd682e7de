"""Against what cc2dataset 1.5.0 itself extracts from the same records (see docs/ingest-vs-cc2dataset.md)."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curate.dataset.uid import uid_of
from curate.ingest.rules import uid_column
from curate.ingest.wat import iter_wat_batches
from curate.reasons import IngestReason
from tests.unit.ingest.wat_files import warc_record

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "ingest" / "cc2dataset.json").read_text(encoding="utf-8")
)
CASES = {case["name"]: case for case in GOLDEN["cases"]}


def ours(stream: io.BytesIO) -> tuple[list[list[Any]], dict[str, int]]:
    counts: Counter[str] = Counter()
    rows: list[list[Any]] = []
    for batch in iter_wat_batches(stream, batch_rows=100, counts=counts):
        columns = [uid_column(batch["text"], batch["url"]), batch["url"], batch["text"], batch["page_url"]]
        rows += [list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]
    return rows, dict(counts)


def of_case(name: str) -> tuple[list[list[Any]], list[list[Any]], dict[str, int]]:
    case = CASES[name]
    encoding = "latin-1" if case["latin1"] else "utf-8"
    data = b"".join(warc_record(record.encode(encoding)) for record in case["records"])
    rows, counts = ours(io.BytesIO(data))
    return rows, case["cc2dataset"], counts


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["equal"]])
def test_rows_are_equal(name: str) -> None:
    rows, theirs, _ = of_case(name)
    assert rows == theirs


def test_rows_of_the_2014_file_are_equal(fixtures_dir: Path) -> None:
    (path,) = (fixtures_dir / "wat").glob("warc__*.wat")
    rows, _ = ours(io.BytesIO(path.read_bytes()))
    assert rows == GOLDEN["wat_2014"]
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("name", "kept", "reasons"),
    [
        ("link without url", 3, {IngestReason.NO_URL: 1}),
        ("record without envelope", 2, {IngestReason.UNREADABLE_RECORD: 1}),
        ("record without container", 2, {}),
        ("page without URL", 2, {IngestReason.BAD_URL: 1}),
        ("value of another type", 2, {IngestReason.NO_TEXT: 1, IngestReason.NO_URL: 1}),
    ],
)
def test_what_costs_cc2dataset_the_file_costs_us_a_row(name: str, kept: int, reasons: dict[str, int]) -> None:
    rows, theirs, counts = of_case(name)
    assert theirs == []
    assert len(rows) == kept
    assert counts == reasons


def test_bytes_that_are_not_utf8_cost_nothing() -> None:
    rows, theirs, counts = of_case("bytes that are not UTF-8")
    assert [row[1] for row in theirs] == ["https://e.com/2.jpg"]
    assert [row[1:3] for row in rows] == [["https://e.com/1.jpg", "caf\ufffd"], theirs[0][1:3]]
    assert counts == {}


@pytest.mark.parametrize(
    ("name", "texts", "reasons"),
    [
        ("half a surrogate pair", ["x\ufffdy", "z", "good \U0001f600"], {}),
        ("control character in a string", ["a\x01b", "c"], {}),
        ("number beyond range", ["a"], {IngestReason.NO_TEXT: 1}),
    ],
)
def test_strings_that_strict_json_refuses_cost_at_most_their_link(
    name: str, texts: list[str], reasons: dict[str, int]
) -> None:
    rows, theirs, counts = of_case(name)
    assert [row[2] for row in rows] == [*texts, "before"]
    assert [row[2] for row in theirs] == ["before"], "cc2dataset loses the page"
    assert counts == reasons
    assert all(row[0] == uid_of(row[2], row[1]) for row in rows)


def test_half_a_surrogate_pair_in_a_url_is_what_a_browser_makes_of_it() -> None:
    rows, _, _ = of_case("half a surrogate pair")
    assert [row[1] for row in rows][1] == "https://e.com/3\ufffd.jpg"


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        (
            "scheme in capitals",
            ["https://Host.example/B.jpg"],
            ["http://host.example/A.jpg", "https://host.example/B.jpg"],
        ),
        (
            "characters that a URL cannot hold",
            [
                "https://www.example.org/größe.jpg",
                "https://www.example.org/a/b/my photo.jpg",
                'https://www.example.org/a/b/a"b<c>.jpg',
            ],
            [
                "https://www.example.org/gr%C3%B6%C3%9Fe.jpg",
                "https://www.example.org/a/b/my%20photo.jpg",
                "https://www.example.org/a/b/a%22b%3Cc%3E.jpg",
            ],
        ),
        (
            "dot segments and slashes",
            [
                "https://www.example.org/b.jpg",
                "https://www.example.org/a/b/x/y.jpg",
                "https://www.example.org/a/b/\\win\\path.jpg",
                "https://www.example.org/triple.example/x.jpg",
                "https://www.example.org/%2e%2e/c.jpg",
                "https://www.example.org/a/b/inside.jpg",
            ],
            [
                "https://www.example.org/b.jpg",
                "https://www.example.org/a/b/x/y.jpg",
                "https://www.example.org/win/path.jpg",
                "https://triple.example/x.jpg",
                "https://www.example.org/c.jpg",
                "https://www.example.org/a/b/inside.jpg",
            ],
        ),
        (
            "relative host",
            [
                "https://HOST.Example/x.jpg",
                "https://host.example:443/y.jpg",
                "https://bücher.example/z.jpg",
                "https://www.example.org/a/b/rel.jpg",
            ],
            [
                "https://host.example/x.jpg",
                "https://host.example/y.jpg",
                "https://xn--bcher-kva.example/z.jpg",
                "https://www.example.org/a/b/rel.jpg",
            ],
        ),
        ("base with a broken host", ["http://exa mple/i.jpg"], ["https://www.example.org/a/b/i.jpg"]),
        ("base is data", [], ["https://www.example.org/a/b/i.jpg"]),
    ],
)
def test_relative_links_follow_the_url_standard(name: str, theirs: list[str], ours: list[str]) -> None:
    rows, golden, counts = of_case(name)
    assert [row[1] for row in golden] == theirs
    assert [row[1] for row in rows] == ours
    assert counts == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [("empty url", IngestReason.NO_URL), ("not an address", IngestReason.BAD_URL)],
)
def test_links_that_no_browser_would_fetch_are_dropped(name: str, reason: IngestReason) -> None:
    rows, theirs, counts = of_case(name)
    assert rows == []
    assert counts == {reason: len(theirs)}


def test_every_difference_is_tested_and_documented() -> None:
    document = Path(__file__).parents[3] / "docs" / "ingest-vs-cc2dataset.md"
    text = document.read_text(encoding="utf-8")
    different = [name for name, case in CASES.items() if not case["equal"]]
    assert len(different) == 17
    for name in different:
        assert f"| {name} |" in text
