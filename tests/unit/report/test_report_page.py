from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from curate.config.filters import Experiment
from curate.config.loading import dump
from curate.config.models import PipelineConfig, ReportSettings, RunSettings
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.engine.plan import make_plan
from curate.engine.stage import Stage
from curate.errors import UserError
from curate.filter.stage import FilterStage
from curate.report.page import without_secrets
from curate.report.stage import ReportStage
from tests.unit.export.fake_workspace import (
    EXPERIMENT,
    HOSTILE_URL,
    MODELS,
    RULES,
    SCORERS,
    make_workspace,
)


def run(ws: Workspace, *stages: Stage) -> None:
    settings = RunSettings(cluster="synchronous", retries=0)
    Engine(ws, settings, Console(file=io.StringIO())).run(list(stages))


def stage(name: str = EXPERIMENT, models: Any = MODELS, scorers: Any = SCORERS, **kwargs: Any) -> ReportStage:
    return ReportStage(name, ReportSettings(**kwargs), models, scorers)


def page_of(ws: Workspace, what: ReportStage) -> str:
    run(ws, what)
    return ws.read_bytes(layout.report_page(what.experiment)).decode()


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._raw = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if not self._raw and data.strip():
            self.words.append(" ".join(data.split()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("report") / "ws", candidates=240)
    made.write_bytes(layout.CONFIG, dump(PipelineConfig(storage_options={"secret": "hunter2"})).encode())
    return made


@pytest.fixture(scope="module")
def html(ws: Workspace) -> str:
    return page_of(ws, stage(samples=200))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_numbers_are_those_of_the_records(ws: Workspace, page: Page) -> None:
    store = RecordStore(ws)
    for name in ("parse", "ingest", "download", f"embed/{MODELS[0]}", f"filter/{EXPERIMENT}"):
        records = list(store.iterate(name))
        rows_in, rows_out = sum(r.rows_in for r in records), sum(r.rows_out for r in records)
        assert f"{name} {rows_in:,} in, {rows_out:,}" in page.text
        drops: dict[str, int] = {}
        for record in records:
            for reason, n in record.drops.items():
                drops[reason] = drops.get(reason, 0) + n
        for reason, n in drops.items():
            assert re.search(rf"\b{reason} {n:,} \d", page.text), (name, reason, n)


def test_headline_and_rules(ws: Workspace, page: Page) -> None:
    funnel = ws.read_json(layout.selection_file(EXPERIMENT, "funnel.json"))
    assert f"{funnel['kept']:,} kept" in page.text
    assert f"{funnel['rows_in']:,} images" in page.text
    assert funnel["description"] in page.text
    for rule in funnel["rules"]:
        counts = ("passed", "failed", "missing", "dropped_alone", "dropped_in_sequence", "uniquely_dropped")
        numbers = " ".join(f"{rule[c]:,}" for c in counts)
        assert f"{rule['rule']} {rule['expression']} {numbers}" in page.text


def test_galleries_sort_samples_as_the_filter_did(ws: Workspace, page: Page) -> None:
    funnel = ws.read_json(layout.selection_file(EXPERIMENT, "funnel.json"))
    assert f"kept {funnel['kept']} of {funnel['kept']}" in page.text
    for reason, n in funnel["reasons"].items():
        assert f"dropped {reason} {min(n, 200)} of {n}" in page.text


def test_nothing_is_loaded_from_anywhere(html: str, page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "poster", "action", "background", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/webp;base64,"), (tag, name, value)
        assert tag not in ("link", "iframe", "object", "embed", "base", "use", "image")
    assert "@import" not in html
    assert "url(" not in html
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_links_leave_no_trace_and_go_to_the_web_only(page: Page) -> None:
    links = [a for a in page.all("a") if not (a["href"] or "").startswith("#")]
    assert len(links) > 20
    for link in links:
        assert re.match(r"https?://", link["href"] or "")
        assert "noreferrer" in (link["rel"] or "")
    assert not any("javascript:" in (v or "") for _, a in page.tags for k, v in a.items() if k == "href")
    assert "a picture with a javascript: URL" in page.text


def test_hostile_text_is_text(html: str, page: Page) -> None:
    assert "<script>document.title='owned'</script>" in page.text
    assert "&lt;script&gt;document.title" in html
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any(a.get("src") == "x" for a in page.all("img"))
    assert any(a.get("href") == HOSTILE_URL for a in page.all("a"))


def test_pictures_of_the_unsafe_rule_are_blurred(html: str) -> None:
    unsafe = re.findall(r'<article class="sample">(.*?)</article>', html, re.DOTALL)
    tagged = [a for a in unsafe if "<dd>positive</dd>" in a]
    assert tagged
    assert all('class="picture unsafe"' in a and 'type="checkbox"' in a for a in tagged)
    assert any('class="picture unsafe"' not in a for a in unsafe)


def test_cuts_are_drawn(html: str) -> None:
    charts = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    similarity = next(c for c in charts if "<h3>similarity</h3>" in c)
    assert "≥ 0.26" in similarity
    assert "var(--kept)" in similarity
    assert "var(--dropped)" in similarity
    assert "#0" not in similarity


def test_secrets_are_not_shown(html: str) -> None:
    assert "hunter2" not in html
    assert "Settings in force" in html
    assert "(not shown)" in html
    assert without_secrets("a: {proxy: 'http://u:p@h'}") == "a:\n  proxy: (not shown)\n"
    assert without_secrets("a: [") == without_secrets("") == ""


def test_same_bytes_again_and_nothing_to_do_when_nothing_changed(ws: Workspace, html: str) -> None:
    what = stage(samples=200)
    assert make_plan(what, ws, RecordStore(ws)).jobs == []
    (unit,) = what.units(ws)
    what.run(ws, unit)
    assert ws.read_bytes(layout.report_page(EXPERIMENT)).decode() == html


def test_a_new_image_table_makes_it_stale(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    page_of(ws, stage())
    store = RecordStore(ws)
    record = store.read("download", "00001")
    assert record is not None
    refs = [msgspec.structs.replace(r, digest="f" * 32) for r in record.outputs]
    store.write(msgspec.structs.replace(record, outputs=refs))
    assert len(make_plan(stage(), ws, store).jobs) == 1


def test_empty_selection(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", empty=True)
    page = Page(page_of(ws, stage()))
    assert "Nothing was kept" in page.text
    assert "0 kept" in page.text


def test_without_models_scorers_and_config(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", models=(), scorers=())
    ws.remove(layout.CONFIG)
    page = Page(page_of(ws, stage(models=(), scorers=())))
    assert "Settings in force" not in page.text
    assert "Languages" not in page.text


def test_a_model_that_has_not_run_is_left_out(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    page = Page(page_of(ws, stage(models=(*MODELS, "large"), scorers=(*SCORERS, "aesthetic"))))
    assert "similarity" in page.text
    assert "large_similarity" not in page.text


def test_no_pictures(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    for name in ("00000", "00001", "00002"):
        ws.remove(layout.image_tar(name))
    page = Page(page_of(ws, stage(samples=3)))
    assert not page.all("img")
    assert "no picture" in page.text


def test_no_samples_asked_for(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    assert not Page(page_of(ws, stage(samples=0))).all("article")


def test_no_selection_is_a_clear_error(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws")
    with pytest.raises(UserError, match="run `curate filter` first"):
        list(stage("other").units(ws))


def test_rules_that_learn_by_the_real_filter(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", candidates=200)
    rules = {
        "best": {"top": "similarity", "fraction": 0.5},
        "one": {"dedup": ["txt_lang", "img_min_side"], "highest": "similarity"},
        "safe": {"where": "nsfw_score < 0.25"},
    }
    learned = Experiment.model_validate({"description": "a try", "rules": rules})
    mixed = Experiment.model_validate(
        {"rules": {"best": {"experiment": "top"}, **RULES}, "keep": {"any": ["best", {"not": "clip"}]}}
    )
    run(ws, FilterStage("top", learned, MODELS, SCORERS), FilterStage("mixed", mixed, MODELS, SCORERS))
    for name in ("top", "mixed"):
        page = Page(page_of(ws, stage(name, samples=500)))
        funnel = ws.read_json(layout.selection_file(name, "funnel.json"))
        assert f"{funnel['kept']:,} kept" in page.text
        for reason, n in funnel["reasons"].items():
            assert f"dropped {reason} {n} of {n}" in page.text
    text = Page(ws.read_bytes(layout.report_page("top")).decode()).text
    assert "the 50 % of all samples with the highest similarity" in text
    cut = next(
        r["threshold"] for r in ws.read_json("selections/top/funnel.json")["rules"] if r["rule"] == "best"
    )
    assert f"cut at {cut:.4g}, quantile 0." in text
    assert f"≥ {cut:.4g}" in text
    assert "nsfw_score < 0.25" in text
