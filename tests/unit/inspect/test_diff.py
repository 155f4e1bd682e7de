from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from curate.config.filters import Experiment
from curate.config.models import PipelineConfig
from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.diff import GROUPS, diff
from curate.inspect.diff_sums import VALUES, Gathering, effect
from curate.inspect.diff_text import effect_text, print_diff
from curate.rules.account.explain import verdict
from curate.samples.moments import Moments
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


@pytest.mark.parametrize("shards", [1, 5])
def test_effects_are_those_of_the_rows_and_in_order(tmp_path: Path, shards: int) -> None:
    found = diff(made(tmp_path, shards), config({"a": A, "b": B}), "a", "b")
    assert found.compared == ("only_a", "only_b")
    for column in ("similarity", "text_score"):
        values = [
            np.array([r[column] for r in groups()[name] if r[column] is not None and r[column] == r[column]])
            for name in found.compared
        ]
        m, n = map(len, values)
        pooled = ((m - 1) * values[0].var(ddof=1) + (n - 1) * values[1].var(ddof=1)) / (m + n - 2)
        assert found.effects[column] == pytest.approx((values[0].mean() - values[1].mean()) / pooled**0.5)
    assert found.effects["similarity"] < -1  # b asks for it
    sizes = [abs(value) for value in found.effects.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_without_one_side_it_is_compared_with_both(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    run_experiment(workspace, "less", {"rules": {"high": "similarity >= 0.5", "en": "text_lang = 'en'"}})
    settings = config({"b": B, "less": A})
    assert diff(workspace, settings, "b", "less").compared == ("only_a", "both")
    found = diff(workspace, settings, "less", "b")
    assert found.compared == ("only_b", "both")
    assert set(found.groups["only_b"].reasons) == {"en", "missing_score"}
    assert found.groups["only_a"].examples == []


@pytest.mark.parametrize("shards", [1, 5])
def test_why_the_other_dropped_them(tmp_path: Path, shards: int) -> None:
    workspace = made(tmp_path, shards)
    found = diff(workspace, config({"a": A, "b": B}), "a", "b", 4)
    missing = sum(r["similarity"] is None for r in groups()["only_a"])
    group = found.groups["only_a"]
    assert missing
    assert group.reasons == {"missing_score": missing, "high": group.samples - missing}
    assert group.rules == [
        {
            "rule": "high",
            "expression": "similarity >= 0.5",
            "failed": group.samples - missing,
            "missing": missing,
            "uniquely_dropped": group.samples,
        }
    ]
    experiment = Experiment.model_validate(B)
    for example in group.examples:
        said = verdict(workspace, "b", experiment, ("b32",), ("text",), example.uid)
        assert example.shard == said.shard
        assert example.reason == said.reason is not None
        assert example.rules == [asdict(rule) for rule in said.rules]
    assert found.groups["both"].reasons == {}
    assert [e.reason for e in found.groups["both"].examples] == [None, None]


def test_rules_are_those_of_the_run(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    changed = {"rules": {"other": "similarity >= 0.9"}}
    found = diff(workspace, config({"a": A, "b": changed}), "a", "b")
    assert set(found.groups["only_a"].reasons) == {"missing_score", "high"}
    assert found.notes == []


def test_a_selection_made_elsewhere_has_no_reasons(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    workspace.write_json(layout.selection_file("b", "learned.json"), {})
    found = diff(workspace, config({"a": A, "b": B}), "a", "b")
    assert found.notes == ["no reasons of b: its selection was not made by `curate filter`"]
    assert found.groups["only_a"].reasons == {}
    assert found.groups["only_b"].reasons
    assert found.groups["only_a"].samples == len(groups()["only_a"])


@pytest.mark.parametrize("shards", [1, 5])
def test_examples_are_drawn_by_uid(tmp_path: Path, shards: int) -> None:
    found = diff(made(tmp_path, shards), config({"a": A, "b": B}), "a", "b", 6)
    for name, members in groups().items():
        drawn = sorted((row["uid"] for row in members), key=lambda uid: uid[::-1])
        examples = found.groups[name].examples
        assert [e.uid for e in examples] == drawn[: 3 if name == "both" else 6]
        by_uid = {row["uid"]: row for row in members}
        assert all(e.text == by_uid[e.uid]["text"] for e in examples)


def test_an_empty_selection_and_itself(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    settings = config({"a": A, "none": NONE})
    found = diff(workspace, settings, "a", "none")
    assert (found.kept_b, found.jaccard, found.groups["only_b"].means) == (0, 0.0, {})
    assert diff(workspace, settings, "none", "none").jaccard == 1.0
    same = diff(workspace, settings, "a", "a")
    assert (same.groups["only_a"].samples, same.jaccard) == (0, 1.0)
    assert (same.compared, same.effects) == (None, {})
    json.dumps(same.facts(), allow_nan=False)


def test_what_a_person_sees(tmp_path: Path) -> None:
    stream = io.StringIO()
    found = diff(made(tmp_path, 2), config({"a": A, "b": B}), "a", "b")
    print_diff(Console(file=stream, width=100), found)
    said = stream.getvalue()
    assert f"a keeps {found.kept_a}, b keeps {found.kept_b} of 120 samples" in said
    assert "[red]caption" in said  # hostile captions are text
    assert "text_score" in said
    assert "b dropped them: high" in said
    assert f"{found.effects['similarity']:+.2f}".replace("-", "−") in said


def printed(workspace: Workspace, settings: PipelineConfig, a: str, b: str, width: int = 100) -> str:
    stream = io.StringIO()
    print_diff(Console(file=stream, width=width), diff(workspace, settings, a, b))
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 40, 200])
def test_no_figure_is_cut_short(tmp_path: Path, width: int) -> None:
    name = "an_experiment_with_quite_a_name"
    workspace = made(tmp_path, 1)
    run_experiment(workspace, name, B)
    said = printed(workspace, config({"a": A, name: B}), "a", name, width)
    assert "…" not in said
    (row,) = (line for line in said.splitlines() if "similarity" in line and "│" in line)
    found = diff(workspace, config({"a": A, name: B}), "a", name)
    expected = [f"{found.groups[group].means['similarity']:.4g}" for group in GROUPS]
    assert [cell.strip() for cell in row.split("│")[2:5]] == expected


def test_what_is_the_same_is_said_to_be(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    run_experiment(workspace, "twin", {"rules": {"english": "text_lang = 'en'"}})
    settings = config({"a": A, "twin": A, "none": NONE})
    for other in ("a", "twin"):
        kept = diff(workspace, settings, "a", other).kept_a
        said = printed(workspace, settings, "a", other)
        assert f"a keeps {kept}, {other} keeps {kept} of 120 samples; they keep the same" in said
        assert "100.0%" not in said.split("\n")[0]
    assert printed(workspace, settings, "none", "none").startswith(
        "none keeps 0, none keeps 0 of 120 samples; of all that either keeps, both keep –\n"
    )
    assert "both keep 0.0%" in printed(workspace, settings, "a", "none")


def test_one_is_singular(tmp_path: Path) -> None:
    found = diff(made(tmp_path, 1), config({"a": A, "b": B}), "a", "b")
    many = {f"column_{i:02}": 1.0 - i / 100 for i in range(13)}
    for group in found.groups.values():
        group.means = dict.fromkeys(many, 1.0)
    stream = io.StringIO()
    print_diff(Console(file=stream, width=100), replace(found, effects=many, pool=1))
    assert "1 column that differs less" in stream.getvalue()
    assert "of 1 sample;" in stream.getvalue()


def test_examples_are_what_they_are(tmp_path: Path) -> None:
    found = diff(made(tmp_path, 1), config({"a": A, "b": B}), "a", "b")
    example = replace(found.groups["only_a"].examples[0], text=":dog: \x1b[2J[/]")
    found.groups["only_a"].examples[0] = example
    stream = io.StringIO()
    print_diff(Console(file=stream, width=100), found)
    assert ":dog: \N{REPLACEMENT CHARACTER}[2J[/]" in stream.getvalue()


def test_the_terminal_has_a_dozen_columns(tmp_path: Path) -> None:
    found = diff(made(tmp_path, 1), config({"a": A, "b": B}), "a", "b")
    many = {f"column_{i:02}": 1.0 - i / 100 for i in range(30)}
    for group in found.groups.values():
        group.means = dict.fromkeys(many, 1.0)
    stream = io.StringIO()
    print_diff(Console(file=stream, width=100), replace(found, effects=many))
    said = stream.getvalue()
    assert [name for name in many if name in said] == list(many)[:12]
    assert "18 columns that differ less" in said


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32) | st.just(float("nan")), max_size=9), max_size=6),
    st.floats(-1e9, 1e9),
)
def test_moments_in_parts_are_those_of_the_whole(parts: list[list[float]], shift: float) -> None:
    moments = Moments()
    for part in parts:
        moments.add(np.array(part, np.float64) + shift)
    values = np.array([v for part in parts for v in part if v == v]) + shift
    assert moments.count == len(values)
    if len(values):
        assert moments.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
        assert moments.squares == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-6, abs=1e-3)


def test_effects_at_the_edges() -> None:
    def of(*values: float) -> Moments:
        moments = Moments()
        moments.add(np.array(values))
        return moments

    assert effect(of(), of(1.0)) is None
    assert effect(of(1.0), of(float("inf"))) is None
    assert effect(of(2.0), of(2.0)) == 0
    assert effect(of(2.0), of(2.0, 2.0)) == 0
    assert effect(of(*[0.1] * 7), of(*[0.3] * 3)) == -math.inf
    assert effect(of(1.0, 2.0, 3.0), of(0.0, 1.0, 2.0)) == pytest.approx(1.0)
    assert [effect_text(v) for v in (None, 0.001, -0.5, math.inf)] == ["", "0", "−0.50", "+∞"]


def test_rare_languages_of_a_column_that_is_none_are_let_go() -> None:
    gathering = Gathering(0)
    for i in range(0, 9_000, 1_000):
        uids = [uid_from(j) for j in range(i, i + 1_000)]
        names = ["en" if j % 2 else f"word{j}" for j in range(i, i + 1_000)]
        gathering.add(pa.table({"uid": uids, "lang": names}), [], "lang")
    assert len(gathering.languages) <= VALUES
    assert gathering.languages["en"] == 4_500


def test_mistakes(tmp_path: Path) -> None:
    workspace = made(tmp_path, 1)
    with pytest.raises(UserError, match=r"no experiment named 'c' \(experiments: a, b, none\)"):
        diff(workspace, config({"a": A, "b": B}), "a", "c")
    with pytest.raises(UserError, match=r"'new' has no selection in .* run `curate filter` first"):
        diff(workspace, config({"a": A, "new": B}), "a", "new")


def test_a_selection_of_other_rows_is_refused(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    changed = [{**row, "text_lang": "en"} for row in rows()]
    write_pool(tmp_path, cut_in_shards(changed, 2))
    with pytest.raises(UserError, match="experiment 'a' was run on other samples or columns than are in"):
        diff(workspace, config({"a": A, "b": B}), "a", "b")


def test_selections_of_another_config_are_known(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    found = diff(workspace, config({"c": A}), "a", "b")
    assert (found.kept_a, found.kept_b) == tuple(
        sum(len(groups()[name]) for name in names) for names in (("only_a", "both"), ("only_b", "both"))
    )
    assert found.notes == []


def test_hashes_have_no_mean(tmp_path: Path) -> None:
    types = {
        "text_score": pa.float64(),
        "text_lang": pa.string(),
        "text_hash": pa.uint64(),
        "text_big": pa.int64(),
    }
    many = [{**row, "text_hash": 2**64 - 1, "text_big": 2**62 + 1} for row in rows()]
    workspace = write_pool(tmp_path, cut_in_shards(many, 2), types)
    for name, experiment in (("a", A), ("b", B)):
        run_experiment(workspace, name, experiment)
    means = diff(workspace, config({"a": A, "b": B}), "a", "b").groups["both"].means
    assert means["text_big"] == pytest.approx(2.0**62)
    assert "text_hash" not in means


def test_a_workspace_that_is_only_read(tmp_path: Path) -> None:
    workspace = made(tmp_path, 2)
    temporaries = tmp_path / ".curate" / "tmp"
    shutil.rmtree(temporaries)
    temporaries.write_text("nothing can be written here")
    assert diff(workspace, config({"a": A, "b": B}), "a", "b").notes == []
