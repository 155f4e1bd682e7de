"""The stage as the engine runs it: shards of candidates to tars and tables."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from curate.config.models import DownloadSettings, RunSettings
from curate.dataset import layout
from curate.dataset.family import CANDIDATES, IMAGES
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.download import stage as stage_module
from curate.download.fetch import Fetched
from curate.download.reasons import http_error
from curate.download.stage import DownloadStage
from curate.engine.engine import Engine
from curate.engine.stage import Outcome
from curate.errors import ConfigError, DataError
from curate.reasons import DownloadReason as R
from tests.unit.download.web import (
    Answer,
    Site,
    body,
    drip,
    hang_up,
    hanging,
    make_shard,
    picture,
    redirect,
    settings,
    silence,
    status,
)

OURS = [
    "key", "status", "error_message", "width", "height", "original_width", "original_height", "exif",
    "sha256", "reason", "bytes",
]  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "work"))


def run(workspace: Workspace, **changes: Any) -> Outcome:
    stage = DownloadStage(settings(**changes))
    (unit,) = stage.units(workspace)
    outcome = stage.run(workspace, unit)
    assert outcome.rows_in == outcome.rows_out + sum(outcome.drops.values())
    return outcome


def table_of(workspace: Workspace, shard: str = "00000") -> pa.Table:
    return workspace.read_table(IMAGES.path(shard))


def files_of(workspace: Workspace, shard: str = "00000") -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(workspace.read_bytes(layout.image_tar(shard)))) as archive:
        members = archive.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname) for m in members} <= {
            (0, 0, 0, 0o444, "", "")
        }
        return {m.name: archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def test_a_shard(site: Site, workspace: Workspace) -> None:
    pairs = [(site.add(f"/{i}.jpg", body(picture(40 + i, 30, seed=i))), f"picture {i} ä") for i in range(20)]
    pairs += [(f"{site.base}/gone/{i}", f"gone {i}") for i in range(5)]
    pairs += [(site.add("/text", body(b"<html>no image</html>")), "a page")]
    make_shard(workspace, pairs, extra={"page_url": pa.array(["p"] * 26), "n": pa.array(range(26))})
    outcome = run(workspace, skip_reencode=False)
    assert (outcome.rows_in, outcome.rows_out) == (26, 20)
    assert outcome.drops == {"http_404": 5, "decode_error": 1}
    assert [ref.path for ref in outcome.outputs] == [
        "images/00000.tar", "images/00000.parquet", "images/00000_stats.json",
    ]  # fmt: skip

    candidates = workspace.read_table(CANDIDATES.path("00000"))
    table = table_of(workspace)
    assert table.column_names == ["uid", "url", "caption", "page_url", "n", *OURS]
    for ours, theirs in [("uid", "uid"), ("url", "url"), ("caption", "text"), ("n", "n"), ("key", "uid")]:
        assert table[ours].to_pylist() == candidates[theirs].to_pylist()
    files = files_of(workspace)
    rows = [row for row in table.to_pylist() if row["status"] == "success"]
    assert list(files) == [f"{row['uid']}.{end}" for row in rows for end in ("jpg", "json", "txt")]
    for row in rows:
        data = files[f"{row['uid']}.jpg"]
        assert Image.open(io.BytesIO(data)).format == "JPEG"
        assert row["bytes"] == len(data)
        assert row["reason"] is None
        assert row["error_message"] is None
        assert json.loads(files[f"{row['uid']}.json"]) == row
        assert files[f"{row['uid']}.txt"].decode() == row["caption"]
    gone = [row for row in table.to_pylist() if row["reason"] == "http_404"]
    assert {row["error_message"] for row in gone} == {"HTTP Error 404: Not Found"}
    assert {row["status"] for row in gone} == {"failed_to_download"}
    assert {(row["width"], row["sha256"], row["exif"], row["bytes"]) for row in gone} == {(None,) * 4}

    stats = workspace.read_json(layout.image_stats("00000"))
    assert list(stats) == [
        "count", "successes", "failed_to_download", "failed_to_resize", "duration", "start_time", "end_time",
        "status_dict",
    ]  # fmt: skip
    assert [stats[k] for k in list(stats)[:4]] == [26, 20, 5, 1]
    assert stats["status_dict"]["success"] == 20
    assert sum(stats["status_dict"].values()) == 26


def test_truncated_images_are_kept_when_asked_for_and_the_row_says_so(
    site: Site, workspace: Workspace, tmp_path: Path
) -> None:
    whole = picture(120, 90, seed=3, quality=95)
    pairs = [(site.add("/cut", body(whole[:-400])), "cut"), (site.add("/whole", body(whole)), "whole")]
    other = Workspace(str(tmp_path / "other"))
    for where in (workspace, other):
        make_shard(where, pairs)
    assert run(other).drops == {"decode_error": 1}
    outcome = run(workspace, truncated="keep")
    assert (outcome.rows_out, outcome.drops) == (2, {})
    rows = {row["caption"]: row for row in table_of(workspace).to_pylist()}
    assert rows["whole"]["error_message"] is None
    assert rows["cut"]["error_message"].startswith("Image decoding error: image file is truncated")
    assert (rows["cut"]["status"], rows["cut"]["reason"]) == ("success", None)
    for row in rows.values():
        Image.open(io.BytesIO(files_of(workspace)[f"{row['uid']}.jpg"])).load()
    stats = workspace.read_json(layout.image_stats("00000"))
    assert stats["successes"] == 2
    assert sum(stats["status_dict"].values()) == 2


def test_same_answers_same_bytes(site: Site, workspace: Workspace, tmp_path: Path) -> None:
    pairs = [(site.add(f"/{i}", body(picture(400, 300, seed=i))), str(i)) for i in range(12)]
    pairs += [(site.add("/no", body(b"\x00" * 50)), "no"), (site.base + "/404", "gone")]
    pairs += [("http://127.0.0.1:1/", "closed"), (site.add("/slow", silence(site)), "slow")]
    other = Workspace(str(tmp_path / "other"))
    got = []
    for where, threads in ((workspace, 1), (other, 16)):
        make_shard(where, pairs)
        run(where, threads=threads, timeout=0.5, image_size=64)
        names = (layout.image_tar("00000"), IMAGES.path("00000"))
        got.append([where.read_bytes(name) for name in names])
    assert got[0] == got[1]


def answers(site: Site) -> dict[R, tuple[Answer | str, dict[str, Any]]]:
    """Something that provokes each reason."""
    http = {R.HTTP_401: 401, R.HTTP_403: 403, R.HTTP_404: 404, R.HTTP_410: 410, R.HTTP_429: 429}
    found: dict[R, tuple[Answer | str, dict[str, Any]]] = {r: (status(code), {}) for r, code in http.items()}
    return found | {
        R.HTTP_4XX: (status(451), {}),
        R.HTTP_5XX: (status(503), {}),
        R.TIMEOUT: (drip(site, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"), {"deadline": 0.4}),
        R.DNS: ("http://name.invalid/", {}),
        R.CONNECTION: (hang_up, {}),
        R.TLS: (f"https://127.0.0.1:{site.port}/", {}),
        R.REDIRECT: (redirect("/R.REDIRECT"), {"max_redirects": 0}),
        R.BAD_URL: ("UNLIKELY", {}),
        R.PRIVATE_ADDRESS: (body(picture()), {"allow_private_addresses": False}),
        R.OPT_OUT: (body(picture(), X_Robots_Tag="noai"), {}),
        R.TOO_LARGE: (body(picture()), {"max_bytes": 100}),
        R.EMPTY_BODY: (body(b""), {}),
        R.BODY_TOO_SMALL: (body(picture()), {"min_bytes": 100_000}),
        R.TOO_MANY_PIXELS: (body(picture()), {"max_pixels": 100}),
        R.DECODE_ERROR: (body(picture()[:300]), {}),
        R.DECODE_TIMEOUT: (body(hanging()), {"decode_timeout": 0.3}),
        R.TOO_SMALL: (body(picture()), {"min_image_size": 100}),
        R.ASPECT_RATIO: (body(picture(100, 10)), {"max_aspect_ratio": 2}),
        R.OTHER: (status(999), {}),
    }


@pytest.mark.parametrize("reason", list(R))
def test_every_reason(site: Site, workspace: Workspace, reason: R, monkeypatch: pytest.MonkeyPatch) -> None:
    what, changes = answers(site)[reason]
    if reason is R.DNS:
        forget_names(monkeypatch)
    url = what if isinstance(what, str) else site.add("/x", what)
    make_shard(workspace, [(url, "text")])
    outcome = run(workspace, **changes)
    assert outcome.drops == {str(reason): 1}
    (row,) = table_of(workspace).to_pylist()
    assert row["reason"] == str(reason)
    assert row["error_message"]
    resized = reason in (
        R.TOO_MANY_PIXELS, R.DECODE_ERROR, R.DECODE_TIMEOUT, R.TOO_SMALL, R.ASPECT_RATIO,
    )  # fmt: skip
    assert row["status"] == ("failed_to_resize" if resized else "failed_to_download")
    assert files_of(workspace) == {}


def forget_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, without asking a name server."""
    import socket

    def lookup(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_no_candidates(workspace: Workspace) -> None:
    make_shard(workspace, [])
    outcome = run(workspace)
    assert (outcome.rows_in, outcome.rows_out, dict(outcome.drops)) == (0, 0, {})
    assert files_of(workspace) == {}
    table = table_of(workspace)
    assert len(table) == 0
    assert table.column_names == ["uid", "url", "caption", *OURS]
    assert workspace.read_json(layout.image_stats("00000"))["count"] == 0


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["ok", "404", "timeout", "bad", "crash"]), max_size=40), st.integers(1, 12))
def test_one_row_per_candidate_in_order(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[str], threads: int
) -> None:
    workspace = Workspace(str(tmp_path_factory.mktemp("w")))
    good = picture(20, 16)

    def fake(url: str, *_: object) -> Fetched:
        kind = url.rsplit("/", 1)[-1]
        if kind == "crash":
            raise RuntimeError("never seen before")
        return {
            "ok": Fetched(good, "", len(good)),
            "404": Fetched(None, http_error(404)),
            "timeout": Fetched(None, "timed out"),
            "bad": Fetched(b"no image", "", 8),
        }[kind]

    pairs = [(f"http://example.com/{i}/{kind}", "text") for i, kind in enumerate(outcomes)]
    make_shard(workspace, pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "fetch", fake)
        outcome = run(workspace, threads=threads)
    table = table_of(workspace).to_pylist()
    names = {"404": "http_404", "timeout": "timeout", "bad": "decode_error", "crash": "other", "ok": None}
    assert [row["uid"] for row in table] == sorted(row["uid"] for row in table)
    assert [row["reason"] for row in table] == [names[row["url"].rsplit("/", 1)[-1]] for row in table]
    assert Counter(outcomes)["ok"] == outcome.rows_out
    assert len(table) == len(pairs)
    kept = [row["uid"] for row in table if row["status"] == "success"]
    assert [name[:32] for name in files_of(workspace)] == [uid for uid in kept for _ in range(3)]


def test_readers(site: Site, workspace: Workspace) -> None:
    """webdataset groups the members by key; so does anything that reads img2dataset's shards."""
    pairs = [(site.add(f"/{i}.jpg", body(picture(seed=i))), f"text {i}") for i in range(7)]
    make_shard(workspace, pairs)
    run(workspace)
    dataset = webdataset.WebDataset(workspace.location(layout.image_tar("00000")), shardshuffle=False)
    samples = list(dataset.decode("rgb8").to_tuple("__key__", "jpg", "json", "txt"))
    table = table_of(workspace)
    assert [key for key, *_ in samples] == table["key"].to_pylist()
    assert [text for *_, text in samples] == table["caption"].to_pylist()
    assert all(meta["status"] == "success" and pixels.shape[2] == 3 for _, pixels, meta, _ in samples)


def test_columns_with_our_names(site: Site, workspace: Workspace) -> None:
    """A table that brings its own sha256, width or caption keeps it under another name."""
    url = site.add("/a", body(picture()))
    extra = {
        "sha256": pa.array(["theirs"]),
        "width": pa.array([7]),
        "caption": pa.array(["c"]),
        "score": pa.array([float("nan")]),
        "when": pa.array([0], pa.timestamp("s")),
    }
    make_shard(workspace, [(url, "text")], extra=extra)
    run(workspace)
    (row,) = table_of(workspace).to_pylist()
    assert (row["source_sha256"], row["source_width"], row["source_caption"]) == ("theirs", 7, "c")
    assert (row["width"], row["caption"]) == (64, "text")
    meta = json.loads(files_of(workspace)[f"{row['uid']}.json"])
    assert meta["score"] is None
    assert meta["when"].startswith("1970-01-01")


def test_units_are_the_shards_that_ingest_committed(site: Site, workspace: Workspace) -> None:
    for i in range(3):
        make_shard(workspace, [(f"{site.base}/{i}", "t")], f"{i:05d}")
    workspace.write_table("candidates/99999.parquet", pa.table({"uid": []}))
    units = list(DownloadStage(settings()).units(workspace))
    assert [u.name for u in units] == ["00000", "00001", "00002"]
    refs = RecordStore(workspace).outputs("ingest")
    assert [u.inputs for u in units] == [(refs[f"candidates/{u.name}.parquet"],) for u in units]


def test_engine_runs_it_once(site: Site, workspace: Workspace) -> None:
    url = site.add("/a", body(picture()))
    make_shard(workspace, [(url, "t"), (site.base + "/404", "u")])
    for _ in range(2):
        engine = Engine(workspace, RunSettings(cluster="synchronous"), Console(quiet=True))
        engine.run([DownloadStage(settings())])
    assert site.hits["/a"] == 1
    record = RecordStore(workspace).read("download", "00000")
    assert record is not None
    assert (record.rows_in, record.rows_out, record.drops) == (2, 1, {"http_404": 1})
    assert record.stats["bytes_fetched"] == len(picture())
    assert record.stats["tries"] == 2


def test_stage_pickles() -> None:
    stage = pickle.loads(pickle.dumps(DownloadStage(settings(image_size=99))))
    assert stage.settings["image_size"] == 99
    assert "threads" not in stage.settings
    assert stage.guarded


def test_broken_candidates(workspace: Workspace) -> None:
    unit = make_shard(workspace, [("http://example.com/", "t")])
    workspace.write_bytes(unit.inputs[0].path, b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        run(workspace)
    workspace.write_table(unit.inputs[0].path, pa.table({"uid": ["a"], "url": ["b"]}))
    with pytest.raises(DataError, match="no column 'text'"):
        run(workspace)
    assert not workspace.exists(layout.image_tar("00000"))
    assert not workspace.sizes(".curate/tmp")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encode_format": "png"}, "encode_quality"),
        ({"user_agent": "two\nlines"}, "user_agent"),
        ({"user_agent": ""}, "user_agent"),
        ({"proxy": "socks5://127.0.0.1:1080"}, "proxy"),
        ({"proxy": "http://"}, "proxy"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DownloadStage(DownloadSettings(**changes))


def test_table_is_sealed_in_bounded_groups(
    site: Site, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.download.writer.ROWS_PER_GROUP", 4)
    make_shard(workspace, [(f"{site.base}/{i}", "t") for i in range(10)])
    run(workspace)
    with workspace.local(IMAGES.path("00000")) as path:
        assert [pq.ParquetFile(path).metadata.row_group(i).num_rows for i in range(3)] == [4, 4, 2]


def test_malformed_and_real_images_of_the_fixtures(
    site: Site, workspace: Workspace, fixtures_dir: Path
) -> None:
    """A shard of nothing but trouble, with photographs among it: a row each, the photographs all there."""
    bad = sorted(p for p in (fixtures_dir / "malformed").rglob("*") if p.is_file() and p.suffix != ".json")
    good = sorted((fixtures_dir / "images" / "cc_test_images").glob("*.jpg"))
    pairs = []
    for i, path in enumerate(bad + good):
        pairs.append((site.add(f"/{i}", body(path.read_bytes())), path.name))
    make_shard(workspace, pairs)
    outcome = run(workspace, max_pixels=40_000_000)
    rows = table_of(workspace).to_pylist()
    assert outcome.rows_in == len(rows) == len(pairs)
    assert set(outcome.drops) <= {"decode_error", "too_many_pixels", "empty_body"}
    names = {path.name for path in good}
    photographs = [row for row in rows if row["caption"] in names]
    assert len(photographs) == len(good) == 18
    assert {row["status"] for row in photographs} == {"success"}
    assert {min(row["width"], row["height"]) for row in photographs} == {256}
