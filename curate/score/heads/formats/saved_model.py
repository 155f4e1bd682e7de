"""The look-up tables of a SavedModel's graph.

AutoKeras's category encoding keeps its vocabulary in no variable: the strings are constants of the
graph, tied to a dimension of the input only through the nodes between. Those are followed here.

Format: ``saved_model.proto``, ``graph.proto``, ``node_def.proto``, ``function.proto``, ``tensor.proto``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from curate.score.heads.formats.protobuf import message, messages, number, numbers, text, texts
from curate.score.heads.formats.tf_checkpoint import DTYPES
from curate.score.heads.layers import Keys, Lookup, key_of_text

_INT64, _STRING = 9, 7
_MOST = 1 << 24


@dataclass(frozen=True)
class _Node:
    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, bytes]

    @property
    def calls(self) -> str:
        """Name of the function that it calls."""
        return text(message(self.attributes.get("f", b""), 10), 1)

    @property
    def tensor(self) -> bytes:
        """The value of a Const."""
        return message(self.attributes.get("value", b""), 8)


def read_lookups(saved_model: bytes) -> list[Lookup]:
    """The tables through which the served function sends dimensions of its input, by dimension.

    Raises:
        ValueError: a graph that is not built as AutoKeras builds it.
    """
    graph = message(message(saved_model, 2), 2)
    nodes = {node.name: node for node in (_node(raw) for raw in messages(graph, 1))}
    functions = {text(message(raw, 1), 1): raw for raw in messages(message(graph, 2), 1)}
    call = _served_call(message(saved_model, 2), nodes)
    name = call.calls
    body = functions.get(name, b"")
    while (inner := _forwards_to(body)) is not None:
        body = functions.get(inner, b"")
    if not body:
        raise ValueError("its served function is missing")
    arguments = [text(argument, 1) for argument in messages(message(body, 1), 2)]
    inside = {node.name: node for node in (_node(raw) for raw in messages(body, 3))}
    if len(arguments) != len(call.inputs):
        raise ValueError("its served function takes other arguments than it is given")
    given = dict(zip(arguments, call.inputs, strict=True))
    lookups = [
        _lookup(node, inside, nodes, given) for node in inside.values() if node.op == "LookupTableFindV2"
    ]
    return sorted(lookups, key=lambda lookup: lookup.dim)


def _node(raw: bytes) -> _Node:
    attributes = {text(pair, 1): message(pair, 2) for pair in messages(raw, 5)}
    return _Node(text(raw, 1), text(raw, 2), tuple(texts(raw, 3)), attributes)


def _served_call(meta: bytes, nodes: Mapping[str, _Node]) -> _Node:
    """The call behind the signature ``serving_default``."""
    for pair in messages(meta, 5):
        if text(pair, 1) == "serving_default":
            for output in messages(message(pair, 2), 2):
                node = nodes.get(text(message(output, 2), 1).partition(":")[0])
                if node is not None and node.op.endswith("PartitionedCall"):
                    return node
    raise ValueError("it has no signature `serving_default`")


def _forwards_to(body: bytes) -> str | None:
    """The function that a function hands all its arguments to, in their order; None when it works itself."""
    arguments = tuple(text(argument, 1) for argument in messages(message(body, 1), 2))
    calls = [node for node in map(_node, messages(body, 3)) if node.op.endswith("PartitionedCall")]
    plain = all(_node(raw).op.endswith(("PartitionedCall", "Identity", "NoOp")) for raw in messages(body, 3))
    if len(calls) == 1 and plain and calls[0].inputs[: len(arguments)] == arguments:
        return calls[0].calls
    return None


def _lookup(
    node: _Node, inside: Mapping[str, _Node], nodes: Mapping[str, _Node], given: Mapping[str, str]
) -> Lookup:
    """One LookupTableFindV2: table, key and default are its inputs."""
    table, key, default = node.inputs[:3]
    split = inside.get(key.partition(":")[0])
    dim = re.fullmatch(r".*split:output:(\d+)", split.inputs[0]) if split and split.inputs else None
    if split is None or split.op != "AsString" or dim is None or set(split.attributes) - _PLAIN_PRINT:
        raise ValueError("a look-up of something else than a dimension of the input")
    handle = given.get(table, "")
    fill = next(
        (n for n in nodes.values() if n.inputs[:1] == (handle,) and len(n.inputs) == 3 and "Call" in n.op),
        None,
    )
    constants = [nodes.get(name) for name in (*(fill.inputs[1:] if fill else ()), given.get(default, ""))]
    if len(constants) != 3 or any(c is None or c.op != "Const" for c in constants):
        raise ValueError("a look-up table without its entries")
    strings, values, miss = (c.tensor for c in constants if c is not None)
    keys, found = _entries(_strings(strings), _integers(values))
    return Lookup(int(dim[1]), keys, found.astype(np.float64), float(_integers(miss)[0]))


_PLAIN_PRINT = {"T", "_output_shapes"}
"""Attributes of an AsString that prints as ``%f``; others (precision, scientific, …) change the print."""


def _entries(strings: list[str], values: Keys) -> tuple[Keys, Keys]:
    """Sorted integer keys and values; strings that no float prints as can never be met."""
    if len(strings) != len(values):
        raise ValueError("a look-up table with more keys than values, or fewer")
    pairs = {
        key: v for s, v in zip(strings, values.tolist(), strict=True) if (key := key_of_text(s)) is not None
    }
    keys = np.array(sorted(pairs), np.int64)
    return keys, np.array([pairs[key] for key in keys.tolist()], np.int64)


def _count(tensor: bytes) -> int:
    return int(np.prod([number(dim, 1) for dim in messages(message(tensor, 2), 2)], dtype=np.int64))


def _strings(tensor: bytes) -> list[str]:
    if number(tensor, 1) != _STRING:
        raise ValueError("a look-up table of something else than strings")
    return texts(tensor, 8)


def _integers(tensor: bytes) -> Keys:
    """An int64 tensor: bytes, or a list whose last value stands for all that follow."""
    if number(tensor, 1) != _INT64:
        raise ValueError("a look-up table to something else than integers")
    count, content = _count(tensor), message(tensor, 4)
    if not 0 <= count <= _MOST:
        raise ValueError(f"a look-up table of {count} entries")
    if content:
        values = np.frombuffer(content, DTYPES[_INT64])
    else:
        listed = [v - 2**64 if v >= 2**63 else v for v in numbers(tensor, 10)] or [0]
        values = np.array(listed + listed[-1:] * max(0, count - len(listed)), np.int64)
    if len(values) != count:
        raise ValueError("a look-up table is cut short")
    return values
