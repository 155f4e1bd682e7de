from __future__ import annotations

import io
import math
import random
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from curate.config.filters import Experiment
from curate.config.models import RunSettings
from curate.dataset import layout
from curate.dataset.family import IMAGES, Family
from curate.dataset.records import RecordStore
from curate.dataset.uid import SUBSET_DTYPE, halves
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine, run_unit
from curate.engine.plan import make_plan
from curate.errors import DataError, UserError
from curate.filter.stage import FilterStage
from curate.filter.subset import SubsetWriter
from curate.rules.account.explain import open_judge, verdict
from curate.samples import database
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORE_TYPES,
    SCORER,
    Row,
    cut_in_shards,
    kept_uids,
    run_experiment,
    stage_of,
    uid_from,
    write_images,
    write_pool,
    write_scores,
    write_similarities,
)


def some_rows(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    similarities = [None, math.nan, *(i / 64 for i in range(32))]
    digests = [None, *(f"{i:04x}" for i in range(count // 2))]
    return [
        {
            "uid": uid_from(draw.getrandbits(128)),
            "similarity": draw.choice(similarities),
            "text_score": draw.random(),
            "text_lang": draw.choice(["en", "de", None]),
            "text": draw.choice(["a cat", "dog", ""]),
            "sha256": draw.choice(digests),
            "width": draw.randint(1, 500),
            "height": draw.randint(1, 500),
        }
        for _ in range(count)
    ]


def pool_of(folder: Path, rows: list[Row], shards: int = 3) -> Workspace:
    return write_pool(folder, cut_in_shards(rows, shards))


def plan_and_run(workspace: Workspace, stage: FilterStage) -> tuple[int, dict[str, str]]:
    """Jobs and reasons for redoing, after doing them."""
    plan = make_plan(stage, workspace, RecordStore(workspace))
    for job in plan.jobs:
        run_unit(stage, workspace, job)
    return len(plan.jobs), plan.stale


CLIP = {"rules": {"clip": "similarity >= 0.25"}}
EVERYTHING = {
    "rules": {
        "clip": "similarity >= 0.125",
        "top": {"top": "similarity", "fraction": 0.4},
        "unique": {"dedup": "sha256", "highest": "text_score"},
    }
}


class TestWhatIsDoneAgain:
    def test_only_what_the_rules_read_is_an_input(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(20))
        (unit,) = stage_of("e", CLIP).units(workspace)
        assert [ref.path for ref in unit.inputs] == [
            *(Family.embeddings(MODEL).path(f"0000{i}") for i in range(3)),
            *(IMAGES.path(f"0000{i}") for i in range(3)),
        ]
        (unit,) = stage_of("e", {"rules": {"long": "text_length > 3"}}).units(workspace)
        assert [ref.path for ref in unit.inputs] == [
            *(IMAGES.path(f"0000{i}") for i in range(3)),
            *(Family.scores(SCORER).path(f"0000{i}") for i in range(3)),
        ]

    def test_a_column_of_dedup_or_its_survivor_counts_as_read(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(20))
        rule = {"rules": {"unique": {"dedup": "sha256", "highest": "similarity"}}}
        (unit,) = stage_of("e", rule).units(workspace)
        assert Family.embeddings(MODEL).path("00000") in [ref.path for ref in unit.inputs]

    def test_a_score_that_no_rule_reads_redoes_nothing(self, tmp_path: Path) -> None:
        rows = some_rows(20)
        workspace = pool_of(tmp_path, rows)
        assert plan_and_run(workspace, stage_of("e", CLIP)) == (1, {})
        assert plan_and_run(workspace, stage_of("e", CLIP)) == (0, {})
        for i, part in enumerate(cut_in_shards([{**r, "text_score": 0.5} for r in rows], 3)):
            write_scores(workspace, f"0000{i}", part, SCORER, SCORE_TYPES)
        assert plan_and_run(workspace, stage_of("e", CLIP)) == (0, {})

    def test_a_score_that_a_rule_reads_does(self, tmp_path: Path) -> None:
        rows = some_rows(20)
        workspace = pool_of(tmp_path, rows)
        plan_and_run(workspace, stage_of("e", CLIP))
        part = cut_in_shards([{**r, "similarity": 0.5} for r in rows], 3)[1]
        write_similarities(workspace, "00001", part)
        assert plan_and_run(workspace, stage_of("e", CLIP)) == (1, {"all": "inputs changed"})
        assert set(kept_uids(workspace, "e")) >= {r["uid"] for r in part}

    def test_a_threshold_is_named(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(20))
        plan_and_run(workspace, stage_of("e", CLIP))
        other = stage_of("e", {"rules": {"clip": "similarity >= 0.5"}})
        why = "settings: rules.clip.where similarity >= 0.25 → similarity >= 0.5"
        assert plan_and_run(workspace, other) == (1, {"all": why})

    def test_the_order_of_rules_decides_reasons(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, [{"uid": uid_from(1), "width": 1, "height": 1}])
        first = {"rules": {"wide": "width > 9", "high": "height > 9"}}
        second = {"rules": {"high": "height > 9", "wide": "width > 9"}}
        assert plan_and_run(workspace, stage_of("e", first))[0] == 1
        assert plan_and_run(workspace, stage_of("e", second))[0] == 1
        record = RecordStore(workspace).read("filter/e", "all")
        assert record is not None
        assert record.drops == {"high": 1}

    def test_files_of_earlier_runs_go(self, tmp_path: Path) -> None:
        rows = some_rows(20)
        workspace = pool_of(tmp_path, rows, 3)
        run_experiment(workspace, "e", EVERYTHING)
        assert workspace.exists(layout.selection_file("e", "duplicates_02.parquet"))
        workspace.write_bytes(layout.selection_file("e", "00007.parquet"), b"of an earlier version")
        run_experiment(workspace, "e", CLIP)
        left = {p.rsplit("/", 1)[1] for p in workspace.sizes("selections/e")}
        assert left == {"counts.parquet", "funnel.json", "learned.json", "subset.npy"}

    def test_without_images_there_is_nothing_to_do(self, tmp_path: Path) -> None:
        assert list(stage_of("e", CLIP).units(Workspace(str(tmp_path)))) == []


class TestMeaning:
    def test_nan_is_not_greater_than_a_threshold(self, tmp_path: Path) -> None:
        rows = [{"uid": uid_from(i), "similarity": s} for i, s in enumerate([math.nan, 0.5, None, 0.1])]
        outcome = run_experiment(pool_of(tmp_path, rows, 1), "e", {"rules": {"clip": "similarity > 0.3"}})
        assert (outcome.rows_out, dict(outcome.drops)) == (1, {"missing_score": 2, "clip": 1})

    def test_not_of_a_missing_score_is_no_pass(self, tmp_path: Path) -> None:
        rows = [{"uid": uid_from(i), "similarity": s} for i, s in enumerate([math.nan, 0.5, None, 0.1])]
        workspace = pool_of(tmp_path, rows, 2)
        outcome = run_experiment(workspace, "e", {**CLIP, "keep": {"not": "clip"}})
        assert kept_uids(workspace, "e") == [uid_from(3)]
        assert dict(outcome.drops) == {"missing_score": 2, "not_selected": 1}

    def test_halves_of_floats_are_read(self, tmp_path: Path) -> None:
        rows = [{"uid": uid_from(i), "text_score": np.float16(i / 4)} for i in range(4)]
        rows[3]["text_score"] = np.float16("nan")
        types = {"text_score": pa.float16()}
        workspace = write_pool(tmp_path, cut_in_shards(rows, 1), types)
        run_experiment(workspace, "e", {"rules": {"s": "text_score >= 0.25"}})
        assert kept_uids(workspace, "e") == [uid_from(1), uid_from(2)]

    def test_infinite_cuts_are_learned_and_explained(self, tmp_path: Path) -> None:
        rows = [{"uid": uid_from(i), "similarity": math.inf} for i in range(4)]
        workspace = pool_of(tmp_path, rows, 1)
        config = {"rules": {"top": {"top": "similarity", "fraction": 0.5}}}
        run_experiment(workspace, "e", config)
        assert kept_uids(workspace, "e") == [uid_from(0), uid_from(1)]
        said = verdict(workspace, "e", Experiment.model_validate(config), (MODEL,), (SCORER,), rows[2]["uid"])
        assert (said.reason, said.rules[0].note[:14]) == ("top", "cut at inf, ui")

    def test_a_fraction_of_few_rows_may_be_none(self, tmp_path: Path) -> None:
        rows = [{"uid": uid_from(i), "similarity": 0.5} for i in range(3)]
        workspace = pool_of(tmp_path, rows, 1)
        outcome = run_experiment(workspace, "e", {"rules": {"t": {"top": "similarity", "fraction": 0.3}}})
        assert (outcome.rows_out, dict(outcome.drops)) == (0, {"t": 3})
        assert np.load(tmp_path / layout.selection_file("e", "subset.npy")).shape == (0,)

    def test_other_experiments_selections(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(60))
        run_experiment(workspace, "clip", CLIP)
        run_experiment(workspace, "english", {"rules": {"en": "text_lang = 'en'"}})
        clip, english = set(kept_uids(workspace, "clip")), set(kept_uids(workspace, "english"))
        rules = {"clip": {"experiment": "clip"}, "english": {"experiment": "english"}}
        both = run_experiment(workspace, "both", {"rules": rules})
        assert set(kept_uids(workspace, "both")) == clip & english
        assert "missing_score" not in both.drops
        run_experiment(workspace, "less", {"rules": rules, "keep": {"all": ["clip", {"not": "english"}]}})
        assert set(kept_uids(workspace, "less")) == clip - english
        (unit,) = stage_of("both", {"rules": rules}).units(workspace)
        paths = [ref.path for ref in unit.inputs]
        assert layout.selection_file("clip", "subset.npy") in paths
        assert not any("funnel" in path for path in paths)


class TestSubset:
    def test_it_is_what_numpy_saves(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(200))
        run_experiment(workspace, "e", CLIP)
        uids = kept_uids(workspace, "e")
        stream = io.BytesIO()
        np.save(stream, halves(pa.array(uids)))
        path = tmp_path / layout.selection_file("e", "subset.npy")
        assert path.read_bytes() == stream.getvalue()

        loaded = np.load(path)
        assert loaded.dtype == SUBSET_DTYPE
        assert loaded.tolist() == sorted((int(u[:16], 16), int(u[16:], 16)) for u in uids)
        raw = np.memmap(path, SUBSET_DTYPE, "r", offset=path.stat().st_size - 16 * len(uids))
        assert raw.tolist() == loaded.tolist()

    @pytest.mark.parametrize("shards", [[], [0], [3], [0, 2, 0, 1]])
    def test_repeats_are_duplicates(self, tmp_path: Path, shards: list[int]) -> None:
        everything: list[str] = []
        with SubsetWriter(tmp_path / "subset.npy") as writer:
            for n in shards:
                uids = [uid_from(len(everything) * 1000 + i) for i in range(n)]
                repeats = np.array([i % 3 + 1 for i in range(n)], np.int32)
                writer.add(np.repeat(halves(pa.array(uids, pa.string())), repeats))
                everything += [u for u, r in zip(uids, repeats, strict=True) for _ in range(r)]
        stream = io.BytesIO()
        np.save(stream, np.array([(0, int(u, 16)) for u in everything], SUBSET_DTYPE))
        assert (tmp_path / "subset.npy").read_bytes() == stream.getvalue()


class TestDataComp:
    """Against DataComp's published semantics of its clip_score baseline."""

    @staticmethod
    def by_threshold(rows: list[Row], least: float) -> list[tuple[int, int]]:
        kept = [r["uid"] for r in rows if r["similarity"] >= least]
        return sorted((int(u[:16], 16), int(u[16:], 16)) for u in kept)

    @classmethod
    def by_fraction(cls, rows: list[Row], fraction: float) -> list[tuple[int, int]]:
        """The threshold is the descending scores' item ``int(n * fraction)``: one row too many."""
        descending = sorted((r["similarity"] for r in rows), reverse=True)
        return cls.by_threshold(rows, descending[int(len(rows) * fraction)])

    @staticmethod
    def ours(folder: Path, rows: list[Row], rule: Any) -> list[tuple[int, int]]:
        workspace = pool_of(folder, rows, 4)
        run_experiment(workspace, "e", {"rules": {"clip_score": rule}})
        return [tuple(r) for r in np.load(folder / layout.selection_file("e", "subset.npy")).tolist()]

    def test_threshold(self, tmp_path: Path) -> None:
        rows = [{**r, "similarity": i % 50 / 64} for i, r in enumerate(some_rows(500))]
        assert self.ours(tmp_path, rows, "similarity >= 0.28125") == self.by_threshold(rows, 0.28125)

    @pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.999])
    def test_fraction_without_ties_is_theirs_but_for_the_row_too_many(
        self, tmp_path: Path, fraction: float
    ) -> None:
        rows = [{**r, "similarity": i / 1024} for i, r in enumerate(some_rows(1000))]
        theirs = self.by_fraction(rows, fraction)
        ours = self.ours(tmp_path, rows, {"top": "similarity", "fraction": fraction})
        (extra,) = set(theirs) - set(ours)
        worst = min((r for r in rows if self._key(r) in theirs), key=lambda r: r["similarity"])
        assert extra == self._key(worst)
        assert len(ours) == int(1000 * fraction) == len(theirs) - 1
        assert set(ours) < set(theirs)

    def test_fraction_with_ties_is_exact_where_theirs_is_not(self, tmp_path: Path) -> None:
        rows = [{**r, "similarity": i % 4 / 4} for i, r in enumerate(some_rows(400))]
        ours = self.ours(tmp_path, rows, {"top": "similarity", "fraction": 0.3})
        theirs = self.by_fraction(rows, 0.3)
        assert (len(ours), len(theirs)) == (120, 200)
        best = sorted(rows, key=lambda r: (-r["similarity"], r["uid"]))[:120]
        assert ours == sorted(self._key(r) for r in best)

    def test_the_whole_pool(self, tmp_path: Path) -> None:
        rows = [{**r, "similarity": i / 64} for i, r in enumerate(some_rows(30))]
        with pytest.raises(IndexError):
            self.by_fraction(rows, 1.0)
        assert len(self.ours(tmp_path, rows, {"top": "similarity", "fraction": 1.0})) == 30

    @staticmethod
    def _key(row: Row) -> tuple[int, int]:
        return int(row["uid"][:16], 16), int(row["uid"][16:], 16)


def test_threads_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(20_000)
    digests = []
    for threads in (1, 4):
        monkeypatch.setattr(database.os, "cpu_count", lambda n=threads: n)
        workspace = pool_of(tmp_path / str(threads), rows)
        digests.append(sorted(run_experiment(workspace, "e", EVERYTHING).outputs, key=lambda r: r.path))
    assert digests[0] == digests[1]
    assert len(digests[0]) == 5


def test_scratch_is_gone_afterwards(tmp_path: Path) -> None:
    workspace = pool_of(tmp_path, some_rows(50))
    run_experiment(workspace, "e", EVERYTHING)
    assert list((tmp_path / ".curate/tmp").iterdir()) == []


class TestErrors:
    @pytest.mark.parametrize(
        ("rules", "message"),
        [
            (
                {"clip": "similarty > 0.3"},
                "filter.experiments.e.rules.clip: unknown column 'similarty'; did you mean similarity",
            ),
            (
                {"u": {"dedup": ["sha256", "sah256"]}},
                "filter.experiments.e.rules.u.dedup: unknown column 'sah256'; did you mean sha256",
            ),
            (
                {"u": {"dedup": "sha256", "highest": "text"}},
                "filter.experiments.e.rules.u.highest: 'text' is VARCHAR, not a number",
            ),
            (
                {"t": {"top": "text_lang", "fraction": 0.5}},
                "filter.experiments.e.rules.t: 'text_lang' is VARCHAR, not a number",
            ),
            (
                {"missing_score": "width > 3"},
                "filter.experiments.e.rules.missing_score: 'missing_score' is a reason of its own; "
                "give the rule another name",
            ),
        ],
    )
    def test_rules_are_checked_before_any_work(
        self, tmp_path: Path, rules: dict[str, Any], message: str
    ) -> None:
        workspace = pool_of(tmp_path, some_rows(5))
        with pytest.raises(UserError) as caught:
            stage_of("e", {"rules": rules}).units(workspace)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
        assert not workspace.exists("selections")

    @pytest.mark.parametrize(
        "rule",
        [
            "CAST(text AS INTEGER) > 3",
            {"top": "CAST(text AS INTEGER)", "fraction": 0.5},
            {"dedup": "CAST(text AS INTEGER)"},
        ],
    )
    def test_an_expression_that_fails_on_a_row(self, tmp_path: Path, rule: Any) -> None:
        workspace = pool_of(tmp_path, [{"uid": uid_from(i), "text": "a cat"} for i in range(3)], 1)
        rules = {"fine": "width > 3", "number": rule}
        with pytest.raises(UserError) as caught:
            run_experiment(workspace, "e", {"rules": rules})
        assert str(caught.value).startswith(
            "filter.experiments.e.rules.number: fails on a row of shard 00000: Conversion Error: "
            "Could not convert string 'a cat' to INT32"
        )
        assert str(caught.value).endswith("TRY(…) and TRY_CAST(… AS …) give NULL instead")
        assert "\n" not in str(caught.value)

    def test_columns_that_differ_in_case_only(self, tmp_path: Path) -> None:
        types = {"WIDTH": pa.int32()}
        workspace = write_pool(tmp_path, [[{"uid": uid_from(1), "width": 1, "WIDTH": 2}]], types)
        with pytest.raises(UserError, match="columns 'WIDTH' and 'width' differ in case only"):
            stage_of("e", {"rules": {"w": "width > 3", "W": "WIDTH > 3"}}).units(workspace)
        assert len(list(stage_of("e", {"rules": {"w": "WIDTH > 3"}}).units(workspace))) == 1

    def test_a_family_that_is_not_there_yet(self, tmp_path: Path) -> None:
        workspace = Workspace(str(tmp_path))
        write_images(workspace, "00000", some_rows(3))
        with pytest.raises(UserError) as caught:
            stage_of("e", CLIP).units(workspace)
        assert str(caught.value).endswith("(not there yet: embed/b32, score/text)")
        assert len(list(stage_of("e", {"rules": {"w": "width > 3"}}).units(workspace))) == 1

    def test_the_second_models_similarity_does_not_stand_in_for_the_firsts(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(3), 1)
        experiment = Experiment.model_validate(CLIP)
        with pytest.raises(UserError, match="unknown column 'similarity'"):
            FilterStage("e", experiment, ("absent", MODEL), ()).units(workspace)

    def test_a_shard_without_the_scores(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(20))
        RecordStore(workspace).remove(f"embed/{MODEL}", "00001")
        message = (
            "filter/e needs embeddings/b32/metadata/metadata_00001.parquet, which embed/b32 has not made"
        )
        with pytest.raises(DataError, match=message):
            stage_of("e", CLIP).units(workspace)

    def test_an_experiment_that_was_not_run(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(20))
        message = "filter/e needs selections/other/counts.parquet, which filter/other has not made"
        with pytest.raises(DataError, match=re.escape(message)):
            stage_of("e", {"rules": {"o": {"experiment": "other"}}}).units(workspace)

    def test_scores_of_other_rows(self, tmp_path: Path) -> None:
        rows = some_rows(20)
        workspace = pool_of(tmp_path, rows, 1)
        write_similarities(workspace, "00000", sorted(rows, key=lambda r: r["uid"])[1:])
        with pytest.raises(DataError, match=r"its rows are not those of images/00000\.parquet"):
            run_experiment(workspace, "e", CLIP)

    def test_another_type_in_a_later_shard(self, tmp_path: Path) -> None:
        rows = some_rows(20)
        workspace = pool_of(tmp_path, rows, 2)
        part = [{**r, "text_score": "high"} for r in cut_in_shards(rows, 2)[1]]
        write_scores(workspace, "00001", part, SCORER, {"text_score": pa.string()})
        with pytest.raises(DataError, match="column 'text_score' is string, in the first shard it is double"):
            run_experiment(workspace, "e", {"rules": {"s": "text_score > 0.5"}})

    @pytest.mark.parametrize("numbers", [[2, 1], [1, 1]])
    def test_uids_out_of_order_in_a_shard(self, tmp_path: Path, numbers: list[int]) -> None:
        workspace = pool_of(tmp_path, some_rows(3), 1)
        rows = [{"uid": uid_from(n), "status": "success", "width": 1} for n in numbers]
        workspace.write_table(IMAGES.path("00000"), pa.Table.from_pylist(rows))
        with pytest.raises(DataError, match="uids are not in ascending order without repeats"):
            run_experiment(workspace, "e", {"rules": {"w": "width > 3"}})

    def test_shards_that_overlap(self, tmp_path: Path) -> None:
        low, high = [{"uid": uid_from(5)}], [{"uid": uid_from(3)}]
        workspace = write_pool(tmp_path, [low, high])
        with pytest.raises(DataError, match=r"begins with uid 0+3, which does not come after 0+5"):
            run_experiment(workspace, "e", {"rules": {"w": "width > 3"}})


class TestVerdict:
    def ask(self, workspace: Workspace, config: Any, uid: str) -> Any:
        return verdict(workspace, "e", Experiment.model_validate(config), (MODEL,), (SCORER,), uid)

    def test_values_and_notes(self, tmp_path: Path) -> None:
        rows = [
            {"uid": uid_from(i), "similarity": s, "sha256": k, "text_score": 0.5}
            for i, (s, k) in enumerate([(0.5, "x"), (0.25, "x"), (math.nan, "y"), (0.0, "z")])
        ]
        workspace = pool_of(tmp_path, rows, 2)
        run_experiment(workspace, "e", EVERYTHING)
        copy = self.ask(workspace, EVERYTHING, uid_from(1))
        assert (copy.kept, copy.reason, copy.keep) == (False, "top", "all(clip, top, unique)")
        assert [r.result for r in copy.rules] == ["pass", "fail", "fail"]
        assert [r.values for r in copy.rules] == [
            {"similarity": 0.25},
            {"similarity": 0.25},
            {"sha256": "x", "text_score": 0.5},
        ]
        assert copy.rules[1].note == f"cut at 0.5, uid {uid_from(0)}, quantile 0.6667"
        assert copy.rules[2].note == f"copy of {uid_from(0)}"
        missing = self.ask(workspace, EVERYTHING, uid_from(2))
        assert (missing.reason, missing.rules[0].result) == ("missing_score", "missing")
        assert missing.rules[0].values == {"similarity": None}
        assert self.ask(workspace, EVERYTHING, uid_from(0)).reason is None

    def test_what_cannot_be_asked(self, tmp_path: Path) -> None:
        rows = some_rows(20)
        workspace = pool_of(tmp_path, rows)
        uid = rows[0]["uid"]
        with pytest.raises(UserError, match=r"experiment 'e' has no selection in .* yet; run filter first"):
            self.ask(workspace, CLIP, uid)
        run_experiment(workspace, "e", CLIP)
        with pytest.raises(UserError, match="experiment 'e' has other rules now than when it was run"):
            self.ask(workspace, {"rules": {"clip": "similarity >= 0.5"}}, uid)
        with pytest.raises(UserError, match="'xyz' is not a uid: expected 32 lower-case hex digits"):
            self.ask(workspace, CLIP, "xyz")
        with pytest.raises(UserError, match="no sample of shard 00000 has this uid"):
            self.ask(workspace, CLIP, uid_from(7))

    def test_a_workspace_without_images_any_more(self, tmp_path: Path) -> None:
        rows = some_rows(20)
        workspace = pool_of(tmp_path, rows)
        run_experiment(workspace, "e", CLIP)
        RecordStore(workspace).drop("download", {f"0000{i}" for i in range(3)})
        with (
            pytest.raises(UserError, match="has no images"),
            open_judge(workspace, "e", Experiment.model_validate(CLIP), (MODEL,), (SCORER,)),
        ):
            raise AssertionError("opened")


def test_all_experiments_are_checked_before_any_is_run(tmp_path: Path) -> None:
    workspace = write_pool(tmp_path, cut_in_shards(some_rows(9), 2))
    stages = [
        stage_of("fine", {"rules": {"r": "width > 5"}}),
        stage_of("wrong", {"rules": {"r": "widht > 5"}}),
    ]
    with pytest.raises(UserError, match=r"experiments\.wrong\.rules\.r.*'widht'"):
        Engine(workspace, RunSettings(), Console(quiet=True)).run(stages)
    assert not workspace.exists("selections")


@pytest.mark.parametrize(
    ("rule", "kept"), [({"max": 1e39}, [0, 1]), ({"above": 3.5e38}, [2]), ({"min": -1e39}, [0, 1, 2])]
)
def test_bounds_beyond_the_columns_floats(tmp_path: Path, rule: dict[str, float], kept: list[int]) -> None:
    rows = [{"uid": uid_from(i), "text_score": v} for i, v in enumerate((0.0, 3e38, np.inf))]
    workspace = write_pool(tmp_path, [rows], {"text_score": pa.float32()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_experiment(workspace, "e", {"rules": {"r": {"score": "text_score", **rule}}})
    assert [int(uid, 16) for uid in kept_uids(workspace, "e")] == kept


@pytest.mark.parametrize("rule", [{"cap": "text_lang", "at_most": 1}, {"dedup": "text_lang"}])
@pytest.mark.parametrize(("which", "worst"), [("highest", -np.inf), ("lowest", np.inf)])
def test_any_value_is_better_than_none(
    tmp_path: Path, rule: dict[str, Any], which: str, worst: float
) -> None:
    values = [None, np.nan, worst, worst]
    rows = [{"uid": uid_from(i), "text_score": v, "text_lang": "x"} for i, v in enumerate(values)]
    types = {"text_score": pa.float64(), "text_lang": pa.string()}
    workspace = write_pool(tmp_path, [rows], types)
    run_experiment(workspace, "e", {"rules": {"r": {**rule, which: "text_score"}}})
    assert [int(uid, 16) for uid in kept_uids(workspace, "e")] == [2]
