"""Comparisons of columns with numbers, found in DuckDB's syntax tree of an expression."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from curate.rules.cuts import MIRRORED, NEGATED, Cut, Operator

Node = Mapping[str, Any]

_OPERATORS: Mapping[str, Operator] = {
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
}


def cuts_in(tree: Any, negated: bool = False) -> list[Cut]:
    """Every comparison of a bare column with a number in a tree, in its order, however they are combined.

    Of ``a >= 1``, ``1 <= a``, ``a BETWEEN 1 AND 2``; under ``NOT`` what it then says. Columns are named as
    they are written.
    """
    if isinstance(tree, list):
        return [cut for inner in tree for cut in cuts_in(inner, negated)]
    if not isinstance(tree, Mapping) or tree.get("class") == "LAMBDA":  # which names things of its own
        return []
    found = _comparisons(tree)
    if found:
        return [replace(cut, op=NEGATED[cut.op]) for cut in found] if negated else found
    turned = negated != (tree.get("type") == "OPERATOR_NOT")
    return [cut for inner in tree.values() for cut in cuts_in(inner, turned)]


def single_cut(tree: Node) -> Cut | None:
    """The comparison that a tree is, if it is one and nothing more."""
    found = _comparisons(tree)
    return found[0] if len(found) == 1 else None


def compared_names(tree: Any) -> Iterator[tuple[str, str]]:
    """Pairs of bare names that a tree compares for equality: ``a = b``, ``a IN (b, c)``; each both ways."""
    for node in nodes(tree):
        kind = str(node.get("type"))
        if kind in ("COMPARE_EQUAL", "COMPARE_NOTEQUAL"):
            sides = [node["left"], node["right"]]
        elif kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
            sides = node["children"]
        else:
            continue
        names = [_name(side) for side in sides]
        for other in names[1:]:
            if names[0] is not None and other is not None:
                yield from ((names[0], other), (other, names[0]))


def nodes(tree: Any) -> Iterator[Node]:
    """All expression nodes in a tree, outermost first."""
    if isinstance(tree, dict):
        if isinstance(tree.get("class"), str):
            yield tree
        for inner in tree.values():
            yield from nodes(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from nodes(inner)


def is_column(node: Node) -> bool:
    """Whether a node is a reference to a column."""
    return bool(node["class"] == "COLUMN_REF")


def _comparisons(node: Node) -> list[Cut]:
    """The comparisons that a node is: one, or two of a ``BETWEEN``."""
    if node.get("class") == "BETWEEN":
        column, low, high = _name(node["input"]), _number(node["lower"]), _number(node["upper"])
        if column is None or low is None or high is None:
            return []
        return [Cut(column, ">=", low), Cut(column, "<=", high)]
    op = _OPERATORS.get(str(node.get("type")))
    if op is None:
        return []
    for subject, other, sign in (("left", "right", op), ("right", "left", MIRRORED[op])):
        column, number = _name(node[subject]), _number(node[other])
        if column is not None and number is not None:
            return [Cut(column, sign, number)]
    return []


def _name(node: Node) -> str | None:
    names: list[str] = node["column_names"] if is_column(node) else []
    return names[0] if len(names) == 1 else None


def _number(node: Node) -> float | None:
    literal = node.get("literal") or {}
    return float(literal["text"]) if literal.get("kind") in ("INTEGER", "NUMERIC") else None
