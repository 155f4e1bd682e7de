"""What a disk, a network or a store says becomes a line for people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import NoCredentialsError

from curate.cli import main
from curate.dataset import external
from curate.dataset.listing import listed
from curate.dataset.workspace import Workspace
from curate.errors import UserError, is_of_storage, reaching, storage_text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd\nlines"), "odd lines"),
        (NoCredentialsError(), "Unable to locate credentials (public data: storage_options: {anon: true})"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_one_line_of_what_was_said(error: Exception, text: str) -> None:
    assert is_of_storage(error)
    assert storage_text(error) == text


def test_only_storage_is_explained_away() -> None:
    assert not is_of_storage(ValueError("ours"))
    with pytest.raises(ValueError, match="ours"), reaching("a file"):
        raise ValueError("ours")
    with pytest.raises(UserError, match="as it was"), reaching("a file"):
        raise UserError("as it was")
    with (
        pytest.raises(UserError, match=r"^a file: Unable to locate credentials"),
        reaching("a file"),
    ):
        raise NoCredentialsError()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/list.txt"
    with pytest.raises(UserError, match=r"^rules\.r\.file: http://127\.0\.0\.1:1/list\.txt: .*(?i:connect)"):
        external.digest(url, "rules.r.file")
    with pytest.raises(UserError, match=r"^here: 'http://127\.0\.0\.1:1/x\.parquet'"):
        list(listed("http://127.0.0.1:1/x.parquet", {}, "here", (".parquet",)))


def test_a_file_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=rf"^k: lists/l\.txt: no such file \(looked for {tmp_path}/lists/l\.txt\)$"
    ):
        external.digest("lists/l.txt", "k")
    (tmp_path / "lists").mkdir()
    with pytest.raises(UserError, match="is a folder, not a file"):
        external.digest("lists", "k")


def test_the_program_says_it_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise PermissionError(13, "Permission denied", "/a/b")

    monkeypatch.setattr(Workspace, "exists", refuse)
    with pytest.raises(SystemExit) as ended:
        main(["explain", "0" * 32, "-w", str(tmp_path)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: workspace {tmp_path}: /a/b: Permission denied\n"


def test_a_terminal_without_unicode_costs_letters_only(tmp_path: Path) -> None:
    code = "from curate.cli import main; main(['config', 'presets'])"
    environment = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "laion400m" in done.stdout
