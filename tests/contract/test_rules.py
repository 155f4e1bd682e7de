"""The contract of a rule, held against every kind that is built in."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.uid import shard_of
from curate.dataset.workspace import Workspace, ref_of
from curate.testing.pools import commit
from curate.testing.rules import RuleContract, experiment, run_filter


class TestWhere(RuleContract):
    rule = "score >= 0.3 AND lang = 'en'"
    other = "score > 0.5"


class TestWhereOneComparison(RuleContract):
    rule = "small < 0.4"
    other = {"where": "small + 0 < 0.5"}


class TestScore(RuleContract):
    rule = {"score": "small", "min": 0.35, "below": 1}
    other = {"score": "small", "above": 0.35}


class TestScoreQuantiles(RuleContract):
    rule = {"score": "score * 2", "min_quantile": 0.3, "max_quantile": 0.8}
    other = {"score": "score * 2", "min_quantile": 0.5}


class TestScoreOneQuantile(RuleContract):
    rule = {"score": "score", "min": 0.1, "min_quantile": 0.6}
    other = {"score": "score", "max_quantile": 0.6}


class TestTop(RuleContract):
    rule = {"top": "score", "fraction": 0.3}
    other = {"top": "score", "count": 5}


class TestTopLowest(RuleContract):
    rule = {"top": "number", "count": 40, "lowest": True}
    other = {"top": "number", "count": 40}


class TestTopBy(RuleContract):
    rule = {"top": "score", "fraction": 0.3, "by": "lang"}
    other = {"top": "score", "count": 4, "by": "lang", "lowest": True}


class TestSample(RuleContract):
    rule = {"sample": "uniform", "fraction": 0.4}
    other = {"sample": "uniform", "fraction": 0.4, "seed": 1}


class TestSampleByWeight(RuleContract):
    rule = {"sample": "number", "count": 50}
    other = {"sample": "number", "count": 60}


class TestDedup(RuleContract):
    rule = {"dedup": ["text", "number"], "highest": "score"}
    other = {"dedup": "text"}
    null = "pass"


class TestNear(RuleContract):
    rule = {"near": "hash", "distance": 2, "lowest": "score"}
    other = {"near": "hash", "distance": 1}
    null = "pass"


class TestSemDedup(RuleContract):
    rule = {"semdedup": "m", "cluster": "cluster", "epsilon": 0.05, "highest": "score"}
    other = {"semdedup": "m", "cluster": "cluster", "epsilon": 0.5}
    null = "pass"
    models = ("m",)

    def prepare(self, workspace: Workspace, rows: pa.Table) -> None:
        shards = int(workspace.read_json(layout.DATASET)["shards"])
        uids = rows["uid"].to_pylist()
        for number in range(shards):
            mine = [uid for uid in uids if shard_of(uid, shards) == number]
            vectors = [np.random.default_rng(int(uid[:15], 16)).normal(size=3) for uid in mine]
            shard = layout.shard_name(number, shards)
            path = layout.embedding("m", "image", shard)
            with workspace.writing(path) as temporary:
                with temporary.open("wb") as stream:
                    np.save(stream, np.array(vectors, np.float16).reshape(-1, 3))
                refs = [ref_of(temporary, path)]
            table = pa.table({"uid": pa.array(mine, pa.string()), "similarity": np.zeros(len(mine))})
            refs.append(workspace.write_table(Family.embeddings("m").path(shard), table))
            commit(workspace, "embed/m", shard, refs)


class TestExperiment(RuleContract):
    rule = {"experiment": "drawn"}
    other = {"experiment": "few"}
    null = "fail"

    def prepare(self, workspace: Workspace, rows: pa.Table) -> None:
        run_filter(workspace, "drawn", experiment("uid > '3'"))
        run_filter(workspace, "few", experiment("uid > 'c'"))


class TestIn(RuleContract):
    rule = {"in": "lang", "values": ["en", "de"]}
    other = {"in": "lang", "values": ["de"]}


class TestInFile(RuleContract):
    rule = {"in": "number", "file": "list.txt"}
    other = {"in": "number", "values": [3]}

    def write_files(self, folder: Path) -> None:
        (folder / "list.txt").write_text("1\n2\n17\n")


class TestNotIn(RuleContract):
    rule = {"not_in": "split_part(url, '/', 3)", "values": ["host1.example"]}
    other = {"not_in": "split_part(url, '/', 3)", "values": ["host2.example"]}


class TestEntities(RuleContract):
    rule = {"entities": "words.txt"}
    other = {"entities": "words.txt", "column": "lang"}

    def write_files(self, folder: Path) -> None:
        (folder / "words.txt").write_text("cat\nen\n")


class TestFrequency(RuleContract):
    rule = {"frequency": "lang", "at_most": 80}
    other = {"frequency": "lang", "at_most": 30}


class TestFrequencyAtLeast(RuleContract):
    rule = {"frequency": "number", "at_least": 9, "at_most": 20}
    other = {"frequency": "number", "at_least": 12}


class TestCap(RuleContract):
    rule = {"cap": "lang", "at_most": 20, "highest": "score"}
    other = {"cap": "lang", "at_most": 20}


class TestEqual(RuleContract):
    rule = {"equal": "lang"}
    other = {"equal": "lang", "seed": 1}


class TestBalance(RuleContract):
    rule = {"balance": "text", "entries": "entries.json", "t": 20}
    other = {"balance": "text", "entries": "entries.json", "t": 60}

    def write_files(self, folder: Path) -> None:
        (folder / "entries.json").write_text('["cat", "dog", "never"]')


class TestSoftCap(RuleContract):
    rule = {"soft_cap": "score", "count": 200, "batch": 50}
    other = {"soft_cap": "score", "count": 200, "batch": 50, "seed": 1}


class TestHardCap(RuleContract):
    rule = {"hard_cap": "score", "count": 200, "at_most": 3}
    other = {"hard_cap": "score", "count": 100}


def test_every_kind_is_held_to_it() -> None:
    suites: list[Any] = [
        suite
        for _, suite in inspect.getmembers(sys.modules[__name__], inspect.isclass)
        if issubclass(suite, RuleContract) and suite is not RuleContract
    ]
    assert {type(suite().settings) for suite in suites} >= set(RULES.all().values())
