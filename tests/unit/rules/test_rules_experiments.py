"""What cannot be an experiment, what ``then`` means, what is learned and what of that is transferable."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.config.filters import Experiment
from curate.config.loading import check
from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.selections import Selection
from curate.dataset.workspace import Workspace
from curate.errors import ConfigError, UserError
from curate.rules.account.explain import verdict
from curate.rules.algorithms.draws import exponentials, salt_of, uniforms, words_of
from curate.rules.contract import CompiledRule
from curate.rules.judging import Judge
from curate.rules.learning import learn
from curate.rules.program import compile_experiment
from curate.samples.committed import Committed
from curate.samples.database import open_database
from curate.samples.pool import Pool
from tests.unit.filter.filter_pool import (
    MODEL,
    SCORER,
    Row,
    cut_in_shards,
    run_experiment,
    stage_of,
    uid_from,
    write_pool,
)

TYPES = {
    "text_score": pa.float64(),
    "text_lang": pa.string(),
    "text_hash": pa.uint64(),
    "text_cluster": pa.int32(),
}


def some_rows(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    return [
        {
            "uid": uid_from(draw.getrandbits(128)),
            "similarity": draw.choice([None, *(i / 64 for i in range(40))]),
            "text_score": draw.gauss(0, 1),
            "text_lang": draw.choice(["en", "en", "de", "fr", None]),
            "text": draw.choice(["a cat", "dog", "x", ""]),
            "text_hash": draw.getrandbits(64),
            "text_cluster": draw.randrange(7),
        }
        for _ in range(count)
    ]


def pool_of(folder: Path, rows: list[Row], shards: int = 3) -> Workspace:
    return write_pool(folder, cut_in_shards(rows, shards), TYPES)


def selection(workspace: Workspace, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in workspace.read_table(layout.selection_file(name, "counts.parquet")).to_pylist():
        table = Selection(workspace, name).read(row["shard"])
        found |= dict(zip(table["uid"].to_pylist(), table["repeats"].to_pylist(), strict=True))
    return found


def funnel(workspace: Workspace, name: str = "e") -> Any:
    return workspace.read_json(layout.selection_file(name, "funnel.json"))


class TestConfig:
    def test_every_kind_has_a_meaning(self) -> None:
        for kind, settings in RULES.all().items():
            assert settings.kind == kind
            assert issubclass(settings.load_implementation(), CompiledRule)

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ("{top: s}", "give either `fraction` or `count`"),
            ("{top: s, fraction: 0.1, count: 3}", "give either `fraction` or `count`"),
            ("{top: s, fraction: 1.5}", "fraction.*less than or equal to 1, got 1.5"),
            ("{top: s, fraction: 0}", "greater than 0, got 0"),
            ("{top: s, count: 0}", "got 0"),
            ("{top: s, fraction: 0.5, by: g, of: pool}", "`of: pool` and `by` do not go together"),
            ("{score: s}", "a score needs a bound"),
            ("{score: s, min: 2, max: 1}", "`min` is greater than `max`"),
            ("{score: s, min_quantile: 0.9, max_quantile: 0.1}", "greater than `max_quantile`"),
            ("{score: s, min: .nan}", "min.*finite"),
            ("{dedup: k, highest: a, lowest: b}", "give `highest` or `lowest`, not both"),
            ("{near: h, distance: 20}", "distance.*got 20"),
            ("{in: lang}", "give either `values` or `file`"),
            ("{in: lang, values: []}", "values"),
            ("{in: lang, values: [en, no]}", "truth values in YAML: put them in quotes"),
            ("{not_in: lang, values: [en], fil: x}", "unknown key .*fil'; did you mean 'file'"),
            ("{frequency: text}", "give `at_most`, `at_least` or both"),
            ("{frequency: text, at_most: 1, at_least: 2}", "nothing could pass"),
            ("{cap: c}", "missing key .*at_most"),
            ("{sample: uniform}", "give either `fraction` or `count`"),
            ("{soft_cap: s, alpha: -1}", "alpha.*got -1"),
            ("{every: s}", "a rule needs one of the keys: where, top, dedup, experiment, score, in, not_in"),
        ],
    )
    def test_rules_that_cannot_be(self, rule: str, message: str) -> None:
        import yaml

        config = {"filter": {"experiments": {"a": {"rules": {"x": yaml.safe_load(rule)}}}}}
        with pytest.raises(ConfigError, match=rf"(?s)filter\.experiments\.a\.rules\.x.*{message}|{message}"):
            check(config)

    @pytest.mark.parametrize(
        "keep", [{"then": "a"}, {"then": []}, {"than": ["a"]}, {"then": ["a"], "all": ["a"]}, 3]
    )
    def test_combinations_that_cannot_be(self, keep: Any) -> None:
        with pytest.raises(ConfigError, match="keep"):
            check({"filter": {"experiments": {"e": {"rules": {"a": "x > 1"}, "keep": keep}}}})


class TestCompile:
    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            (
                {"score": "similarty", "min": 0},
                "rules.r: unknown column 'similarty'; did you mean",
            ),
            ({"score": "text_lang", "min": 0}, "rules.r: 'text_lang' is VARCHAR, not a number"),
            ({"score": "similarity +", "min": 0}, "rules.r: cannot parse"),
            (
                {"where": "text_lang == en"},
                "rules.r: unknown column 'en'; a text wants single quotes: text_lang = 'en'$",
            ),
            ({"where": 'width > 3 AND "de" <> Text_Lang'}, "single quotes: text_lang = 'de'$"),
            ({"where": "text_lang NOT IN ('fr', nl)"}, "single quotes: text_lang = 'nl'$"),
            ({"where": "text_lang IN (fr, nl)"}, "single quotes: text_lang = 'fr'$"),
            ({"where": "text_lang = text_lng"}, "unknown column 'text_lng'; did you mean text_lang"),
            ({"top": "similarity", "count": 3, "by": "lng"}, "rules.r.by: unknown column 'lng'"),
            ({"top": "similarity", "count": 3, "by": "'x'"}, "rules.r.by: .* reads no column"),
            ({"near": "text_lang", "distance": 3}, "'text_lang' is VARCHAR, not a 64-bit hash"),
            ({"near": "text_hash", "distance": 3, "lowest": "text"}, "rules.r.lowest: 'text' is VARCHAR"),
            ({"balance": "text_score", "entries": "x"}, "no such file"),
            ({"soft_cap": "count(*)"}, "rules.r: .*"),
            ({"cap": "cluster", "at_most": 3}, "did you mean text_cluster"),
            (
                {"semdedup": MODEL, "cluster": "text_lang", "epsilon": 0.1},
                "rules.r.cluster: 'text_lang'",
            ),
        ],
    )
    def test_errors_name_the_rule(self, tmp_path: Path, rule: dict[str, Any], message: str) -> None:
        workspace = pool_of(tmp_path, some_rows(5))
        with pytest.raises(UserError, match=message):
            stage_of("e", {"rules": {"r": rule}}).units(workspace)

    def test_a_rule_that_learns_has_one_place(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(5))
        rules = {"w": "similarity > 0.1", "t": {"top": "similarity", "count": 2}}
        keep = {"any": ["t", {"then": ["w", "t"]}]}
        with pytest.raises(UserError, match=r"experiments\.e\.keep: 't' looks at the rows that reach it"):
            stage_of("e", {"rules": rules, "keep": keep}).units(workspace)
        twice = {"any": [{"then": ["w", "t"]}, {"all": [{"then": ["w", {"not": "t"}]}, "w"]}]}
        assert list(stage_of("e", {"rules": rules, "keep": twice}).units(workspace))

    def test_another_rules_failing_cast_is_not_blamed(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(50))
        rules = {"a": "similarity > 0", "b": {"top": "CAST(text AS DOUBLE)", "fraction": 0.5}}
        with pytest.raises(UserError, match=r"rules\.b: fails on a row of shards .*TRY_CAST"):
            run_experiment(workspace, "e", {"rules": rules, "keep": {"then": ["a", "b"]}})


class TestThen:
    def test_fractions_are_of_what_is_left_or_of_the_pool(self, tmp_path: Path) -> None:
        rows = some_rows(200)
        workspace = pool_of(tmp_path, rows)
        rules = {
            "english": "text_lang = 'en'",
            "half": {"top": "text_score", "fraction": 0.5},
            "tenth": {"top": "similarity", "fraction": 0.1, "of": "pool"},
        }
        run_experiment(workspace, "e", {"rules": rules, "keep": {"then": ["english", "half", "tenth"]}})
        english = [r for r in rows if r["text_lang"] == "en"]
        half = sorted(english, key=lambda r: (-r["text_score"], r["uid"]))[: len(english) // 2]
        valued = [r for r in half if r["similarity"] is not None]
        best = sorted(valued, key=lambda r: (-r["similarity"], r["uid"]))[:20]
        assert set(selection(workspace, "e")) == {r["uid"] for r in best}
        facts = {r["rule"]: r for r in funnel(workspace)["rules"]}
        assert facts["half"]["rows_in"] == len(english)
        assert facts["half"]["passed"] == len(english) // 2
        assert facts["tenth"]["rows_in"] == len(half)
        assert [s["left"] for s in funnel(workspace)["sequence"]] == [len(english), len(half), 20]

    def test_as_many_passes_as_rules_wait_for_each_other(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(20))
        config = Experiment.model_validate(
            {
                "rules": {
                    "w": "similarity > 0.1",
                    "a": {"top": "similarity", "fraction": 0.9},
                    "b": {"dedup": "text"},
                    "c": {"sample": "uniform", "count": 5},
                    "d": {"score": "text_score", "min_quantile": 0.5},
                },
                "keep": {"all": [{"then": ["w", "a", "b"]}, {"then": ["d", "c"]}]},
            }
        )
        columns = Committed(workspace).columns("00000", (MODEL,), (SCORER,))
        with open_database(tmp_path) as connection:
            program = compile_experiment("e", config, columns, connection)
        assert [[r.name for r in rules] for rules in program.passes()] == [["a", "d"], ["b", "c"]]

    def test_rules_that_hold_the_rows_in_memory_learn_by_themselves(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(20))
        rules = {
            "near": {"near": "text_hash", "distance": 1},
            "top": {"top": "similarity", "fraction": 0.5},
            "soft": {"soft_cap": "text_score", "count": 5, "batch": 2},
            "hard": {"hard_cap": "text_score", "count": 5},
            "unique": {"dedup": "text"},
        }
        columns = Committed(workspace).columns("00000", (MODEL,), (SCORER,))
        with open_database(tmp_path) as connection:
            config = Experiment.model_validate(
                {"rules": rules, "keep": {"then": ["top", {"any": [*rules][2:]}, "near"]}}
            )
            program = compile_experiment("e", config, columns, connection)
        passes = [[r.name for r in rules] for rules in program.passes()]
        assert passes == [["top"], ["soft", "unique"], ["hard"], ["near"]]

    def test_explain_says_that_a_row_did_not_get_there(self, tmp_path: Path) -> None:
        rows = some_rows(60)
        workspace = pool_of(tmp_path, rows)
        experiment = {
            "rules": {"w": "text_lang = 'en'", "s": {"soft_cap": "text_score", "count": 50, "batch": 5}},
            "keep": {"then": ["w", "s"]},
        }
        run_experiment(workspace, "e", experiment)
        kept = selection(workspace, "e")
        settings = Experiment.model_validate(experiment)
        for row in rows[:20]:
            said = verdict(workspace, "e", settings, (MODEL,), (SCORER,), row["uid"])
            (_, drawn) = said.rules
            if row["text_lang"] != "en":
                assert (said.kept, drawn.result) == (False, "missing")
            elif row["uid"] in kept:
                times = kept[row["uid"]]
                assert drawn.note == ("drawn once" if times == 1 else f"drawn {times} times")
            else:
                assert (said.reason, drawn.note) == ("s", "drawn 0 times")


class TestRepeats:
    def test_they_flow_into_counts_subset_and_other_experiments(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(100))
        soft = {"rules": {"draw": {"soft_cap": "text_score", "count": 300, "batch": 10}}}
        outcome = run_experiment(workspace, "soft", soft)
        drawn = selection(workspace, "soft")
        assert sum(drawn.values()) == 300 == outcome.stats["total"]
        assert len(np.load(tmp_path / layout.selection_file("soft", "subset.npy"))) == 300
        run_experiment(workspace, "en", {"rules": {"s": {"experiment": "soft"}, "l": "text_lang = 'en'"}})
        english = selection(workspace, "en")
        assert english == {u: n for u, n in drawn.items() if u in english}
        assert 0 < len(english) < len(drawn)

    def test_too_many_are_refused(self, tmp_path: Path) -> None:
        many = pool_of(tmp_path / "many", some_rows(3), 1)
        rule = {"soft_cap": "text_score", "count": 3_000_001, "batch": 3}
        with pytest.raises(UserError, match=r"rules\.a\.count: 3,000,001 draws of 3 rows are too many"):
            run_experiment(many, "e", {"rules": {"a": rule}})
        workspace = pool_of(tmp_path, [{"uid": uid_from(1), "text_score": 0.0}], 1)
        rules = {name: {"soft_cap": "text_score", "count": 50_000, "alpha": 0} for name in "ab"}
        with pytest.raises(UserError, match="repeat a row too often"):
            run_experiment(workspace, "e", {"rules": rules})


PORTABLE: list[dict[str, Any]] = [
    {"score": "text_score", "min_quantile": 0.3, "max_quantile": 0.8},
    {"top": "similarity", "fraction": 0.3},
    {"top": "similarity", "fraction": 0.3, "by": "text_lang"},
    {"frequency": "text_lang", "at_most": 60},
    {"cap": "text_cluster", "at_most": 5, "highest": "text_score"},
    {"sample": "uniform", "fraction": 0.4},
]


@pytest.mark.parametrize("rule", PORTABLE)
def test_what_is_learned_of_one_pool_judges_rows_of_another(tmp_path: Path, rule: dict[str, Any]) -> None:
    """Half the pool, judged by what the whole taught, has the verdicts that it has in the whole."""
    rows = some_rows(200)
    whole, half = pool_of(tmp_path / "a", rows), pool_of(tmp_path / "b", rows[:100])
    config = Experiment.model_validate({"rules": {"r": rule}})
    with open_database(tmp_path) as connection:
        found = {}
        for workspace in (whole, half):
            committed = Committed(workspace)
            columns = committed.columns("00000", (MODEL,), (SCORER,))
            program = compile_experiment("e", config, columns, connection)
            assert program.rules[0].settings.transferable
            pool = Pool(workspace, tuple(committed.shards()), columns)
            if workspace is whole:
                learned, files = learn(program, pool, connection, tmp_path)
            for ref in files if workspace is half else ():
                half.write_bytes(ref.path, whole.read_bytes(ref.path))
            with Judge(program, pool, learned, connection) as judge:
                for judged in judge.all_shards():
                    passed = judged.verdicts["r"].passed.tolist()
                    for uid, verdict_ in zip(judged.samples["uid"].to_pylist(), passed, strict=True):
                        found[uid, workspace is whole] = verdict_
    assert {u: v for (u, w), v in found.items() if not w} == {
        r["uid"]: found[r["uid"], True] for r in rows[:100]
    }
    assert 0 < sum(v for (_, w), v in found.items() if w) < 200


class TestDraws:
    def test_numbers_look_random_and_belong_to_a_uid(self) -> None:
        uids = pa.array([uid_from(i) for i in range(50_000)])
        words = words_of(uids, salt_of("r", 0))
        for numbers in (uniforms(words), uniforms(words, 1), uniforms(words_of(uids, salt_of("q", 0)))):
            assert 0 < numbers.min() < numbers.max() < 1
            counts = np.bincount((numbers * 100).astype(int), minlength=100)
            assert ((counts - 500) ** 2 / 500).sum() < 160
        first, second = uniforms(words), uniforms(words, 1)
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
        assert abs(np.corrcoef(first, uniforms(words_of(uids, salt_of("r", 1))))[0, 1]) < 0.02
        assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.02
        assert abs(exponentials(words).mean() - 1) < 0.02
        assert uniforms(words_of(uids[7:9], salt_of("r", 0))).tolist() == first[7:9].tolist()

    def test_weights_decide_how_often_a_row_is_drawn(self, tmp_path: Path) -> None:
        rows: list[Row] = [
            {"uid": uid_from(i << 100), "text_score": float(1 + 3 * (i % 2))} for i in range(2000)
        ]
        workspace = pool_of(tmp_path, rows, 2)
        run_experiment(workspace, "e", {"rules": {"r": {"sample": "text_score", "count": 100}}})
        heavy = sum((int(uid, 16) >> 100) % 2 for uid in selection(workspace, "e"))
        assert 68 <= heavy <= 92  # of 100, about 80

    def test_a_larger_fraction_holds_the_smaller(self, tmp_path: Path) -> None:
        workspace = pool_of(tmp_path, some_rows(100))
        for name, fraction in (("small", 0.2), ("large", 0.5)):
            run_experiment(workspace, name, {"rules": {"r": {"sample": "uniform", "fraction": fraction}}})
        small, large = selection(workspace, "small"), selection(workspace, "large")
        assert (len(small), len(large)) == (20, 50)
        assert set(small) < set(large)


def test_a_bound_has_the_precision_of_its_column(tmp_path: Path) -> None:
    rows: list[Row] = [{"uid": uid_from(i), "similarity": v} for i, v in enumerate([0.35, 0.28, 0.3499])]
    workspace = pool_of(tmp_path, rows, 1)
    for bound in (0.35, 0.28):
        run_experiment(workspace, "sql", {"rules": {"r": f"similarity >= {bound}"}})
        run_experiment(workspace, "data", {"rules": {"r": {"score": "similarity", "min": bound}}})
        assert selection(workspace, "sql") == selection(workspace, "data")
    assert len(selection(workspace, "sql")) == 3
