from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from curate.config.models import PipelineConfig
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.diff import diff
from curate.inspect.diff_text import print_diff
from tests.unit.filter.filter_pool import cut_in_shards, run_experiment, uid_from, write_pool

A = {"rules": {"en": "text_lang = 'en'"}}
B = {"rules": {"high": "similarity >= 0.5"}}
NONE = {"rules": {"none": "similarity > 9"}}


def rows() -> list[dict[str, Any]]:
    found = []
    for i in range(120):
        row = {
            "uid": uid_from(i * 2**120 // 120 * 200 + i),
            "text": f"[red]caption {i}",
            "url": f"http://h/{i}",
        }
        row["similarity"] = None if i % 11 == 0 else (i * 37 % 100) / 100
        row["text_score"] = float("nan") if i % 7 == 0 else i / 10
        row["text_lang"] = [None, "en", "de", "en"][i % 4]
        found.append(row)
    return found


def config(experiments: dict[str, Any]) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "embed": {"models": {"b32": {"model": "demo"}}},
            "score": {"scorers": {"text": {"type": "text"}}},
            "filter": {"experiments": experiments},
        }
    )


def made(folder: Path, shards: int) -> Workspace:
    workspace = write_pool(folder, cut_in_shards(rows(), shards))
    for name, experiment in (("a", A), ("b", B), ("none", NONE)):
        run_experiment(workspace, name, experiment)
    return workspace


def groups() -> dict[str, list[dict[str, Any]]]:
    """The same, row by row."""
    out: dict[str, list[dict[str, Any]]] = {"only_a": [], "only_b": [], "both": []}
    for row in rows():
        a, b = row["text_lang"] == "en", row["similarity"] is not None and row["similarity"] >= 0.5
        if a or b:
            out["both" if a and b else "only_a" if a else "only_b"].append(row)
    return out


@pytest.mark.parametrize("shards", [1, 5])
def test_counts_means_and_languages_are_those_of_the_rows(tmp_path: Path, shards: int) -> None:
    found = diff(made(tmp_path, shards), config({"a": A, "b": B}), "a", "b")
    expected = groups()
    assert found.pool == 120
    for name, members in expected.items():
        group = found.groups[name]
        assert group.samples == len(members) > 0
        for column in ("similarity", "text_score"):
            values = [r[column] for r in members if r[column] is not None and not np.isnan(r[column])]
            assert group.means[column] == pytest.approx(np.mean(values), rel=1e-6)
        languages = [r["text_lang"] or "unknown" for r in members]
        assert group.languages == {lang: languages.count(lang) for lang in set(languages)}
    both, either = len(expected["both"]), sum(map(len, expected.values()))
    assert found.jaccard == pytest.approx(both / either)
    assert (found.kept_a, found.kept_b) == (both + len(expected["only_a"]), both + len(expected["only_b"]))


def test_examples_do_not_depend_on_shards(tmp_path: Path) -> None:
    examples = []
    for shards in (1, 5):
        found = diff(made(tmp_path / str(shards), shards), config({"a": A, "b": B}), "a", "b", 3)
        examples.append([row["uid"] for row in found.groups["only_a"].examples])
    assert examples[0] == examples[1]
    assert len(set(examples[0])) == 3
    assert set(examples[0]) <= {row["uid"] for row in groups()["only_a"]}


def test_an_empty_selection_and_itself(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    settings = config({"a": A, "none": NONE})
    found = diff(workspace, settings, "a", "none")
    assert (found.kept_b, found.jaccard, found.groups["only_b"].means) == (0, 0.0, {})
    assert diff(workspace, settings, "none", "none").jaccard == 1.0
    same = diff(workspace, settings, "a", "a")
    assert (same.groups["only_a"].samples, same.jaccard) == (0, 1.0)


def test_what_a_person_sees(tmp_path: Path) -> None:
    stream = io.StringIO()
    found = diff(made(tmp_path, 2), config({"a": A, "b": B}), "a", "b")
    print_diff(Console(file=stream, width=100), found)
    said = stream.getvalue()
    assert f"a keeps {found.kept_a}, b keeps {found.kept_b} of 120 samples" in said
    assert "[red]caption" in said  # hostile captions are text
    assert "text_score" in said


def test_mistakes(tmp_path: Path) -> None:
    workspace = made(tmp_path, 1)
    with pytest.raises(UserError, match=r"no experiment named 'c' \(experiments: a, b\)"):
        diff(workspace, config({"a": A, "b": B}), "a", "c")
    with pytest.raises(UserError, match=r"'new' has no selection in .* run `curate filter` first"):
        diff(workspace, config({"a": A, "new": B}), "a", "new")
