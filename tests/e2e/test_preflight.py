"""What is wrong is said before the first stage works: every problem, in one answer, and nothing is made."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from curate.cli import main
from curate.config.loading import load_config
from curate.config.models import PipelineConfig
from curate.inspect.room import PAIRS_A_WAT, estimate
from tests.e2e.test_cli import fails, succeeds

CSV = "url,text,weight\nhttp://a.example/1.jpg,a red ball,3\n"


def config_of(folder: Path, **sections: Any) -> Path:
    (folder / "p.csv").write_text(CSV)
    facts: dict[str, Any] = {
        "workspace": str(folder / "work"),
        "run": {"workers": 1},
        "ingest": {"sources": [{"paths": [str(folder / "p.csv")], "extra_columns": ["weight"]}]},
        "download": {},
        "embed": {"models": {"d": {"model": "demo"}}},
        "score": {"scorers": {"text": {"type": "text"}}},
        "filter": {"experiments": {"e": {"rules": {"s": "similarity > 0.1"}}}},
        **sections,
    }
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def rules(**texts: str) -> dict[str, Any]:
    return {"experiments": {name: {"rules": {"r": text}} for name, text in texts.items()}}


def test_every_problem_at_once_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_of(
        tmp_path,
        ingest={
            "sources": [
                {"paths": [str(tmp_path / "p.csv")]},
                {"paths": [str(tmp_path / "none*.csv")]},
                {"paths": ["https://no-such-host.invalid/a.csv"]},
            ]
        },
        embed={"models": {"d": {"model": "demo"}, "own": {"model": "local-dir:/nowhere"}}},
        score={"scorers": {"text": {"type": "text"}, "mixed": {"type": "mix", "weights": {"similarty": 1}}}},
        filter=rules(a="similarty > 0.3", b="text_lang == en", c="text_words"),
        index={"type": "IVF10,Bogus"},
    )
    for command in (("run", path), ("run", path, "--dry-run"), ("doctor", path)):
        said = _said(capsys, *command)
        for line in (
            "none*.csv",
            "no-such-host.invalid",
            "/nowhere",
            "score.scorers.mixed: unknown column 'similarty'; did you mean similarity",
            "filter.experiments.a.rules.r: unknown column 'similarty'",
            "filter.experiments.b.rules.r: unknown column 'en'; a text wants single quotes: text_lang = 'en'",
            "filter.experiments.c.rules.r: 'text_words' is INTEGER, not a condition",
            "index.type: 'IVF10,Bogus' is no index of faiss",
        ):
            assert line in said, line
        assert not list((tmp_path / "work").rglob("*.parquet"))


def _said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert "Traceback" not in said.err
    return said.out + said.err


def test_what_only_a_file_can_tell_is_left_to_its_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column that a source carries along has whatever type its file gives it."""
    path = config_of(
        tmp_path,
        score={"scorers": {"m": {"type": "mix", "weights": {"weight": 1, "d_similarity": 1}}}},
        filter=rules(a="weight > 3", b="m_score > 1 and width * height > 3", c="status = 'x'"),
        embed={"models": {"d": {"model": "demo", "modalities": ["image"]}}},
    )
    said = fails(capsys, "run", path, "--dry-run")
    assert "experiments.a" not in said
    assert "experiments.b" not in said
    assert "score.scorers.m: unknown column 'd_similarity'" in said, "of one modality only"
    assert "experiments.c.rules.r: unknown column 'status'" in said, "is not shown in any family"


def test_the_columns_that_are_planned_are_the_ones_that_come(copy_of: Path) -> None:
    from curate.dataset.family import Family
    from curate.dataset.workspace import Workspace
    from curate.pipeline import build
    from curate.samples.columns import PlannedColumns, columns_of
    from curate.samples.types import plain_type

    config = load_config(copy_of / ".curate/config.yaml")
    planned = PlannedColumns()
    for stage in build(config):
        stage.plan_columns(planned)
    workspace = Workspace(str(copy_of))
    shard = sorted((copy_of / "images").glob("*.parquet"))[0].stem
    found = columns_of(workspace, shard, list(config.embed.models), list(config.score.scorers))
    assert set(planned) | planned.untyped == set(found)
    for name, column in found.items():
        assert plain_type(planned[name].type) == plain_type(column.type), name
        assert planned[name].family == column.family, name
    assert Family.embeddings("nothing") not in {column.family for column in planned.values()}


def test_a_port_that_is_no_scheduler_and_a_workspace_that_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        said = fails(capsys, "run", config_of(tmp_path, run={"cluster": address}), "--dry-run")
    assert address in said
    (tmp_path / "work").write_text("a file")
    assert str(tmp_path / "work") in fails(capsys, "run", config_of(tmp_path))


def test_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_of(tmp_path)
    (tmp_path / "p.csv").write_text("url,text\n" + "http://a.example/1.jpg,a red ball on a beach\n" * 9_000)
    found = estimate(load_config(path))
    assert found.pairs is not None
    assert 1_000 < found.pairs < 9_000
    assert found.size is not None
    assert found.pairs * 10_000 < found.size < found.pairs * 30_000
    assert "pairs, so about" in succeeds(capsys, "doctor", config_of(tmp_path))
    (tmp_path / "a.warc.wat.gz").write_bytes(b"")
    facts = yaml.safe_load(path.read_text())
    facts["ingest"]["sources"] = [{"paths": [str(tmp_path / "a.warc.wat.gz")] * 1}]
    assert estimate(PipelineConfig.model_validate(facts)).pairs == PAIRS_A_WAT
    facts["ingest"]["sources"][0]["paths"] = [str(tmp_path / "nothing.csv")]
    assert estimate(PipelineConfig.model_validate(facts)).pairs is None
