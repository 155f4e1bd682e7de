"""Which files a scorer reads of a shard, and opening them as the arrays it asked for."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.clip.vectors import Stored, Vectors, fits, open_vectors, read_model
from curate.config.models import ModelSettings
from curate.config.scorers.base import Modality
from curate.dataset import layout
from curate.dataset.family import Family, base_files
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError, UserError
from curate.samples.columns import columns_of, need, read_samples
from curate.score.contract import PixelScorer, Scorer, Shard


@dataclass(frozen=True)
class Needs:
    """The column families that a scorer reads.

    Attributes:
        models: alias → settings of the models whose embeddings it reads.
        scorers: names of the scorers whose columns it reads.
    """

    models: Mapping[str, ModelSettings]
    scorers: tuple[str, ...]


def find_needs(
    scorer: Scorer[Any], place: str, models: Mapping[str, ModelSettings], scorers: tuple[str, ...]
) -> Needs:
    """What a scorer reads, by its columns' prefixes.

    Raises:
        UserError: an embedding of a model that is not defined.
    """
    for alias, modality in scorer.vectors:
        if alias not in models:
            known = ", ".join(sorted(models)) or "none"
            raise UserError(f"{place}: no model named '{alias}' (defined: {known})")
        if modality not in models[alias].modalities:
            raise UserError(
                f"{place}: needs {modality} embeddings of '{alias}', which are not made; add {modality} to "
                f"embed.models.{alias}.modalities"
            )
    wanted = {alias for alias, _ in scorer.vectors}
    from_scorers = []
    for column in scorer.columns:
        if column == "similarity" and models:
            wanted.add(next(iter(models)))
        wanted |= {alias for alias in models if column == f"{alias}_similarity"}
        from_scorers += [name for name in scorers if column.startswith(f"{name}_")]
    return Needs(
        {alias: settings for alias, settings in models.items() if alias in wanted},
        tuple(dict.fromkeys(from_scorers)),
    )


def input_files(
    scorer: Scorer[Any], needs: Needs, workspace: Workspace
) -> Iterator[tuple[str, tuple[FileRef, ...]]]:
    """Shard and the files that the scorer reads of it, for the shards whose files are all committed."""
    store = RecordStore(workspace)
    stages = [*(f"embed/{a}" for a in needs.models), *(f"score/{s}" for s in needs.scorers)]
    with_images = isinstance(scorer, PixelScorer)
    if with_images:
        stages.append("download")
    refs = {path: ref for stage in stages for path, ref in store.outputs(stage).items()}
    for shard, base in base_files(workspace).items():
        wanted = [layout.image_tar(shard)] if with_images else []
        wanted += [Family.embeddings(alias).path(shard) for alias in needs.models]
        wanted += [layout.embedding(alias, modality, shard) for alias, modality in scorer.vectors]
        wanted += [Family.scores(name).path(shard) for name in needs.scorers]
        if all(p in refs for p in wanted):
            yield shard, (base, *(refs[p] for p in wanted))


@contextlib.contextmanager
def open_shard(
    workspace: Workspace,
    name: str,
    scorer: Scorer[Any],
    needs: Needs,
    place: str,
    learned: Mapping[str, npt.NDArray[Any]],
) -> Iterator[Shard]:
    """The arrays of one shard; vectors stay mapped for the time of the context."""
    samples = _samples(workspace, name, scorer, needs, place)
    facts = {alias: read_model(workspace, alias) for alias in needs.models}
    with contextlib.ExitStack() as stack:
        vectors: dict[tuple[str, Modality], Stored] = {}
        for alias, modality in scorer.vectors:
            path = layout.embedding(alias, modality, name)
            mapped = open_vectors(workspace, path, samples.num_rows, int(facts[alias]["dim"]))
            vectors[alias, modality] = stack.enter_context(mapped)
        yield Shard(name, samples, vectors, facts, _encoder(needs.models, facts), learned)


def read_learned(workspace: Workspace, path: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a scorer has learned."""
    try:
        with np.load(io.BytesIO(workspace.read_bytes(path)), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{workspace.url}/{path}: cannot be read ({error}); score again") from None


def _samples(workspace: Workspace, shard: str, scorer: Scorer[Any], needs: Needs, place: str) -> pa.Table:
    """uid and columns; the rows of every embedding that is read are checked to be the same."""
    known = columns_of(workspace, shard, list(needs.models), needs.scorers)
    for column in scorer.columns:
        need(known, column, place)
    samples = read_samples(workspace, shard, scorer.columns, known)
    for alias in needs.models:
        path = Family.embeddings(alias).path(shard)
        if not workspace.read_table(path, ["uid"])["uid"].equals(samples["uid"]):
            raise DataError(f"{workspace.url}/{path}: its rows are not the shard's samples; embed it again")
    return samples


def _encoder(
    models: Mapping[str, ModelSettings], facts: Mapping[str, Mapping[str, Any]]
) -> Callable[[str, tuple[str, ...]], tuple[Vectors, float]]:
    def encode(alias: str, texts: tuple[str, ...]) -> tuple[Vectors, float]:
        about = (str(facts[alias]["checkpoint"]), int(facts[alias]["dim"]))
        return _encode(models[alias], alias, about, texts)

    return encode


@functools.lru_cache(maxsize=16)
def _encode(
    model: ModelSettings, alias: str, about: tuple[str, int], texts: tuple[str, ...]
) -> tuple[Vectors, float]:
    """Texts with the very model that made the stored vectors, once per process."""
    from curate.clip.model import load

    clip = load(model)
    if not fits(clip.checkpoint, clip.dim, {"checkpoint": about[0], "dim": about[1]}):
        raise UserError(
            f"embed.models.{alias}: the weights of '{model.model}' ({clip.dim} dimensions) are not those of "
            f"the embeddings ({about[1]} dimensions), or have changed since; run `curate embed` again"
        )
    return clip.encode_texts(texts), clip.logit_scale
