"""``index.json``: what an index is, how many lists which kind of query visits, and what it finds so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.index.build import RECALL_AT, Built
from curate.index.queries import KINDS, Queries, QueryKind

FORMAT = 2
EXACT = "exact"
"""In place of a source of queries: an index that compares with every vector misses nothing."""


def index_facts(
    factory: str, built: Built, queries: Mapping[QueryKind, Queries], target: float, size: int
) -> dict[str, Any]:
    """What ``index.json`` says of the index of one modality; plain JSON values.

    Args:
        factory: its factory string.
        built: the index.
        queries: that it was measured with; none when it is exact.
        target: recall that it should have.
        size: of its file, bytes.
    """
    rows = built.index.ntotal
    if queries:
        recall = {
            kind: _recall(found, target, len(queries[kind].vectors), queries[kind].source)
            for kind, found in built.recall.items()
        }
    else:
        recall = {kind: _recall(1.0, target, 0, EXACT) for kind in KINDS}
    return {
        "type": factory,
        "lists": built.lists,
        "nprobe": None if built.nprobe is None else dict(built.nprobe),
        "recall": recall,
        "bytes": size,
        "bytes_per_vector": round(size / rows, 1) if rows else None,
    }


def _recall(found: float, target: float, queries: int, source: str) -> dict[str, Any]:
    return {
        "at": RECALL_AT,
        "recall": round(found, 4),
        "target": target,
        "reached": found >= target,
        "queries": queries,
        "source": source,
    }


def read_about(workspace: Workspace, experiment: str, alias: str) -> dict[str, Any]:
    """The facts of an index that is there.

    Raises:
        UserError: it was built by another version.
    """
    path = layout.index_file(experiment, alias, "index.json")
    facts = workspace.read_json(path)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UserError(
            f"{workspace.url}/{path}: an index as an earlier version built it, whose recall was not measured "
            "with every kind of query; run `curate index` again"
        )
    return facts


def nprobe_of(facts: Mapping[str, Any], modality: str, kind: QueryKind | None) -> int | None:
    """Lists that a query visits, None in an index without; a query of no known kind as many as any."""
    nprobe = facts["indices"][modality]["nprobe"]
    if nprobe is None:
        return None
    return max(nprobe.values()) if kind is None else int(nprobe[kind])


def caveat(facts: Mapping[str, Any], modality: str, kind: QueryKind) -> str | None:
    """What whoever reads the answers to such a query should know of them."""
    about = facts["indices"][modality]
    lists = f"{about['nprobe'][kind]:,} of {about['lists']:,} lists are visited" if about["nprobe"] else ""
    found = about["recall"].get(kind)
    if found is None:
        said = f"what {kind} queries find in this index was not measured ({facts['not_measured'][kind]})"
    elif not found["reached"]:
        said = (
            f"{kind} queries find {found['recall']:.1%} of the true {found['at']} nearest in this index, "
            f"not {found['target']:.1%} (index.recall)"
        )
    else:
        return None
    return f"{said}; {lists}" if lists else said
