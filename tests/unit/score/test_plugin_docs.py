"""The scorer of docs/plugins.md: a plug-in file has what built-in kinds have."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.config.keys import describe
from curate.config.loading import load_config
from curate.config.models import PipelineConfig
from curate.config.scorers.base import SCORERS
from curate.config.tables import TableSettings
from curate.dataset.family import Family
from curate.dataset.workspace import Workspace
from curate.errors import ConfigError, UserError
from curate.samples.sources import Tables, TableSamples
from curate.score.sheet.stage import sheet_stages
from curate.score.stage import ScoreStage, score_stages
from curate.testing.pool import make_pool, run_stage

DOCS = Path(__file__).resolve().parents[3] / "docs" / "plugins.md"
SECTION = re.split(r"^## ", DOCS.read_text("utf-8"), flags=re.M)
(TEXT,) = (text for text in SECTION if text.startswith("A scorer"))
PLUGIN, SUITE = re.findall(r"```python\n(.*?)```", TEXT, re.S)
(YAML,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)


@pytest.fixture(autouse=True)
def _forget_kinds() -> Iterator[None]:
    added = dict(SCORERS._added)
    yield
    SCORERS._added = added


def configured(folder: Path, plugin: str = PLUGIN, **score: Any) -> PipelineConfig:
    """The config of the docs beside its plug-in file."""
    (folder / "capitals.py").write_text(plugin)
    config = yaml.safe_load(YAML)
    del config["filter"]
    config["score"]["scorers"]["capitals"] |= score
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return load_config(str(folder / "c.yaml"))


def expected(texts: list[str | None]) -> list[float | None]:
    return [sum(c.isupper() for c in text) / len(text) if text else None for text in texts]


def test_it_scores_and_has_a_sheet(tmp_path: Path) -> None:
    config = configured(tmp_path)
    pool, workspace = make_pool(), Workspace(str(tmp_path / "work"))
    pool.write(workspace)
    stages = score_stages(config.score, config.embed)
    assert [run_stage(workspace, stage) for stage in stages] == [3]
    tables = [workspace.read_table(Family.scores("capitals").path(shard)) for shard in pool.cut(3)]
    table = pa.concat_tables(tables)
    assert table.schema == pa.schema(
        {"uid": pa.string(), "capitals_share": pa.float32(), "capitals_shouts": pa.bool_()}
    )
    shares = expected(pool.samples["text"].to_pylist())
    assert table["capitals_share"].to_pylist() == pytest.approx(shares)
    assert max(share for share in shares if share is not None) > 0.1
    (sheet,) = sheet_stages(stages, config.score)
    run_stage(workspace, sheet)
    page = workspace.read_bytes("sheets/capitals.html").decode()
    assert "capitals_share" in page
    assert "<b>capitals</b>" in page


def test_another_file_is_another_setting(tmp_path: Path) -> None:
    pool, workspace = make_pool(), Workspace(str(tmp_path / "work"))
    pool.write(workspace)

    def todo(plugin: str, **score: Any) -> int:
        config = configured(tmp_path, plugin, **score)
        return sum(run_stage(workspace, stage) for stage in score_stages(config.score, config.embed))

    assert todo(PLUGIN) == 3
    assert todo(PLUGIN) == 0
    assert todo(PLUGIN, shouts_from=0.75) == 3
    assert todo(PLUGIN.replace(r"\p{Lu}", "[A-Z]"), shouts_from=0.75) == 3


def test_its_keys_are_documented_and_checked(tmp_path: Path) -> None:
    configured(tmp_path)
    lines = [line for line in describe("score") if "capitals" in line or "shouts_from" in line]
    assert lines[0].startswith("score.scorers.<name> (capitals):  # Capital letters in the alt text")
    assert lines[-1].endswith("shouts_from: float = 0.5  # Share from which on `_shouts` is true.")
    with pytest.raises(ConfigError, match=r"c\.yaml:\d: .*capitals.shout': did you mean|shouts_from"):
        configured(tmp_path, shout=1)
    with pytest.raises(ConfigError, match=r"c\.yaml:\d: score\.scorers\.capitals\.shouts_from: .*got 7"):
        configured(tmp_path, shouts_from=7)


def test_published_tables_have_its_columns(tmp_path: Path) -> None:
    config = configured(tmp_path)
    texts = ["HELLO world", None, "", "quiet"]
    published = tmp_path / "published"
    published.mkdir()
    for kind in (pa.string(), pa.large_string()):
        table = pa.table({"uid": [f"{i:032x}" for i in range(4)], "text": pa.array(texts, kind)})
        pq.write_table(table, published / "a.parquet")
        tables = Tables(TableSettings(paths=(str(published),)), config.score.scorers)
        samples = TableSamples(Workspace(str(tmp_path / str(kind))), tables)
        assert {"capitals_share", "capitals_shouts"} <= set(samples.columns())
        (batch,) = samples.pool().scan(["capitals_share"])
        assert batch.table["capitals_share"].to_pylist() == pytest.approx(expected(texts))
        facts = tables.facts()["scorers"]["capitals"]
        assert facts["shouts_from"] == 0.5
        assert len(facts["plug-in"]) == 32


def test_what_it_makes_is_what_it_declares(tmp_path: Path) -> None:
    pool, workspace = make_pool(), Workspace(str(tmp_path / "work"))
    pool.write(workspace)
    config = configured(tmp_path, PLUGIN.replace('"share": pa.float32()', '"share": pa.float64()'))
    (stage,) = score_stages(config.score, config.embed)
    words = r"score\.scorers\.capitals: makes share: float, .*, but declares share: double"
    with pytest.raises(UserError, match=words):
        run_stage(workspace, stage)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((":Capitals", ":Nothing"), r"'capitals': cannot load '.*:Nothing'"),
        (('"{__name__}:Capitals"', '"no_such_package:Capitals"'), r"'capitals': cannot load 'no_such"),
        ((":Capitals", ":CapitalsSettings"), r"is no ColumnScorer and no PixelScorer"),
        (("def compute", "def computes"), r"'capitals': .*:Capitals has no compute"),
    ],
)
def test_a_meaning_that_is_none(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    config = configured(tmp_path, PLUGIN.replace(*change))
    with pytest.raises(ConfigError, match=words):
        ScoreStage("capitals", config.score.scorers["capitals"], config.embed)


def test_it_holds_the_contract(tmp_path: Path) -> None:
    configured(tmp_path)
    module = ModuleType("test_capitals")
    exec(compile(SUITE, "test_capitals.py", "exec"), module.__dict__)
    file = tmp_path / "test_capitals.py"
    file.write_text(SUITE)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(file)], plugins=[])
    assert code == 0


def test_a_minimal_scorer_is_small() -> None:
    code = [line for line in PLUGIN.splitlines() if line.strip()]
    assert len(code) <= 30
    assert sys.getsizeof(PLUGIN) < 2_000
