"""`curate search`: what it prints, and what it says of its answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from curate.cli import main
from curate.config.models import IndexSettings
from curate.dataset import layout
from curate.index.stage import IndexStage
from tests.unit.embed.clip_shards import run_stage
from tests.unit.index.index_pool import pool_of, unit


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image vectors of a model that was not there when they were indexed; now it is said to be the demo's."""
    folder = tmp_path_factory.mktemp("w")
    space = pool_of(folder, {"image": unit(np.random.default_rng(0).standard_normal((300, 128)))})
    run_stage(space, IndexStage("e", "m", IndexSettings(type="IVF8,Flat")))
    config = {
        "workspace": str(folder),
        "embed": {"models": {"m": {"model": "demo", "modalities": ["image"]}}},
        "filter": {"experiments": {"e": {"rules": {"all": "true"}}}},
    }
    space.write_bytes(layout.CONFIG, yaml.safe_dump(config).encode())
    return folder


def searched(
    capsys: pytest.CaptureFixture[str], place: Path, *arguments: str, code: int = 0
) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["search", *arguments, "-w", str(place)])
    assert caught.value.code == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_what_was_not_measured_is_said_beside_the_answers(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = searched(capsys, place, "a dog", "--json", "-k", "3")
    hits = json.loads(out)
    assert len(hits) == 3
    assert all(hit["url"].startswith("http://h/") and hit["url"].endswith("\x9b") for hit in hits)
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(out)
    assert err.startswith("! what text queries find in this index was not measured (no texts are embedded")
    assert "index.queries: prompts" in err
    out, err = searched(capsys, place, "--uid", hits[0]["uid"][:10], "-k", "2")
    assert err == ""
    first = out.splitlines()
    assert first[0] == f"1.0000  text of {hits[0]['uid']}"
    assert first[1].split() == [hits[0]["uid"], f"http://h/{hits[0]['uid']}�]0;title��x�"]
    assert len(first) == 4


def test_a_uid_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = searched(capsys, place, "--uid", "0", code=2)
    assert err.startswith("error: search: several uids begin with '0': ")
    _, err = searched(capsys, place, "--uid", "\x1b[2J", code=2)
    assert err.startswith("error: search: '�[2J' is not a uid")
