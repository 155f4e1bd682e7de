"""The Python API on a workspace that a run has made."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import curate
from curate.api.dataset import Dataset
from curate.dataset.uid import from_halves


@pytest.fixture(scope="module")
def ds(finished: Path) -> Dataset:
    return curate.open(finished)


def subset(finished: Path, experiment: str) -> list[str]:
    """The oracle: the uids of the subset file."""
    return [
        str(uid)
        for uid in from_halves(np.load(finished / "selections" / experiment / "subset.npy")).to_pylist()
    ]


def test_what_there_is(ds: Dataset) -> None:
    assert {"curated", "top30"} <= set(ds.experiments)
    assert ds.models == ("demo",)
    assert (
        len(ds) == ds.samples(columns=["uid"]).arrow().num_rows == ds.query("SELECT * FROM samples").num_rows
    )
    assert ds.columns["similarity"] == pa.float32()
    assert "experiments" in repr(ds)
    assert all(name in dir(curate) and getattr(curate, name) is not None for name in curate.__all__)


def test_every_form_says_the_same(ds: Dataset) -> None:
    samples = ds.samples("curated", columns=["text", "similarity"])
    table = samples.arrow()
    assert table.column_names == ["uid", "text", "similarity", "repeats"]
    rows = table.to_pylist()
    assert len(rows) == len(samples)
    assert list(samples) == rows
    assert [row for batch in samples.reader() for row in batch.to_pylist()] == rows
    assert samples.duckdb().fetchall() == [tuple(row.values()) for row in rows]
    assert samples.polars().to_dicts() == rows
    frame = samples.pandas()
    assert list(frame.index) == [row["uid"] for row in rows]
    assert list(frame["text"]) == [row["text"] for row in rows]
    assert list(samples.huggingface()) == rows
    assert f"{len(rows):,} rows" in repr(samples)


@pytest.mark.parametrize("experiment", ["curated", "top30", "no_filter"])
def test_an_experiment_is_its_subset_file(ds: Dataset, finished: Path, experiment: str) -> None:
    expected = subset(finished, experiment)
    table = ds.samples(experiment, columns=[]).arrow()
    assert table["uid"].to_pylist() == sorted(set(expected))
    assert sum(table["repeats"].to_pylist()) == len(expected)
    assert len(ds.selection(experiment)) == len(expected)


def test_a_condition_is_that_of_sql(ds: Dataset) -> None:
    where = "similarity >= 0.3 AND text_words > 4 OR width IS NULL"
    mine = ds.samples(columns=["width"], where=where)
    theirs = ds.query(f"SELECT uid FROM samples WHERE {where} ORDER BY uid")
    assert mine.arrow()["uid"].to_pylist() == theirs["uid"].to_pylist()
    assert len(mine) == theirs.num_rows
    none = ds.samples(columns=["width"], where="width < 0")
    assert none.arrow().num_rows == len(none) == len(list(none.reader())) == 0
    assert none.arrow().column_names == ["uid", "width"]


def test_pictures(ds: Dataset) -> None:
    (uid, *_) = ds.samples("curated", columns=[]).arrow()["uid"].to_pylist()
    picture = ds.image(uid[:9])
    assert picture.size == Image.open(io.BytesIO(ds.image_bytes(uid))).size
    assert ds.explain(uid[:9])["uid"] == uid
    assert "experiment curated" in repr(ds.explain(uid))
    assert ds.search(uid=uid, k=3)[0].uid == uid


def test_a_training_loop_sees_every_sample_once(ds: Dataset, finished: Path) -> None:
    """Whatever the number of workers, and each as often as it is kept."""
    expected = sorted(subset(finished, "curated"))
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(
            ds.samples("curated", columns=["text"]).torch(), batch_size=None, num_workers=workers
        )
        seen = [(row["uid"], row["image"].size, row["text"]) for row in loader]
        assert sorted(uid for uid, _, _ in seen) == expected
        assert all(width > 0 for _, (width, _), _ in seen)
    streamed = ds.samples("curated", columns=["text"]).huggingface(images=True)
    assert sorted(row["uid"] for row in streamed) == expected


def test_search_and_pages(ds: Dataset) -> None:
    hits = ds.search("a red umbrella", k=4)
    assert len(hits) == 4
    assert hits.arrow()["uid"].to_pylist() == [hit.uid for hit in hits]
    assert hits[0].similarity >= hits[1].similarity
    for page in (hits._repr_html_(), ds._repr_html_(), ds.samples("top30")._repr_html_()):
        assert page.count("<img src='data:image/webp;base64,") >= 4
        assert "<script" not in page


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda ds: ds.samples("curatd"), "no selection of an experiment named 'curatd'"),
        (lambda ds: ds.samples(columns=["similarty"]), "unknown column 'similarty'; did you mean similarity"),
        (lambda ds: ds.samples(where="similarity >=").arrow(), "where: cannot parse"),
        (lambda ds: ds.image("zz"), "is not a uid"),
        (lambda ds: ds.search(), "give just one of text, image and uid"),
        (lambda ds: ds.search("x", experiment="none"), "no index of none"),
        (lambda ds: curate.open("/tmp/no-such-workspace"), "no workspace here"),
        (lambda ds: curate.run({"ingest": {"sources": []}}), "ingest.sources: is empty"),
        (lambda ds: curate.run("starter", stages=["embd"]), "no such verb: 'embd'"),
    ],
)
def test_mistakes_are_errors_in_words(ds: Dataset, ask: object, said: str) -> None:
    with pytest.raises(curate.UserError, match=said):
        ask(ds)  # type: ignore[operator]


def test_a_run_without_a_console(copy_of: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = curate.open(copy_of).config
    experiments = {"wide": {"rules": {"wide": "width >= height"}}}
    facts = {**config.model_dump(mode="json"), "workspace": str(copy_of), "run": {"workers": 1}}
    facts["filter"] = {"experiments": experiments}
    facts |= {section: {"experiments": None} for section in ("index", "export", "report")}
    ds = curate.run(facts, stages=["filter"])
    assert capsys.readouterr() == ("", "")
    expected = ds.query("SELECT uid FROM samples WHERE width >= height ORDER BY uid")["uid"].to_pylist()
    assert ds.samples("wide", columns=[]).arrow()["uid"].to_pylist() == expected
