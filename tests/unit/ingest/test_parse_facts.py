"""A setting that changes what is parsed must be part of what decides whether to parse again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.config.base import fingerprint, knob
from curate.config.models import IngestSettings, SourceSettings
from curate.dataset.workspace import Workspace
from curate.demo.wat import write_wats
from curate.demo.world import World, WorldConfig
from curate.ingest.parse import ACT_ELSEWHERE, ParseStage
from curate.ingest.sorting import drop_duplicates, sort_by_uid
from tests.unit.ingest.wat_files import img, page, wat

OTHER: dict[str, Any] = {
    "shard_size": 77,
    "text_repair": "laion",
    "min_text_length": 12,
    "max_text_length": 30,
    "max_url_length": 60,
    "blocked_extensions": (".jpg",),
    "blocked_url_substrings": ("/photos/",),
    "blocked_domains": ("example",),
    "languages": ("de",),
    "drop_opt_out": False,
    "inputs_per_unit": 2,
    "batch_rows": 7,
    "rows_in_memory": 1000,
}
"""A value of each setting that is not its default."""
OTHER_OF_SOURCE: dict[str, Any] = {
    "format": "csv",
    "prefix": "https://mirror.example/",
    "url_column": "address",
    "text_column": "title",
    "uid_column": "key",
    "extra_columns": ("WIDTH", "HEIGHT"),
    "swap_width_height": True,
    "storage_options": {"auto_mkdir": True},
}
CHANGES_ROWS = set(OTHER) - {"shard_size", "inputs_per_unit", "batch_rows", "rows_in_memory"}


@pytest.fixture(scope="module")
def wats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wats")
    write_wats(World(WorldConfig(images=400)), folder, files=3)
    mojibake = page([img("https://e.com/cafe.jpg", "un cafÃ© sur la table")])
    (folder / "z.warc.wat").write_bytes(wat(mojibake))
    return folder


def parse(folder: Path, settings: IngestSettings) -> tuple[list[dict[str, Any]], str]:
    """The candidates, and a fingerprint of what decides them."""
    space = Workspace(str(folder))
    stage = ParseStage(settings)
    units = list(stage.units(space))
    outputs = [ref for unit in units for ref in stage.run(space, unit).outputs]
    tables = [space.read_table(ref.path) for ref in outputs]
    table = drop_duplicates(sort_by_uid(pa.concat_tables(tables, promote_options="permissive")))[0]
    facts = fingerprint([stage.settings, sorted(fingerprint(unit.payload) for unit in units)])
    return table.to_pylist(), facts


@pytest.fixture(scope="module")
def plain(wats: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    return parse(tmp_path_factory.mktemp("plain"), IngestSettings(sources=(source(wats),)))


def source(wats: Path, **changed: Any) -> SourceSettings:
    return SourceSettings(paths=(str(wats),), **changed)


def test_every_setting_is_tried_here() -> None:
    assert set(OTHER) == set(IngestSettings.model_fields) - {"sources"}
    assert set(OTHER_OF_SOURCE) == set(SourceSettings.model_fields) - {"paths"}
    assert set(IngestSettings.model_fields) >= ACT_ELSEWHERE


@pytest.mark.parametrize("name", OTHER)
def test_what_changes_the_rows_is_a_fact(
    name: str, wats: Path, plain: tuple[list[dict[str, Any]], str], tmp_path: Path
) -> None:
    settings = IngestSettings(sources=(source(wats),), **{name: OTHER[name]})
    assert getattr(settings, name) != IngestSettings.model_fields[name].default
    rows, facts = parse(tmp_path, settings)
    assert (rows != plain[0]) == (name in CHANGES_ROWS), "the value here must make a difference where it can"
    if rows != plain[0]:
        assert facts != plain[1]
    else:
        assert ParseStage(settings).settings == ParseStage(IngestSettings(sources=(source(wats),))).settings


def test_what_changes_how_a_table_is_read_is_a_fact(tmp_path: Path) -> None:
    lines = [
        "key,address,url,text,title,WIDTH,HEIGHT",
        f"{'0' * 32},http://e.com/2.jpg,http://e.com/1.jpg,a text,a title,3,4",
    ]
    (tmp_path / "t.tsv").write_text("\n".join(line.replace(",", "\t") for line in lines), encoding="utf-8")
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    sizes = {"extra_columns": ("WIDTH", "HEIGHT")}
    seen: dict[str, Any] = {}
    for name, value in {"": None, **OTHER_OF_SOURCE}.items():
        changed = {"format": "tsv"} if name == "format" else {name: value} if name else {}
        if name == "swap_width_height":
            changed |= sizes
        file = "t.tsv" if name == "format" else "t.csv"
        one = SourceSettings(paths=(str(tmp_path / file),), **changed)
        rows, facts = parse(tmp_path / f"w-{name}", IngestSettings(sources=(one,)))
        seen[name] = ([{k: v for k, v in row.items() if k != "source"} for row in rows], facts)
    assert len(seen[""][0]) == 1
    same = {"", "prefix", "format", "storage_options"}
    for name, (rows, facts) in seen.items():
        assert (rows == seen[""][0]) == (name in same), name
        assert rows == seen[""][0] or facts != seen[""][1], name
    assert seen["storage_options"][1] == seen[""][1], "where a file lies is no fact, and may be secret"


def test_a_new_setting_is_a_fact_unless_it_says_otherwise() -> None:
    class Later(IngestSettings):
        new_rule: int = 3
        new_knob: int = knob(3, "Changes how fast.")

    settings = ParseStage(Later(sources=(SourceSettings(paths=("x",)),))).settings
    assert settings["new_rule"] == 3
    assert "new_knob" not in settings


def test_the_facts_are_those_that_workspaces_have() -> None:
    # Another set of keys would have every workspace parsed again.
    assert set(ParseStage(IngestSettings(sources=(SourceSettings(paths=("x",)),))).settings) == {
        "text_repair",
        "min_text_length",
        "max_text_length",
        "max_url_length",
        "blocked_extensions",
        "blocked_url_substrings",
        "blocked_domains",
        "languages",
        "drop_opt_out",
    }
