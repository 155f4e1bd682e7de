from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.uid import halves
from curate.engine.engine import run_unit
from curate.engine.plan import make_plan
from curate.errors import UserError
from curate.rules.kinds.members import UidSet
from tests.unit.filter.filter_pool import (
    cut_in_shards,
    kept_uids,
    run_experiment,
    stage_of,
    uid_from,
    write_pool,
)

TYPES = {
    "text_cluster": pa.int32(),
    "text_big": pa.uint64(),
    "text_lang": pa.string(),
    "text_x": pa.float64(),
}
BIG = 2**64 - 1
VALUES = [
    (0, 1, "en"),
    (1, BIG, "de"),
    (2, 3, None),
    (None, None, "en"),
    (-4, 2**63, "no"),
    (2, 2**63 - 1, "fr"),
]
ROWS = [
    {
        "uid": uid_from(i),
        "text_cluster": cluster,
        "text_big": big,
        "text_lang": lang,
        "url": f"http://h{i % 2}.org/{i}",
    }
    for i, (cluster, big, lang) in enumerate(VALUES)
]


def kept(folder: Path, rule: dict[str, Any]) -> list[int]:
    workspace = write_pool(folder / "pool", cut_in_shards(ROWS, 2), TYPES)
    run_experiment(workspace, "e", {"rules": {"r": rule}})
    return [int(uid, 16) for uid in kept_uids(workspace, "e")]


class TestFiles:
    def test_numbers(self, tmp_path: Path) -> None:
        np.save(tmp_path / "ids.npy", np.array([2, 0, -4, 2], np.int64))
        (tmp_path / "ids.txt").write_text("2\r\n0\n\n -4 \n")
        pq.write_table(
            pa.table({"a": ["x"], "c": pa.array([[2], [0], [-4]][0], pa.int16())}), tmp_path / "i.parquet"
        )
        pq.write_table(pa.table({"c": pa.array([0, 2, None, -4], pa.int8())}), tmp_path / "one.parquet")
        for name in ("ids.npy", "ids.txt", "one.parquet"):
            assert kept(tmp_path, {"in": "text_cluster", "file": str(tmp_path / name)}) == [0, 2, 4, 5]
            assert kept(tmp_path, {"not_in": "text_cluster", "file": str(tmp_path / name)}) == [1]
        assert kept(tmp_path, {"in": "text_cluster", "file": str(tmp_path / "i.parquet"), "column": "c"}) == [
            2,
            5,
        ]

    def test_numbers_beyond_64_bits_of_sign(self, tmp_path: Path) -> None:
        assert kept(tmp_path, {"in": "text_big", "values": [1, 2**63 - 1]}) == [0, 5]
        assert kept(tmp_path, {"not_in": "text_big", "values": [1, 2**63 - 1]}) == [1, 2, 4]

    def test_numbers_beyond_64_bits_of_sign_are_listed(self, tmp_path: Path) -> None:
        (tmp_path / "big.txt").write_text(f"{2**64 - 1}\n")
        rule = {"in": "text_big", "file": str(tmp_path / "big.txt")}
        assert kept(tmp_path, rule) == [1]
        with pytest.raises(UserError, match="'-1' cannot be a value of 'text_big', which is UBIGINT"):
            kept(tmp_path, {"in": "text_big", "values": [-1]})

    def test_texts(self, tmp_path: Path) -> None:
        (tmp_path / "hosts.txt").write_text("h1.org\n")
        rule = {"not_in": "split_part(url, '/', 3)", "file": str(tmp_path / "hosts.txt")}
        assert kept(tmp_path, rule) == [0, 2, 4]
        assert kept(tmp_path, {"in": "text_lang", "values": ["en", "no"]}) == [0, 3, 4]

    def test_uids_in_each_form(self, tmp_path: Path) -> None:
        uids = [uid_from(i) for i in (5, 1, 77)]
        np.save(tmp_path / "u.npy", halves(pa.array(uids)))
        np.save(tmp_path / "text.npy", np.array(uids))
        (tmp_path / "u.txt").write_text("\n".join(uids))
        pq.write_table(pa.table({"uid": uids, "score": [1.0, 2.0, 3.0]}), tmp_path / "u.parquet")
        for name in ("u.npy", "text.npy", "u.txt", "u.parquet"):
            assert kept(tmp_path, {"in": "uid", "file": str(tmp_path / name)}) == [1, 5]
            assert kept(tmp_path, {"not_in": "uid", "file": str(tmp_path / name)}) == [0, 2, 3, 4]

    @pytest.mark.parametrize(
        ("name", "content", "column", "message"),
        [
            ("a.txt", b"", "text_lang", "lists nothing"),
            (
                "a.txt",
                b"one\n",
                "text_cluster",
                "'one' cannot be a value of 'text_cluster', which is",
            ),
            ("a.txt", b"99999999999999999999", "text_cluster", "cannot be a value"),
            ("a.txt", b"abc\n", "uid", "'abc' is not a uid"),
            ("a.npy", b"abc", "uid", "not an npy file"),
            ("a.parquet", b"abc", "uid", "not a parquet file"),
        ],
    )
    def test_files_that_will_not_do(
        self, tmp_path: Path, name: str, content: bytes, column: str, message: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"rules\.r\.file: .*{message}"):
            kept(tmp_path, {"in": column, "file": str(tmp_path / name)})

    def test_arrays_that_will_not_do(self, tmp_path: Path) -> None:
        np.save(tmp_path / "empty.npy", np.empty(0, np.int64))
        np.save(tmp_path / "float.npy", np.zeros(3))
        for name, message in (("empty.npy", "lists nothing"), ("float.npy", "got float64")):
            with pytest.raises(UserError, match=message):
                kept(tmp_path, {"in": "text_cluster", "file": str(tmp_path / name)})
        pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "two.parquet")
        with pytest.raises(UserError, match="no column 'uid'; columns: a, b; name one by `column`"):
            kept(tmp_path, {"in": "text_lang", "file": str(tmp_path / "two.parquet")})

    def test_a_missing_file_is_found_before_any_work(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"rules\.r\.file: .*none\.txt: no such file"):
            stage_of("e", {"rules": {"r": {"in": "text_lang", "file": str(tmp_path / "none.txt")}}})

    def test_a_column_that_no_list_can_be_compared_with(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"rules\.r: 'text_x' is DOUBLE; a list has texts"):
            kept(tmp_path, {"in": "text_x", "values": [1]})
        with pytest.raises(UserError, match=r"rules\.r\.values: 'en' cannot be a value"):
            kept(tmp_path, {"in": "text_cluster", "values": ["en"]})


class TestDigests:
    def test_another_list_is_other_work_and_another_place_is_not(self, tmp_path: Path) -> None:
        workspace = write_pool(tmp_path / "pool", cut_in_shards(ROWS, 2), TYPES)

        def work(name: str) -> int:
            stage = stage_of("e", {"rules": {"r": {"in": "text_lang", "file": str(tmp_path / name)}}})
            plan = make_plan(stage, workspace, RecordStore(workspace))
            for job in plan.jobs:
                run_unit(stage, workspace, job)
            return len(plan.jobs)

        (tmp_path / "a.txt").write_text("en\n")
        assert [work("a.txt"), work("a.txt")] == [1, 0]
        (tmp_path / "a.txt").write_text("en\nde\n")
        assert [work("a.txt"), work("a.txt")] == [1, 0]
        assert [int(u, 16) for u in kept_uids(workspace, "e")] == [0, 1, 3]

    def test_the_digest_is_recorded_and_can_be_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("en\n")
        rule = {"in": "text_lang", "file": str(tmp_path / "a.txt")}
        kept(tmp_path, rule)
        learned = json.loads((tmp_path / "pool" / layout.selection_file("e", "learned.json")).read_text())
        recorded = learned["settings"]["rules"]["r"]
        assert len(recorded["digest"]) == 32
        settings = {k: v for k, v in learned["settings"].items() if k != "order"}
        assert Experiment.model_validate(settings).rules["r"].facts() == recorded
        assert kept(tmp_path, recorded) == [0, 3]
        (tmp_path / "a.txt").write_text("de\n")
        with pytest.raises(UserError, match=rf"has the digest .*, not {recorded['digest']}"):
            kept(tmp_path, recorded)


HALF = st.integers(0, 2)


@given(st.lists(st.tuples(HALF, HALF)), st.lists(st.tuples(HALF, HALF)))
def test_uids_with_equal_halves(listed: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    def texts(pairs: list[tuple[int, int]]) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array([f"{a:016x}{b:016x}" for a, b in pairs] + [None], pa.string())])

    uids = UidSet(halves(texts(listed).drop_null()))
    assert uids.member(texts(asked)).tolist() == [pair in listed for pair in asked] + [False]
