"""The verbs as a user types them: what they print, their exit codes, and what they say of a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.cli import main
from tests.e2e.conftest import Run, Web, fingerprints


def fails(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The message of a command that must fail: to the point, without a traceback."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    err = capsys.readouterr().err
    assert caught.value.code == code, err
    assert "Traceback" not in err
    return err


def succeeds(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    found = capsys.readouterr()
    assert caught.value.code == 0, found.err
    return found.out


def table_config(folder: Path, pairs: list[tuple[str, str]], **sections: object) -> Path:
    columns = {"url": [u for u, _ in pairs], "text": [t for _, t in pairs]}
    pq.write_table(
        pa.table(columns, pa.schema([("url", pa.string()), ("text", pa.string())])), folder / "x.parquet"
    )
    facts = {
        "workspace": str(folder / "work"),
        "run": {"cluster": "synchronous", "retries": 0},
        "ingest": {"sources": [{"paths": [str(folder / "x.parquet")]}]},
        **sections,
    }
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def test_mistakes_in_the_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothere.yaml: no such config file" in fails(capsys, "run", "nothere.yaml")
    path = table_config(tmp_path, [("http://a.example/1.jpg", "x")], downlaod={"threads": 1})
    message = fails(capsys, "run", path)
    assert f"{path}:" in message
    assert "unknown key 'downlaod'; did you mean 'download'?" in message
    assert not (tmp_path / "work").exists(), "nothing is made before the config is right"
    (tmp_path / "none.yaml").write_text("workspace: w")
    assert "missing section 'ingest'" in fails(capsys, "run", tmp_path / "none.yaml")


def test_inputs_that_give_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no candidates are left" in fails(capsys, "ingest", table_config(tmp_path, []))
    path = table_config(tmp_path, [("http://a.example/1.jpg", "x")])
    (tmp_path / "x.parquet").unlink()
    assert "x.parquet" in fails(capsys, "ingest", path)


def test_an_unreadable_wat_stops_with_exit_3_and_a_truncated_one_does_not(
    web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wat = sorted(web.wats.glob("*.wat.gz"))[0].read_bytes()
    (tmp_path / "cut.warc.wat.gz").write_bytes(wat[: len(wat) * 2 // 3])
    ingest = {"ingest": {"sources": [{"paths": [str(tmp_path / "cut.warc.wat.gz")]}]}}
    path = table_config(tmp_path, [], **ingest)
    succeeds(capsys, "ingest", path)
    drops = json.loads(succeeds(capsys, "status", "-w", tmp_path / "work", "--json"))[0]["drops"]
    assert drops["truncated_input"] == 1
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 junk")
    ingest = {"ingest": {"sources": [{"paths": [str(tmp_path / "junk.parquet")]}]}}
    path = table_config(tmp_path, [], workspace=str(tmp_path / "other"), **ingest)
    message = fails(capsys, "ingest", path, code=3)
    assert "junk.parquet" in message
    assert "error budget" in message


def test_a_filter_that_cannot_work_is_refused_with_its_place(
    web: Web, copy_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprints(copy_of)
    for rule, words in [
        ("similarty > 0.3", "similarity"),
        ("similarity >", "rules.bad"),
        ("text", "rules.bad"),
    ]:
        experiments = {"experiments": {"broken": {"rules": {"bad": rule}}}}
        everything = {key: {"experiments": None} for key in ("index", "export", "report")}
        config = web.config(tmp_path, filter=experiments, **everything)
        message = fails(capsys, "filter", config)
        assert "filter.experiments.broken.rules.bad" in message
        assert words in message
    assert fingerprints(copy_of) == before


def test_explain_tells_the_trail_of_kept_dropped_and_failed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = "SELECT uid, status, reason FROM images ORDER BY uid"
    succeeds(capsys, "query", sql, "-w", finished, "-o", finished.parent / "rows.jsonl")
    rows = [json.loads(line) for line in (finished.parent / "rows.jsonl").read_text().splitlines()]
    failed = next(r for r in rows if r["status"] != "success")
    said = succeeds(capsys, "explain", failed["uid"], "-w", finished)
    assert f"no image: {failed['reason']}" in said
    subset = np.load(finished / "selections/curated/subset.npy")
    kept = {f"{high:016x}{low:016x}" for high, low in subset.tolist()}
    for row in rows:
        if row["status"] == "success" and row["uid"] in kept:
            trail = json.loads(succeeds(capsys, "explain", row["uid"], "-w", finished, "--json"))
            assert trail["experiments"]["curated"]["kept"]
            assert trail["export"]["curated"]["keys"] == [row["uid"]]
            break
    dropped = next(r["uid"] for r in rows if r["status"] == "success" and r["uid"] not in kept)
    trail = json.loads(succeeds(capsys, "explain", dropped, "-w", finished, "--json"))
    verdict = trail["experiments"]["curated"]
    assert not verdict["kept"]
    assert verdict["reason"] in {r["rule"] for r in verdict["rules"] if r["result"] != "pass"} | {
        "missing_score"
    }
    with pytest.raises(SystemExit) as caught:
        main(["explain", "0" * 32, "-w", str(finished)])
    assert caught.value.code == 1
    assert "not a candidate" in capsys.readouterr().out


def test_query_status_search_and_their_mistakes(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = succeeds(capsys, "query", "SELECT count(*) AS n FROM samples", "-w", finished)
    total = sum(pq.read_metadata(p).num_rows for p in (finished / "scores/text").glob("*.parquet"))
    assert str(total) in counts
    unknown = fails(capsys, "query", "SELECT nope FROM images", "-w", finished)
    assert "candidates(uid, url, text" in unknown
    assert "Candidate bindings" in unknown
    assert "candidates(" not in fails(capsys, "query", "SELECT", "-w", finished)
    assert "no workspace here" in fails(capsys, "query", "SELECT 1", "-w", finished / "images/00000.parquet")
    row = succeeds(capsys, "query", "SELECT * FROM samples ORDER BY uid LIMIT 1", "-w", finished)
    (uid,) = pq.read_table(finished / "scores/text/00000.parquet", columns=["uid"])["uid"].to_pylist()[:1]
    assert uid in row
    mean = succeeds(
        capsys, "query", "SELECT avg(similarity) = avg(demo_similarity) FROM samples", "-w", finished
    )
    assert "True" in mean
    assert "must end in" in fails(capsys, "query", "SELECT 1", "-w", finished, "-o", "x.txt")
    assert "download dropped:" in succeeds(capsys, "status", "-w", finished)
    assert "no workspace here" in fails(capsys, "status", "-w", finished / "nix")
    hits = json.loads(succeeds(capsys, "search", "a red star", "-w", finished, "--json", "-k", "3"))
    assert len(hits) == 3
    assert hits[0]["similarity"] >= hits[1]["similarity"]
    assert "exactly one of" in fails(capsys, "search", "-w", finished)
    assert "no experiment named 'x'" in fails(capsys, "search", "a", "-w", finished, "--experiment", "x")


def test_config_verbs_and_init(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "laion400m" in succeeds(capsys, "config", "presets")
    assert "download.timeout: float" in succeeds(capsys, "config", "keys", "download")
    shown = yaml.safe_load(succeeds(capsys, "config", "show", "starter", "-s", "download.threads=7"))
    assert shown["download"]["threads"] == 7
    succeeds(capsys, "init", tmp_path / "my.yaml")
    assert "exists already" in fails(capsys, "init", tmp_path / "my.yaml")
    assert "did you mean" in fails(capsys, "init", tmp_path / "b.yaml", "--preset", "startr")


def test_doctor_finds_this_machine_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = succeeds(capsys, "doctor", "-w", tmp_path)
    assert "demo CLIP: 128 dimensions" in said
    assert "can be written" in said


def test_a_workspace_on_an_object_store(web: Web, finished: Path, tmp_path: Path, curate: Run) -> None:
    """The same bytes through fsspec as on a local disk; the store lives in this process."""
    import fsspec

    config = web.config(tmp_path, run={"cluster": "synchronous"})
    with pytest.raises(SystemExit) as caught:
        main(["run", str(config), "-w", "memory://bucket/work"])
    assert caught.value.code == 0
    store = fsspec.filesystem("memory")
    for path in fingerprints(finished):
        assert store.cat_file(f"/bucket/work/{path}") == (finished / path).read_bytes(), path
