from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from curate.config.filters import Experiment
from curate.config.loading import check
from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.workspace import ref_of
from tests.unit.filter.filter_pool import (
    as_table,
    commit,
    cut_in_shards,
    run_experiment,
    uid_from,
    write_images,
    write_pool,
    write_scores,
)

PAGE = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
EXAMPLES = [block for block in BLOCKS if "rules" in block]
SCORES = {
    "text_length": pa.int64(),
    "text_score": pa.float64(),
    "text_lang": pa.string(),
}
OTHERS = {
    "phash": {"phash_phash": pa.uint64()},
    "mix": {"mix_score": pa.float64()},
    "aesthetic": {"aesthetic_score": pa.float64()},
    "topic": {"topic_id": pa.int32(), "topic_similarity": pa.float32()},
}
LISTS = {
    "blocked-hosts.txt": "h1.org\n",
    "words.txt": "cat\n",
    "imagenet21k_wordnet_ids.txt": "n02121620\n",
    "metaclip.json": '["cat", "dog"]',
}


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the examples name."""
    folder = tmp_path / "lists"
    dictionary = folder / "wordnet" / "dict"
    dictionary.mkdir(parents=True)
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    np.save(folder / "clusters-of-imagenet.npy", np.arange(3))
    np.save(folder / "datacomp-1b.npy", np.zeros(2, "u8,u8"))
    for part in ("noun", "verb", "adj", "adv"):
        (dictionary / f"index.{part}").write_text("cat n 1 1 @ 1 1 02121620\n")
        (dictionary / f"{part}.exc").write_text("")
    monkeypatch.chdir(tmp_path)


def rows() -> list[dict[str, Any]]:
    return [
        {
            "uid": uid_from(i * 2**125 + i),
            "url": f"http://h{i % 2}.org/{i}.jpg",
            "text": f"a cat {i % 3}",
            "sha256": str(i),
            "width": 300 + 50 * i,
            "height": 400,
            "source": "ab"[i % 2],
            "similarity": i / 10,
            "text_length": 7,
            "text_lang": "en",
            "phash_phash": i,
            "mix_score": i / 5,
            "aesthetic_score": float(i),
            "topic_id": i % 3,
            "topic_similarity": 0.5,
        }
        for i in range(8)
    ]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_runs(number: int, tmp_path: Path, lists: None) -> None:
    parts = cut_in_shards(rows(), 2)
    workspace = write_pool(tmp_path / "pool", parts, SCORES)
    for i, part in enumerate(parts):
        shard = layout.shard_name(i, 2)
        write_images(workspace, shard, part)
        for scorer, types in {**OTHERS, "extra": {"source": pa.string()}}.items():
            write_scores(workspace, shard, part, scorer, types)
        path = layout.embedding("l14", "image", shard)
        with workspace.writing(path) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, np.eye(4, 8, dtype=np.float16)[[r["width"] % 4 for r in part]].reshape(-1, 8))
            ref = ref_of(temporary, path)
        types = {"uid": pa.string(), "similarity": pa.float32()}
        table = workspace.write_table(Family.embeddings("l14").path(shard), as_table(part, types))
        commit(workspace, "embed/l14", shard, [ref, table])
    outcome = run_experiment(workspace, "e", EXAMPLES[number], ("text", *OTHERS, "extra"))
    assert outcome.rows_in == 8


def test_the_pages_config_loads() -> None:
    config, *_ = (block for block in BLOCKS if "filter" in block)
    assert set(check(config).filter.experiments) == {"basic", "english"}


def test_every_kind_has_an_example_and_a_row() -> None:
    shown = {type(rule) for e in EXAMPLES for rule in Experiment.model_validate(e).rules.values()}
    config, *_ = (block for block in BLOCKS if "filter" in block)
    for experiment in check(config).filter.experiments.values():
        shown |= {type(rule) for rule in experiment.rules.values()}
    assert shown == set(RULES.all().values())
    for key in RULES.names():
        assert re.search(rf"^\|.*`{key}: ", PAGE, re.M), key
