"""Heads as Keras saved them: a zip of a SavedModel folder, read without TensorFlow.

``keras_metadata.pb`` says which layers there are, ``variables/`` holds their weights, and
``saved_model.pb`` the vocabularies of AutoKeras's category encoding.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.score.heads.formats.protobuf import message, messages, text
from curate.score.heads.formats.saved_model import read_lookups
from curate.score.heads.formats.tf_checkpoint import read_bundle
from curate.score.heads.layers import Activation, Layer, Linear, Lookup, batch_norm, doubles, normalization

MAX_BYTES = 256 << 20
"""Of one unpacked file: more is a zip bomb, not a head."""

_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, OSError,
)  # fmt: skip

_FLOOR = 1e-7
"""Keras's ``backend.epsilon()``, the smallest deviation that its Normalization divides by."""

_ACTIVATIONS = {"relu", "sigmoid", "softmax", "tanh", "silu", "gelu"}


def read_keras_zip(data: bytes) -> tuple[Layer, ...]:
    """Layers of a sequential model.

    Raises:
        ValueError: not a whole SavedModel, or a layer that is not known here.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = _files(archive)
    except _ZIP_ERRORS as error:
        raise ValueError(f"not a whole zip file ({error})") from None
    for wanted in ("keras_metadata.pb", "variables/variables.index", "saved_model.pb"):
        if wanted not in files:
            raise ValueError(f"a zip without {wanted}: not a Keras model in TensorFlow's format")
    shards = {
        int(match[1]): content
        for name, content in files.items()
        if (match := re.fullmatch(r"variables/variables\.data-(\d{5})-of-\d{5}", name))
    }
    try:
        weights = read_bundle(files["variables/variables.index"], shards)
    except ValueError as error:
        raise ValueError(f"its variables: {error}") from None
    try:
        description = _read_description(files["keras_metadata.pb"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"keras_metadata.pb: not the layers of a model ({error})") from None
    return _layers(description, weights, files["saved_model.pb"])


def _files(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Path inside the model's folder → content, of the files that count."""
    infos = [i for i in archive.infolist() if not i.is_dir()]
    roots = [
        i.filename.removesuffix("keras_metadata.pb")
        for i in infos
        if i.filename.endswith("keras_metadata.pb")
    ]
    root = min(roots, key=len, default="")
    out = {}
    for info in infos:
        name = info.filename.removeprefix(root)
        if not info.filename.startswith(root) or not re.fullmatch(r"\w+\.pb|variables/variables\.\S+", name):
            continue
        if info.file_size > MAX_BYTES:
            raise ValueError(f"{info.filename} has {info.file_size} bytes: not a head")
        out[name] = archive.read(info)
    return out


def _read_description(metadata: bytes) -> list[dict[str, Any]]:
    """Class names and configs of the layers, in the order in which data passes them."""
    for node in messages(metadata, 1):
        if text(node, 3) == "root":
            model = json.loads(message(node, 5) or text(node, 5))
            layers: list[dict[str, Any]] = model["config"]["layers"]
            _check_chain(layers)
            return [{"class_name": str(x["class_name"]), "config": dict(x["config"])} for x in layers]
    raise ValueError("no root")


def _check_chain(layers: list[dict[str, Any]]) -> None:
    """Every layer reads the one before: what a list of layers can say."""
    before = None
    for layer in layers:
        inbound = layer.get("inbound_nodes")
        reads = [link[0] for node in inbound for link in node] if inbound else []
        if inbound is not None and before is not None and reads != [before]:
            raise ValueError(f"layer '{layer['name']}' reads {reads or 'nothing'}, not the layer before it")
        before = layer.get("name", layer["config"].get("name"))


def _layers(
    description: list[dict[str, Any]], weights: Mapping[str, npt.NDArray[Any]], graph: bytes
) -> tuple[Layer, ...]:
    out: list[Layer] = []
    number = 0
    for layer in description:
        kind, config = layer["class_name"].rpartition(">")[2], layer["config"]
        prefix = f"layer_with_weights-{number}/"
        number += kind in _WITH_WEIGHTS
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        try:
            out += _build(kind, config, own, graph)
        except KeyError as error:
            raise ValueError(f"layer '{config.get('name', kind)}' has no {error.args[0]}") from None
        except (TypeError, AttributeError) as error:
            raise ValueError(f"layer '{config.get('name', kind)}' cannot be read ({error})") from None
    if not any(isinstance(layer, Linear) for layer in out):
        raise ValueError("a model without a dense layer")
    return tuple(out)


_WITH_WEIGHTS = {"MultiCategoryEncoding", "Normalization", "Dense", "BatchNormalization"}


def _build(
    kind: str, config: dict[str, Any], weights: Mapping[str, npt.NDArray[Any]], graph: bytes
) -> list[Layer]:
    """The layers that one of Keras's stands for."""
    if kind in ("InputLayer", "Dropout", "GaussianNoise", "GaussianDropout"):
        return []
    if kind == "MultiCategoryEncoding":
        return [*_encoding(config["encoding"], graph)]
    if kind == "Normalization":
        return [normalization(weights["mean"].reshape(-1), weights["variance"].reshape(-1), _FLOOR)]
    if kind == "BatchNormalization":
        mean, variance = weights["moving_mean"], weights["moving_variance"]
        epsilon = float(config["epsilon"])
        return [batch_norm(mean, variance, weights.get("gamma"), weights.get("beta"), epsilon)]
    if kind == "Dense":
        kernel = doubles(weights["kernel"].T)
        if kernel.ndim != 2:
            raise ValueError(f"layer '{config.get('name', kind)}' has a kernel of shape {kernel.shape[::-1]}")
        bias = doubles(weights["bias"]) if config["use_bias"] else np.zeros(len(kernel))
        return [Linear(kernel, bias), *_activation(config["activation"])]
    if kind == "ReLU" and not config.get("negative_slope") and not config.get("threshold"):
        if config.get("max_value") is None:
            return [Activation("relu")]
    elif kind == "Activation":
        return _activation(config["activation"])
    elif kind == "Softmax":
        return [Activation("softmax")]
    raise ValueError(f"layer '{config.get('name', kind)}' is a {kind} of a kind that is not known here")


def _activation(name: Any) -> list[Layer]:
    if name == "linear":
        return []
    name = {"swish": "silu"}.get(name, name)
    if name not in _ACTIVATIONS:
        raise ValueError(f"the activation {name!r} is not known here")
    return [Activation(name)]


def _encoding(encoding: list[str], graph: bytes) -> list[Lookup]:
    wanted = [dim for dim, how in enumerate(encoding) if how != "none"]
    if set(encoding) - {"none", "int"}:
        raise ValueError(f"category encodings {sorted(set(encoding))}: only `none` and `int` are known here")
    try:
        lookups = read_lookups(graph) if wanted else []
    except (ValueError, IndexError) as error:
        raise ValueError(f"saved_model.pb: {error}") from None
    if [lookup.dim for lookup in lookups] != wanted:
        raise ValueError(
            f"saved_model.pb: look-ups of dimensions {[x.dim for x in lookups]}, expected {wanted}"
        )
    return lookups
