"""Heads with random weights, written in the formats in which real ones were published."""

from __future__ import annotations

import io
import itertools
import json
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from curate.score.heads.formats.leveldb import crc32c, mask_crc


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    """Random unit vectors, float16 (rows, dim). RandomState's stream is frozen across numpy versions."""
    vectors = np.random.RandomState(seed).standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def torch_bytes(state: Any, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(state, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def h14_module(seed: int = 0) -> nn.Sequential:
    """LAION's H/14 detector by its published list of modules."""
    torch.manual_seed(seed)
    widths = [1024, 1024, 2048, 1024, 256, 128]
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        parts += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*parts, nn.Linear(128, 16), nn.Linear(16, 1)).eval()


def aesthetic_v2_module(seed: int = 0, relu: bool = False) -> nn.Sequential:
    """The improved aesthetic predictor: dropouts between, activations only in the variant with ReLU."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for a, b, rate in ((768, 1024, 0.2), (1024, 128, 0.2), (128, 64, 0.1), (64, 16, None)):
        parts += [nn.Linear(a, b), *([nn.ReLU()] if relu else []), *([nn.Dropout(rate)] if rate else [])]
    return nn.Sequential(*parts, nn.Linear(16, 1)).eval()


def datacomp_module(seed: int = 0) -> nn.Sequential:
    """dataset2metadata's image classifier with statistics that are not trivial."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(768, eps=0.0)
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.02)
        norm.running_var.uniform_(5e-4, 2e-3)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.1)
    parts: list[tuple[str, nn.Module]] = [("norm", norm)]
    for i, (a, b) in enumerate(((768, 64), (64, 512), (512, 256), (256, 1))):
        parts += [(f"dense{i or ''}", nn.Linear(a, b)), (f"act{i}", nn.ReLU() if b > 1 else nn.Sigmoid())]
    return nn.Sequential(OrderedDict(parts)).eval()


class LaionPort(nn.Module):
    """LAION's port of its AutoKeras heads: `norm` and `linear_1` … with ReLU, then a sigmoid."""

    def __init__(self, widths: Sequence[int], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.randn(widths[0]) * 0.02)
        self.norm.register_buffer("variance", torch.rand(widths[0]) * 1e-3 + 5e-4)
        self.count = len(widths) - 1
        for i in range(self.count):
            setattr(self, f"linear_{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.norm.mean) / (self.norm.variance.sqrt() + 1e-10)
        for i in range(1, self.count):
            x = torch.relu(getattr(self, f"linear_{i}")(x))
        return torch.sigmoid(getattr(self, f"linear_{self.count}")(x))


# --- protocol buffers, LevelDB tables, SavedModels ------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def shape(dims: Sequence[int]) -> bytes:
    return b"".join(field(2, field(1, size) if size else b"") for size in dims)


def table(entries: Mapping[bytes, bytes], block_entries: int = 7, restart: int = 3) -> bytes:
    """A LevelDB table of several data blocks."""
    out, handles = b"", {}
    names = sorted(entries)
    for start in range(0, len(names), block_entries):
        part = names[start : start + block_entries]
        out, handles[part[-1]] = _append(out, {name: entries[name] for name in part}, restart)
    out, meta = _append(out, {}, restart)
    out, index = _append(out, handles, 1)
    return out + (meta + index).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def _append(out: bytes, entries: Mapping[bytes, bytes], restart: int) -> tuple[bytes, bytes]:
    block, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(entries.items()):
        shared = 0
        if i % restart == 0:
            restarts.append(len(block))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        sizes = (shared, len(key) - shared, len(value))
        block += b"".join(map(varint, sizes)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    block += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    handle = varint(len(out)) + varint(len(block))
    return out + block + b"\0" + struct.pack("<I", mask_crc(crc32c(block + b"\0"))), handle


def bundle(tensors: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    """Index and data of a checkpoint of float32 tensors."""
    data, entries = b"", {b"": field(1, 1) + field(3, field(1, 1))}
    for name in sorted(tensors):
        raw = tensors[name].astype("<f4").tobytes()
        entry = field(1, 1) + field(2, shape(tensors[name].shape)) + field(4, len(data)) + field(5, len(raw))
        entry += varint(6 << 3 | 5) + struct.pack("<I", mask_crc(crc32c(raw)))
        entries[f"{name}/.ATTRIBUTES/VARIABLE_VALUE".encode()] = entry
        data += raw
    return table(entries), data


@dataclass
class KerasHead:
    """An AutoKeras head: look-ups, normalisation, dense layers with ReLU, a sigmoid.

    Attributes:
        vocabularies: dimension → the strings of its categories, numbered from 1.
        mean, variance: of the normalisation, (dim,).
        dense: kernels (in, out) and biases (out,).
    """

    vocabularies: Mapping[int, Sequence[str]]
    mean: np.ndarray
    variance: np.ndarray
    dense: Sequence[tuple[np.ndarray, np.ndarray]]

    def plain(self, vectors: np.ndarray) -> np.ndarray:
        """One row and one category string at a time, by the definition."""
        scores = []
        for vector in vectors.astype(np.float32):
            x = vector.astype(np.float64)
            for dim, words in self.vocabularies.items():
                written = f"{float(vector[dim]):f}"
                x[dim] = 1 + words.index(written) if written in words else 0
            x = (x - self.mean) / np.maximum(np.sqrt(self.variance), 1e-7)
            for i, (kernel, bias) in enumerate(self.dense):
                x = x @ kernel + bias
                x = np.maximum(x, 0) if i < len(self.dense) - 1 else x
            scores.append(1 / (1 + np.exp(-x[0])))
        return np.array(scores)

    def files(self) -> dict[str, bytes]:
        index, data = bundle(self._variables())
        return {
            "keras_metadata.pb": self._metadata(),
            "saved_model.pb": self._graph(),
            "variables/variables.index": index,
            "variables/variables.data-00000-of-00001": data,
        }

    def zip(self, root: str = "some_head/", **changed: bytes | None) -> bytes:
        """The published form; ``changed`` replaces files by their last name's stem, or leaves them out."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{root}assets/", b"")
            for name, data in self.files().items():
                new = changed.get(name.rpartition("/")[2].partition("-")[0].replace(".", "_"), data)
                if new is not None:
                    archive.writestr(root + name, new)
        return out.getvalue()

    def _variables(self) -> dict[str, np.ndarray]:
        out = {"layer_with_weights-1/mean": self.mean, "layer_with_weights-1/variance": self.variance}
        for i, (kernel, bias) in enumerate(self.dense):
            out[f"layer_with_weights-{i + 2}/kernel"], out[f"layer_with_weights-{i + 2}/bias"] = kernel, bias
        return out

    def layers(self) -> list[dict[str, Any]]:
        encoding = ["int" if dim in self.vocabularies else "none" for dim in range(len(self.mean))]
        described: list[tuple[str, dict[str, Any]]] = [
            ("InputLayer", {}),
            ("Custom>MultiCategoryEncoding", {"encoding": encoding}),
            ("Normalization", {"axis": [-1]}),
        ]
        for i in range(len(self.dense)):
            described.append(("Dense", {"activation": "linear", "use_bias": True}))
            if i < len(self.dense) - 1:
                described.append(("ReLU", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}))
        described += [("Dropout", {"rate": 0.5}), ("Activation", {"activation": "sigmoid"})]
        out = []
        for i, (kind, config) in enumerate(described):
            inbound = [[[f"layer_{i - 1}", 0, 0, {}]]] if i else []
            name = f"layer_{i}"
            one = {"class_name": kind, "config": {"name": name, **config}}
            out.append({**one, "name": name, "inbound_nodes": inbound})
        return out

    def _metadata(self, layers: Sequence[dict[str, Any]] | None = None) -> bytes:
        return metadata(self.layers() if layers is None else layers)

    def _graph(self) -> bytes:
        tables = sorted(self.vocabularies)
        main, call, body, arguments = b"", ["input_1"], b"", ["input_1"]
        for i, dim in enumerate(tables):
            words = self.vocabularies[dim]
            strings = field(1, 7) + field(2, shape([len(words)])) + b"".join(field(8, w) for w in words)
            numbers = np.arange(1, len(words) + 1, dtype="<i8").tobytes()
            main += node(f"make_{i}", "StatefulPartitionedCall")
            main += node(f"words_{i}", "Const", value=field(8, strings))
            main += node(f"ids_{i}", "Const", value=field(8, _int64([len(words)], numbers)))
            main += node(f"fill_{i}", "StatefulPartitionedCall", f"make_{i}", f"words_{i}", f"ids_{i}")
            main += node(
                f"miss_{i}", "Const", value=field(8, field(1, 9) + field(2, b"") + field(10, varint(0)))
            )
            call += [f"make_{i}", f"miss_{i}"]
            arguments += [f"table_{i}", f"default_{i}"]
            body += node(f"m/AsString_{i}", "AsString", f"m/split:output:{dim}", T=field(6, 1))
            body += node(
                f"m/find_{i}", "LookupTableFindV2", f"table_{i}", f"m/AsString_{i}:output:0", f"default_{i}"
            )
        signature = b"".join(field(2, field(1, name)) for name in arguments)
        inner = field(1, field(1, "served") + signature) + _field3(body)
        wrapper_body = node("call", "StatefulPartitionedCall", *arguments, f=field(10, field(1, "served")))
        wrapper = field(1, field(1, "wrapper") + signature) + _field3(
            wrapper_body + node("id", "Identity", "call")
        )
        main += node("serve", "StatefulPartitionedCall", *call, f=field(10, field(1, "wrapper")))
        graph = _field1(main) + field(2, field(1, wrapper) + field(1, inner))
        output = field(1, "score") + field(2, field(1, "serve:0"))
        signatures = field(5, field(1, "serving_default") + field(2, field(2, output)))
        return field(1, 1) + field(2, field(2, graph) + signatures)


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    """A NodeDef behind its length; ``_field1`` and ``_field3`` make fields of them."""
    data = field(1, name) + field(2, op) + b"".join(field(3, i) for i in inputs)
    data += b"".join(field(5, field(1, key) + field(2, value)) for key, value in attributes.items())
    return struct.pack("<I", len(data)) + data


def _split(nodes: bytes) -> list[bytes]:
    out, at = [], 0
    while at < len(nodes):
        (size,) = struct.unpack_from("<I", nodes, at)
        out.append(nodes[at + 4 : at + 4 + size])
        at += 4 + size
    return out


def _field1(nodes: bytes) -> bytes:
    return b"".join(field(1, one) for one in _split(nodes))


def _field3(nodes: bytes) -> bytes:
    return b"".join(field(3, one) for one in _split(nodes))


def _int64(dims: Sequence[int], content: bytes) -> bytes:
    return field(1, 9) + field(2, shape(dims)) + field(4, content)


def metadata(layers: Sequence[dict[str, Any]]) -> bytes:
    """keras_metadata.pb of a model of these layers."""
    model = json.dumps({"config": {"name": "model", "layers": list(layers)}})
    return field(1, field(3, "root") + field(4, "_tf_keras_network") + field(5, model))


def keras_head(widths: Sequence[int], categories: Sequence[int], seed: int = 0) -> KerasHead:
    """Random weights; every second float16 near ±0.1 is a known category of the dimensions given."""
    rng = np.random.RandomState(seed)
    grid = np.unique(np.linspace(-0.12, 0.12, 900).astype(np.float16))[::2]
    words = ["-0.000000", *(f"{float(value):f}" for value in rng.permutation(grid))]
    mean = rng.standard_normal(widths[0]) * 0.02
    variance = rng.uniform(5e-4, 2e-3, widths[0])
    for dim in categories:
        mean[dim], variance[dim] = 200, 90_000
    dense = [
        (
            rng.standard_normal((a, b)).astype(np.float32) / np.float32(np.sqrt(a)),
            rng.standard_normal(b).astype(np.float32),
        )
        for a, b in itertools.pairwise(widths)
    ]
    return KerasHead(
        dict.fromkeys(categories, words), mean.astype(np.float32), variance.astype(np.float32), dense
    )
