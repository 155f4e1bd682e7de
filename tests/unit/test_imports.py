"""The direction of imports: from stages to the folders they stand on, never from stage to stage."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "curate"
STAGES = {"ingest", "download", "embed", "score", "filter", "index", "export", "report"}
BASE = {
    "clip", "config", "dataset", "engine", "errors", "extras", "network", "pages", "plugins", "reasons",
    "rules", "samples", "terminal", "text", "verbs", "",
}  # fmt: skip
RULES = {
    **{stage: BASE | {stage} for stage in STAGES},
    "config": {"config", "errors", "plugins"},
    "dataset": {"dataset", "errors", "config", ""},
    "samples": {"samples", "config", "dataset", "text", "errors"},
    "engine": {
        "engine",
        "samples",
        "dataset",
        "config",
        "errors",
        "plugins",
        "reasons",
        "terminal",
        "verbs",
        "",
    },
    "clip": {"clip", "config", "errors", "dataset", "demo", "network"},
    "pages": {"pages", "dataset", "text", "errors"},
    "text": {"text", "errors"},
    "rules": {"rules", "samples", "config", "dataset", "text", "reasons", "errors", "plugins"},
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            if name == "curate" or name.startswith("curate."):
                found.add(([*name.split("."), ""])[1])
    return found


@pytest.mark.parametrize("folder", sorted(RULES))
def test_imports_go_one_way(folder: str) -> None:
    files = list((PACKAGE / folder).rglob("*.py"))
    assert files
    for path in files:
        assert imported(path) <= RULES[folder], path
