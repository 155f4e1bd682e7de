"""Existing embeddings become this project's: ``stored/<alias>`` sorts the source, ``embed/<alias>`` joins it.

The rows of a source lie in its own order; a shard is a range of uids. So the source is read once, front
to back, and written as files sorted by uid; then every shard takes its stretch of each. Memory is that
of one such file, however large source, pool and shards are.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.clip.sources import check
from curate.clip.vectors import STORED, Vectors
from curate.config.base import fingerprint
from curate.config.models import ModelSettings
from curate.dataset import layout
from curate.dataset.family import base_files
from curate.dataset.listing import open_fs
from curate.dataset.records import Record, RecordStore, inputs_digest
from curate.dataset.uid import halves
from curate.dataset.workspace import FileRef, Workspace, json_bytes
from curate.embed.stored.arrays import Array, open_array
from curate.embed.stored.files import Part, find_parts
from curate.embed.stored.keys import key_of, uids_of
from curate.embed.stored.named import dim_of
from curate.embed.stored.rows import Joined, Records, fill, join, record_dtype
from curate.embed.stored.spills import names_of, read_shard, spill_rows, write_spill
from curate.embed.writing import write_embeddings
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import DataError, UserError
from curate.reasons import EmbedReason
from curate.samples.columns import PlannedColumns, columns_of, read_samples

UNIT_BYTES = 1 << 30
"""Small files of a source are one unit of work up to about this size."""
BLOCK_ROWS = 8_192
MISALIGNED = 0.02
"""Median difference from the similarities that come with the source beyond which rows are not aligned.
Rounding and another library's resize move a cosine by less than a tenth of it."""


class SortStage(Stage):
    """Reads the files of a source and writes their rows in uid order. A unit is a few files."""

    def __init__(self, alias: str, settings: ModelSettings) -> None:
        self.alias = alias
        self.model = settings
        self.place = f"embed.models.{alias}"
        self.name = f"stored/{alias}"
        facts = settings.facts()
        self.settings = {k: v for k, v in facts.items() if k not in ("model", "pretrained")}

    @property
    def verb(self) -> str:
        """Sorting is the first half of ``embed``."""
        return "embed"

    def preflight(self, workspace: Workspace, planned: PlannedColumns | None) -> Iterator[str]:
        """Whether the files are there, and the weights if a path names them: a search will want those."""
        find_parts(self.model, self.place)
        if self.model.model.startswith("local-dir:") or "/" in (self.model.pretrained or ""):
            check(self.model)
        return iter(())

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """Files in groups, once the shards are known; a group is named after its files."""
        if not workspace.exists(layout.DATASET):
            return
        shards = int(workspace.read_json(layout.DATASET)["shards"])
        for parts in _grouped(find_parts(self.model, self.place)):
            order = self.model.modalities
            paths = [[p.metadata.path, *(p.vectors[m].path for m in order)] for p in parts]
            text = fingerprint({"settings": self.settings, "files": paths})
            name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
            refs = tuple(ref for part in parts for ref in part.files)
            yield Unit(name, refs, {"shards": shards, "parts": paths})

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Check, normalise and sort the rows of some files."""
        spills = _Spills(workspace, self.alias, unit)
        rows, no_uid, bad = 0, 0, 0
        dims: dict[int, str] = {}
        types: set[str] = set()
        for metadata, *vectors in unit.payload["parts"]:
            with self._opened(metadata, vectors) as (table, arrays):
                for array in arrays.values():
                    dims.setdefault(array.dim, array.place)
                    types.add(array.dtype.name)
                if len(dims) > 1:
                    raise UserError(_mixed(self.place, dims))
                dtype = record_dtype(min(dims), self.model.modalities)
                for uids, known, found in self._blocks(table, arrays, metadata):
                    block = np.empty(len(uids), dtype)
                    fill(block, uids, found)
                    spills.add(block[known])
                    bad += int(block["bad"][known].sum())
                    no_uid += int((~known).sum())
                    rows += len(known)
        outputs = spills.close()
        return Outcome(
            outputs,
            rows,
            rows - no_uid,
            {EmbedReason.NO_UID.value: no_uid} if no_uid else {},
            {"dims": {str(dim): place for dim, place in dims.items()}, "types": sorted(types), "bad": bad},
        )

    @contextlib.contextmanager
    def _opened(
        self, metadata: str, vectors: Sequence[str]
    ) -> Iterator[tuple[pq.ParquetFile, dict[str, Array]]]:
        """The files of a part, when they fit together: the table, modality → array."""
        options, ends = self.model.storage_options, {"image": "img", "text": "txt"}
        with contextlib.ExitStack() as stack:
            fs, path = open_fs(metadata, options)
            try:
                table = pq.ParquetFile(stack.enter_context(fs.open(path, "rb")))
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{metadata}: cannot be read as parquet ({error})") from None
            arrays: dict[str, Array] = {}
            for modality, url in zip(self.model.modalities, vectors, strict=True):
                member = f"{self.model.arrays}_{ends[modality]}" if self.model.arrays else None
                array = stack.enter_context(open_array(url, member, options))
                if array.rows != table.metadata.num_rows:
                    raise DataError(
                        f"{array.place}: {array.rows:,} vectors, but {table.metadata.num_rows:,} rows in "
                        f"{metadata}; they do not belong together"
                    )
                arrays[modality] = array
            yield table, arrays

    def _blocks(
        self, table: pq.ParquetFile, arrays: Mapping[str, Array], place: str
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.bool_], dict[str, Vectors]]]:
        """uids, which of them are known, and the vectors of consecutive rows."""
        names = table.schema_arrow.names
        key = key_of(names, self.model, place)
        said = f"clip_{self.model.arrays}_similarity_score"
        compare = said in names and len(arrays) == 2
        columns = [*key.columns, *([said] if compare else [])]
        off: list[npt.NDArray[Any]] = []
        seen, known_rows = 0, 0
        try:
            batches = table.iter_batches(BLOCK_ROWS, columns=list(dict.fromkeys(columns)))
            for batch in batches:
                uids, known = uids_of(batch, key)
                vectors = {modality: array.read(len(uids)) for modality, array in arrays.items()}
                seen, known_rows = seen + len(known), known_rows + int(known.sum())
                if compare:
                    off.append(_difference(batch.column(said), vectors["image"], vectors["text"]))
                yield uids, known, vectors
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{place}: cannot be read ({error})") from None
        if seen and not known_rows:
            raise UserError(
                f"{place}: none of its {seen:,} rows says which sample it is: {' and '.join(key.columns)} "
                "hold no uids; name a `uid_column`, or a `url_column` and a `text_column`"
            )
        differences = np.concatenate(off) if off else np.empty(0)
        if len(differences) and float(np.median(differences)) > MISALIGNED:
            raise DataError(
                f"{arrays['image'].place}: its cosines are not the {said} of {place} (half of them differ by "
                f"more than {float(np.median(differences)):.3f}): the two files do not hold the same samples"
            )

    def finish(self, workspace: Workspace) -> None:
        """Write what there is to join.

        Raises:
            UserError: the files, or the model they are said to be of, have vectors of several lengths.
        """
        records = [r for r in RecordStore(workspace).iterate(self.name) if not r.failed]
        if not records:
            return
        dims: dict[int, str] = {}
        for record in records:
            for dim, place in record.stats["dims"].items():
                dims.setdefault(int(dim), place)
        if len(dims) > 1:
            raise UserError(_mixed(self.place, dims))
        ((dim, place),) = dims.items()
        expected = dim_of(self.model.model)
        if expected not in (None, dim):
            raise UserError(
                f"{self.place}: {place} has vectors of {dim} dimensions, but those of '{self.model.model}' "
                f"have {expected}; name the model that made them"
            )
        refs = sorted((ref for r in records for ref in r.outputs), key=lambda ref: ref.path)
        facts = {
            "dim": dim,
            "types": sorted({name for r in records for name in r.stats["types"]}),
            "digest": inputs_digest(tuple(refs)),
            "rows": sum(r.rows_out for r in records),
            "names": names_of(iter(refs)),
        }
        workspace.write_if_changed(layout.stored_list(self.alias), json_bytes(facts))


class JoinStage(Stage):
    """Gives every sample of a shard its stored embedding. One unit per shard."""

    def __init__(self, alias: str, settings: ModelSettings) -> None:
        self.alias = alias
        self.model = settings
        self.place = f"embed.models.{alias}"
        self.name = f"embed/{alias}"
        self.settings = settings.facts()

    def plan_columns(self, planned: PlannedColumns) -> None:
        """The similarity, where there are vectors of images and texts."""
        if {"image", "text"} <= set(self.model.modalities):
            planned.add_embeddings(self.alias)

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """The shards whose samples are known, once the source is sorted."""
        path = layout.stored_list(self.alias)
        if not workspace.exists(path):
            return
        data = workspace.read_bytes(path)
        source = FileRef(path, len(data), hashlib.blake2b(data, digest_size=16).hexdigest())
        for shard, ref in base_files(workspace).items():
            yield Unit(shard, (ref, source))

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Join one shard and write vectors and table."""
        facts = workspace.read_json(layout.stored_list(self.alias))
        columns = columns_of(workspace, unit.name, (), ())
        samples = read_samples(workspace, unit.name, ["url", "text"], columns)
        uids = halves(samples["uid"])
        if not _ascending(samples["uid"]):
            raise DataError(f"{workspace.url}: shard {unit.name}: uids are not sorted and unique")
        dtype = record_dtype(facts["dim"], self.model.modalities)
        records = read_shard(workspace, self.alias, facts["names"], int(unit.name), dtype)
        joined = join(uids, records, facts["dim"])
        return _outcome(self._write(workspace, unit.name, samples, joined), joined)

    def _write(
        self, workspace: Workspace, shard: str, samples: pa.Table, joined: Joined
    ) -> tuple[FileRef, ...]:
        similarity = pa.array(joined.similarity, mask=np.isnan(joined.similarity))
        vectors = cast(dict[str, Vectors], joined.vectors)
        reason = pa.array(joined.reasons, pa.string())
        return write_embeddings(workspace, self.alias, shard, samples, vectors, similarity, reason)

    def finish(self, workspace: Workspace) -> None:
        """Write ``model.json``.

        Raises:
            UserError: not one sample has a stored embedding.
        """
        records = [r for r in RecordStore(workspace).iterate(self.name) if not r.failed]
        if not records:
            return
        drops: Counter[str] = Counter()
        for record in records:
            drops.update(record.drops)
        samples = sum(r.rows_in for r in records)
        if samples and drops[EmbedReason.NOT_STORED.value] == samples:
            raise UserError(_nothing_fits(self.place, samples, records))
        source = workspace.read_json(layout.stored_list(self.alias))
        facts = {
            "model": self.model.model,
            "pretrained": self.model.pretrained,
            "precision": ", ".join(source["types"]),
            "dim": source["dim"],
            "weights": STORED,
            "checkpoint": STORED,
            "format": self.model.format,
            "arrays": self.model.arrays,
            "modalities": list(self.model.modalities),
            "source": source["digest"],
        }
        workspace.write_if_changed(layout.embedding_model(self.alias), json_bytes(facts))


class _Spills:
    """Collects rows and writes them, sorted, whenever there are enough."""

    def __init__(self, workspace: Workspace, alias: str, unit: Unit) -> None:
        self.workspace, self.alias, self.unit = workspace, alias, unit
        self.held: Records | None = None
        self.rows = 0
        self.outputs: list[FileRef] = []
        self.written = 0

    def add(self, records: Records) -> None:
        if self.held is None:
            self.held = np.empty(spill_rows(records.dtype), records.dtype)
        start = 0
        while start < len(records):
            end = min(len(records), start + len(self.held) - self.rows)
            self.held[self.rows : self.rows + end - start] = records[start:end]
            self.rows += end - start
            start = end
            if self.rows == len(self.held):
                self._write()

    def close(self) -> tuple[FileRef, ...]:
        if self.rows:
            self._write()
        return tuple(self.outputs)

    def _write(self) -> None:
        assert self.held is not None
        name = f"{self.unit.name}-{self.written:04d}"
        shards = int(self.unit.payload["shards"])
        self.outputs += write_spill(self.workspace, self.alias, name, self.held[: self.rows], shards)
        self.written += 1
        self.rows = 0


def _grouped(parts: Sequence[Part]) -> Iterator[list[Part]]:
    group: list[Part] = []
    size = 0
    for part in parts:
        more = sum(ref.size for ref in part.files)
        if group and size + more > UNIT_BYTES:
            yield group
            group, size = [], 0
        group.append(part)
        size += more
    if group:
        yield group


def _difference(said: pa.Array, image: npt.NDArray[Any], text: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Distance of a block's cosines from those that the metadata have, where both are known."""
    with np.errstate(all="ignore"):
        dots = np.einsum("ij,ij->i", image, text, dtype=np.float64)
        for vectors in (image, text):
            dots /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        values = np.asarray(pc.cast(said, pa.float64()).fill_null(float("nan")), np.float64)
        off: npt.NDArray[np.float64] = np.abs(dots - values)
    return off[np.isfinite(off)]


def _ascending(uids: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.less(uids[:-1], uids[1:])).as_py()) if len(uids) > 1 else True


def _outcome(outputs: tuple[FileRef, ...], joined: Joined) -> Outcome:
    drops = Counter(reason for reason in joined.reasons if reason is not None)
    total = len(joined.reasons)
    stats: dict[str, Any] = {name: n for name, n in sorted(joined.counts.items()) if n}
    known = joined.similarity[np.isfinite(joined.similarity)].astype(np.float64)
    if len(known):
        stats["similarity_mean"] = round(float(known.mean()), 6)
    return Outcome(outputs, total, total - sum(drops.values()), dict(drops), stats)


def _mixed(place: str, dims: Mapping[int, str]) -> str:
    what = " and ".join(f"{dim} in {file}" for dim, file in sorted(dims.items()))
    return f"{place}: the source has vectors of several lengths: {what}; one alias is one model"


def _nothing_fits(place: str, samples: int, records: Sequence[Record]) -> str:
    unused = sum(int(r.stats.get("unused", 0)) for r in records)
    return (
        f"{place}: none of the {samples:,} samples is among the {unused:,} stored rows. A uid is "
        "md5(text + url) of exactly these bytes: take the source's own uids on both sides (`uid_column`), or "
        "the same url and text columns and no `ingest.text_repair`"
    )
