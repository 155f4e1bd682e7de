"""Embeddings that a config names: ``.npy``, ``.npz``, a folder of them, or an embeddings folder.

Local npy files are mapped into memory and read in blocks; npz files and files of an object store are
held in memory while a shard is scored.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curate.clip.vectors import STORED
from curate.config.base import fingerprint
from curate.config.scorers.base import Modality
from curate.dataset import external
from curate.errors import UserError
from curate.score.contract import blocks, copy_rows
from curate.score.vectors.compute import COLS, Chunk

Arrays = Sequence[npt.NDArray[np.floating]]


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors.

    Attributes:
        url: where it is.
        name: relative to what the user named.
        digest: of its bytes when the driver saw it.
    """

    url: str
    name: str
    digest: str


@dataclass(frozen=True)
class VectorSet:
    """Vectors (n, dim) in one or more files, in order of their names.

    Attributes:
        place: the config key that names them.
        files: at least one.
        key: array of an npz file.
        weights: digest of the weights that made them, from ``model.json``, when there is one.
    """

    place: str
    files: tuple[VectorFile, ...]
    key: str | None
    weights: str | None

    @property
    def digest(self) -> str:
        """Of all the files, for a scorer's facts."""
        return fingerprint([[f.name, f.digest] for f in self.files])

    def check_model(self, alias: str, facts: Mapping[str, Any]) -> None:
        """Refuse vectors of another model. Of vectors that came ready, only the dimension is known.

        Raises:
            UserError: ``model.json`` beside them names other weights than those of the alias.
        """
        given = {str(self.weights), str(facts["weights"])}
        if self.weights is not None and STORED not in given and len(given) > 1:
            raise UserError(
                f"{self.place}: {self.files[0].url} and what is beside it was made with weights "
                f"{self.weights[:12]}…, the embeddings of '{alias}' with {str(facts['weights'])[:12]}…; "
                "embed both with one model"
            )

    @contextlib.contextmanager
    def open(self, dim: int) -> Iterator[Arrays]:
        """The arrays of all files, each (n, dim), any float type.

        Raises:
            UserError: a file has changed, is no array of vectors, or has other dimensions.
        """
        yield [self._array(file, dim) for file in self.files]

    def _array(self, file: VectorFile, dim: int) -> npt.NDArray[np.floating]:
        array = _load_array(file, self.key, self.place)
        if array.ndim != 2 or array.dtype.kind != "f":
            raise UserError(
                f"{self.place}: {file.url}: expected vectors (rows, dimensions) of floats, "
                f"got {array.dtype} {array.shape}"
            )
        if array.shape[1] != dim:
            raise UserError(
                f"{self.place}: {file.url} has vectors of {array.shape[1]} dimensions, the model's have "
                f"{dim}; use embeddings by the same model"
            )
        return array


def find_vectors(url: str, key: str | None, place: str, modality: Modality = "image") -> VectorSet:
    """What a path of the config stands for.

    Args:
        url: an npy or npz file, a folder that holds such files, or an embeddings folder (with
            ``img_emb`` and ``text_emb`` in it; ``modality`` says which one is meant).
        key: array of an npz file.
        place: the config key, for messages.
        modality: see ``url``.

    Raises:
        UserError: nothing there.
    """
    folder = external.absolute(url, place).rstrip("/")
    inside = external.list_folder(folder, place)
    if inside is None:
        return VectorSet(place, (_vector_file(folder, place),), key, None)
    inner = "img_emb" if modality == "image" else "text_emb"
    vectors, beside = external.list_folder(f"{folder}/{inner}", place), inside
    if vectors is None:
        parent, _, name = folder.rpartition("/")
        beside = (external.list_folder(parent, place) or {}) if name in ("img_emb", "text_emb") else {}
        vectors = inside
    files = [file for name, file in vectors.items() if name.endswith((".npy", ".npz"))]
    if not files:
        raise UserError(f"{place}: {url}: no .npy or .npz file in that folder")
    weights = _read_weights(beside["model.json"], place) if "model.json" in beside else None
    return VectorSet(place, tuple(_vector_file(file, place) for file in files), key, weights)


def unit_chunks(arrays: Arrays, device: torch.device, unit: bool = True) -> Iterator[Chunk]:
    """All vectors of a set in blocks, brought to unit length.

    Rows that are not finite or are zero (embeddings that are missing) are not usable.
    """
    first = 0
    for array in arrays:
        for part in blocks(len(array), COLS):
            block = torch.from_numpy(copy_rows(array, part)).to(device).double()
            length = torch.linalg.vector_norm(block, dim=1, keepdim=True)
            usable = torch.isfinite(length[:, 0]) & (length[:, 0] > 0)
            block[~usable] = 0
            if unit:
                block = block / torch.where(usable[:, None], length, 1.0)
            every = bool(usable.all())
            yield Chunk(first + part.start, block.float(), None if every else usable)
        first += len(array)


def _vector_file(url: str, place: str) -> VectorFile:
    return VectorFile(url, url.rpartition("/")[2], external.digest(url, place))


def _read_weights(url: str, place: str) -> str:
    """Digest of the weights that a ``model.json`` names."""
    try:
        return str(json.loads(external.read(url, place))["weights"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{place}: {url}: not the facts of a model (no `weights`)") from None


def _load_array(file: VectorFile, key: str | None, place: str) -> npt.NDArray[Any]:
    path = external.local_path(file.url)
    if path is None:
        source: Path | io.BytesIO = io.BytesIO(external.read(file.url, place, file.digest))
    else:
        external.check_digest(file.url, place, file.digest)
        source = path
    # numpy cannot map an array without elements, whose file is nothing but its header.
    mapped = "r" if path and path.suffix == ".npy" and path.stat().st_size > 256 else None
    try:
        loaded = np.load(source, mmap_mode=mapped, allow_pickle=False)  # type: ignore[arg-type]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{place}: {file.url}: not a whole npy or npz file ({error})") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if key is None and len(loaded.files) == 1:
            key = loaded.files[0]
        if key not in loaded.files:
            have = ", ".join(loaded.files)
            raise UserError(f"{place}: {file.url} holds {have}; say which one with `key`")
        try:
            return np.asarray(loaded[key])
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{place}: {file.url}: array '{key}' cannot be read ({error})") from None
