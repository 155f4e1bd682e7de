from __future__ import annotations

from pathlib import Path

import pytest

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.filter.stage import FilterStage
from curate.report.account import LISTED, overlap_table, parts_table
from curate.rules.account.reading import Overlap, Part, Parts, overlap_of, parts_of, rules_of
from tests.unit.export.fake_workspace import EXPERIMENT, MODELS, SCORERS, make_workspace
from tests.unit.report.test_report_page import Page, page_of, run, stage


def test_a_funnel_that_does_not_tell_shows_nothing() -> None:
    assert overlap_of({}) is None
    assert parts_of({}) == []
    assert overlap_table(None) == {}
    assert overlap_table(Overlap(("alone",), ((3,),))) == {}
    assert overlap_table(Overlap(("a", "b"), ((0, 0), (0, 0)))) == {}


def test_overlap_is_of_what_the_rule_of_the_line_drops() -> None:
    table = overlap_table(Overlap(("a", "b", "c"), ((4, 1, 0), (1, 2, 0), (0, 0, 0))))
    assert table["rules"] == ("a", "b", "c")
    shares = {line["name"]: [c["share"] for c in line["cells"]] for line in table["lines"]}
    assert shares == {"a": [1, 0.25, 0], "b": [0.5, 1, 0], "c": [None, None, None]}
    assert [[c["own"] for c in line["cells"]].index(True) for line in table["lines"]] == [0, 1, 2]
    assert [c["n"] for c in table["lines"][0]["cells"]] == [4, 1, 0]


@pytest.mark.parametrize(("others", "name"), [(2, "5 others"), (None, "all others")])
def test_lines_of_values_add_up(others: int | None, name: str) -> None:
    values = tuple(Part(f"v{i}", 40 - i, 5, 5, {"clip": 35 - i}) for i in range(LISTED + 3))
    parts = Parts(
        "lang", values, Part("other", 3, 1, 1, {"size": 2}), others, Part("unknown", 9, 0, 0, {"size": 9})
    )
    table = parts_table(parts)
    lines = table["lines"]
    assert table["reasons"] == ["clip", "size"]
    assert not table["repeats"]
    assert [line["name"] for line in lines] == [*(f"v{i}" for i in range(LISTED)), name, "no value"]
    assert [line["value"] for line in lines] == [True] * LISTED + [False, False]
    assert sum(line["n"] for line in lines) == sum(v.rows for v in values) + 12
    assert sum(line["kept"] for line in lines) == sum(v.kept for v in values) + 1
    assert sum(line["cells"][1]["n"] for line in lines) == 11
    others_rows = 28 + 27 + 26 + 3
    assert lines[LISTED]["widths"] == pytest.approx(
        [100 * 16 / others_rows, 100 * (others_rows - 16) / others_rows]
    )
    assert all(sum(line["widths"]) == pytest.approx(100 * line["n"] / others_rows) for line in lines)
    assert lines[-1]["cells"][1] == {"n": 9, "share": 1}


def test_lines_without_rows_are_left_out() -> None:
    nothing = Part("", 0, 0, 0, {})
    table = parts_table(Parts("lang", (Part("en", 2, 2, 5, {}),), nothing, 0, nothing))
    assert [line["name"] for line in table["lines"]] == ["en"]
    assert table["repeats"]
    assert parts_table(Parts("lang", (), nothing, 0, nothing))["lines"] == []


def test_the_page_shows_what_the_filter_wrote(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", candidates=200)
    experiment = Experiment.model_validate(
        {
            "rules": {
                "clip": "similarity >= 0.26",
                "<b>": "txt_lang = 'en'",
                "small": {"score": "width", "max": 1},
            }
        }
    )
    run(ws, FilterStage(EXPERIMENT, experiment, MODELS, SCORERS, ("txt_lang", "source")))
    funnel = ws.read_json(layout.selection_file(EXPERIMENT, "funnel.json"))
    page = Page(page_of(ws, stage()))
    assert "What rules drop together" in page.text
    assert "By txt_lang, source" in page.text
    assert "Languages" not in page.text  # told above already
    clip, lang, _ = funnel["overlap"]["both_drop"]
    assert f"clip {clip[0]:,} dropped" in page.text
    assert (
        f"{100 * lang[0] / lang[1]:.1f}".rstrip("0").rstrip(".") + f" % {lang[0]:,} {lang[1]:,} dropped"
        in page.text
    )
    assert not page.all("b") or all("<b>" not in str(a) for a in page.all("b"))
    for value in funnel["by"]["txt_lang"]["values"][:3]:
        assert f"{value['value']} {value['rows_in']:,} {value['kept']:,} " in page.text
    quantiles = {r.name: r.quantile for r in rules_of(funnel)}
    assert f"quantile {quantiles['clip']:.4g}" in page.text
    assert quantiles["<b>"] is None
    assert "cut at 1, quantile" in page.text
