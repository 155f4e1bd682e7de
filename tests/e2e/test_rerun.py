"""What a second run does again, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.e2e.conftest import Run, Web, fingerprints


def stage_times(work: Path) -> dict[str, int]:
    """Newest modification of the data files of each top folder."""
    times: dict[str, int] = {}
    for path in work.rglob("*"):
        top = path.relative_to(work).parts[0]
        if path.is_file() and top != ".curate":
            times[top] = max(times.get(top, 0), path.stat().st_mtime_ns)
    return times


def test_a_second_run_does_nothing(web: Web, copy_of: Path, curate: Run, tmp_path: Path) -> None:
    before = stage_times(copy_of)
    done = curate("run", web.config(tmp_path))
    assert stage_times(copy_of) == before
    assert "done before" in done.stderr
    assert "again" not in done.stderr


def test_one_threshold_redoes_the_filter_and_what_follows(
    web: Web, copy_of: Path, curate: Run, tmp_path: Path
) -> None:
    before = stage_times(copy_of)
    config = web.config(tmp_path)
    facts = yaml.safe_load(config.read_text())
    experiment = next(iter(facts["filter"]["experiments"]))
    facts["filter"]["experiments"][experiment]["rules"]["similarity"] = "similarity >= 0.85"
    config.write_text(yaml.safe_dump(facts, sort_keys=False))
    done = curate("run", config)
    after = stage_times(copy_of)
    changed = {top for top in after if after[top] != before[top]}
    assert changed == {"selections", "index", "export", "report"}
    assert f"filter/{experiment}" in done.stderr
    assert "rules.similarity.where" in done.stderr


def test_another_ingest_is_refused_in_one_line(web: Web, copy_of: Path, curate: Run, tmp_path: Path) -> None:
    before = fingerprints(copy_of)
    done = curate("run", web.config(tmp_path, ingest={"min_text_length": 9}), code=2)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error:")]
    assert "made with another config" in line
    assert "--redo" in line
    assert fingerprints(copy_of) == before


def test_dry_run_says_why_and_does_nothing(web: Web, copy_of: Path, curate: Run, tmp_path: Path) -> None:
    before = stage_times(copy_of)
    done = curate("run", web.config(tmp_path, download={"min_image_size": 64}), "--dry-run")
    assert "settings: min_image_size" in done.stderr
    assert stage_times(copy_of) == before


def test_the_event_log_is_json_lines(finished: Path) -> None:
    (log,) = (finished / ".curate" / "runs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert events[0]["event"] == "run_started"
    assert events[-1]["event"] == "run_finished"
    stages = [e["stage"] for e in events if e["event"] == "stage_finished"]
    assert stages[:3] == ["parse", "ingest", "download"]
