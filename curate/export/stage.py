"""The export stage: a selection as webdataset shards, tables and a dataset card."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from curate.config.models import ExportSettings
from curate.dataset import layout
from curate.dataset.account import account, funnel_of, model_cards, step_of
from curate.dataset.family import Family, base_family
from curate.dataset.records import Record, RecordStore
from curate.dataset.selections import Selection, selection_refs
from curate.dataset.tars import TarWriter, images_of
from curate.dataset.uid import SUBSET_DTYPE, halves
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import DataError, UserError
from curate.export.card import dataset_card, metadata
from curate.export.plan import Piece, cut
from curate.export.rows import ONLY_IN_TABLES, as_dicts, in_order, selected
from curate.reasons import EmbedReason
from curate.samples.columns import columns_of, read_samples

MISSING = EmbedReason.MISSING_MEMBER.value
SUBSET = "sample_ids.npy"
"""The name that DataComp's resharder gives to the list of what it wrote."""


class ExportStage(Stage):
    """Writes what an experiment kept, in uid order, ``shard_size`` rows to a shard.

    A unit is one output shard. The counts of the selection say which rows of which input shards it
    covers, so every output shard can be written alone, by any worker, in any order.
    """

    def __init__(
        self, experiment: str, settings: ExportSettings, models: Sequence[str], scorers: Sequence[str]
    ) -> None:
        self.name = f"export/{experiment}"
        self.experiment = experiment
        self.shard_size, self.tars = settings.shard_size, settings.tars
        self.models, self.scorers = tuple(models), tuple(scorers)
        self.settings: dict[str, Any] = {
            "shard_size": settings.shard_size,
            "tars": settings.tars,
            "models": list(models),
            "scorers": list(scorers),
        }

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """One unit per output shard; none for an empty selection."""
        path = layout.selection_file(self.experiment, "counts.parquet")
        if not workspace.exists(path):
            raise UserError(
                f"{workspace.url}/{path}: no selection of experiment '{self.experiment}' to export; "
                f"run `curate filter` first"
            )
        counts = workspace.read_table(path, ["shard", "total"])
        totals = counts["total"].to_numpy().astype(np.int64)
        refs, chosen = self._committed(workspace), selection_refs(workspace, self.experiment)
        number = -(-int(totals.sum()) // self.shard_size)
        base = base_family(workspace)
        for i, pieces in enumerate(cut(counts["shard"].to_pylist(), totals, self.shard_size)):
            paths = [path for piece in pieces for path in self._inputs(piece.shard, base)]
            yield Unit(
                layout.shard_name(i, number),
                (*chosen, *(refs[path] for path in paths if path in refs)),
                {"rows": [[p.shard, p.start, p.stop] for p in pieces]},
            )

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Write one output shard: tar, table, count."""
        pieces = [Piece(*row) for row in unit.payload["rows"]]
        known, base = {ref.path for ref in unit.inputs}, base_family(workspace)
        for piece in pieces:
            for path in self._inputs(piece.shard, base):
                if path not in known:
                    raise DataError(f"{workspace.url}/{path}: not committed by the stage that makes it")
        tar, stats = self._path(f"{unit.name}.tar"), self._path(f"{unit.name}_stats.json")
        outputs: list[FileRef] = []
        if self.tars:
            with workspace.writing(tar) as temporary:
                with temporary.open("wb") as stream, TarWriter(stream) as writer:
                    committed = {ref.path: ref for ref in unit.inputs}
                    tables = [self._write_piece(workspace, piece, writer, committed) for piece in pieces]
                outputs.append(ref_of(temporary, tar))
        else:
            tables = [self._read_piece(workspace, piece) for piece in pieces]
            for path in (tar, stats):  # of an earlier run that wrote tars
                workspace.remove(path)
        table = pa.concat_tables(tables, promote_options="permissive")
        outputs.append(workspace.write_table(self._path(f"{unit.name}.parquet"), table))
        if self.tars:
            outputs.append(workspace.write_json(stats, {"successes": len(table)}))
        rows = sum(piece.stop - piece.start for piece in pieces)
        lost = rows - len(table)
        return Outcome(
            tuple(outputs), rows, len(table), {MISSING: lost} if lost else {}, {"successes": len(table)}
        )

    def finish(self, workspace: Workspace) -> None:
        """Write ``sizes.json``, ``sample_ids.npy``, the card and, last, ``metadata.json``."""
        sizes: dict[str, int] = {}
        for record in self._done(workspace):
            sizes[f"{record.unit}.tar"] = int(record.stats["successes"])
        steps = account(workspace, self.experiment, self.models, self.scorers)
        own = step_of(workspace, self.name)
        names = self._columns(workspace, sizes)
        facts = metadata(
            experiment=self.experiment,
            steps=steps + ([own] if own else []),
            funnel=funnel_of(workspace, self.experiment),
            models=model_cards(workspace, self.models),
            columns=names,
            sizes=sizes,
            tars=self.tars,
            digest=own.digest if own else "",
        )
        card = dataset_card(facts).encode()
        facts["card"] = hashlib.blake2b(card, digest_size=16).hexdigest()
        path = self._path("metadata.json")
        written = [self._path(n) for n in (SUBSET, "README.md", *(["sizes.json"] if self.tars else []))]
        text = msgspec.json.format(msgspec.json.encode(facts), indent=1) + b"\n"
        if (
            workspace.exists(path)
            and workspace.read_bytes(path) == text
            and all(map(workspace.exists, written))
        ):
            return
        workspace.remove(path)
        self._write_subset(workspace, sum(sizes.values()))
        if self.tars:
            workspace.write_json(self._path("sizes.json"), sizes)
        else:
            workspace.remove(self._path("sizes.json"))
        workspace.write_bytes(self._path("README.md"), card)
        workspace.write_bytes(path, text)

    def _path(self, name: str) -> str:
        return layout.export_file(self.experiment, name)

    def _families(self, base: Family) -> list[Family]:
        return [base, *map(Family.embeddings, self.models), *map(Family.scores, self.scorers)]

    def _inputs(self, shard: str, base: Family) -> list[str]:
        """Every file that an input shard brings to an output shard."""
        tar = [layout.image_tar(shard)] if self.tars else []
        tables = [family.path(shard) for family in self._families(base)]
        return [*tar, *tables]

    def _committed(self, workspace: Workspace) -> dict[str, FileRef]:
        store = RecordStore(workspace)
        families = self._families(base_family(workspace))
        stages = [f"filter/{self.experiment}", *(family.stage for family in families)]
        return {path: ref for stage in stages for path, ref in store.outputs(stage).items()}

    def _read_piece(self, workspace: Workspace, piece: Piece) -> pa.Table:
        columns = columns_of(workspace, piece.shard, self.models, self.scorers)
        samples = read_samples(workspace, piece.shard, in_order(columns), columns)
        selection = Selection(workspace, self.experiment).read(piece.shard)
        return selected(samples, selection, piece.start, piece.stop)

    def _write_piece(
        self, workspace: Workspace, piece: Piece, writer: TarWriter, committed: Mapping[str, FileRef]
    ) -> pa.Table:
        """Append the samples of a piece to a tar; returns the rows that had an image."""
        table = self._read_piece(workspace, piece)
        uids = table["uid"].to_pylist()
        rows = as_dicts(table, [n for n in table.column_names if n not in ONLY_IN_TABLES])
        path = layout.image_tar(piece.shard)
        kept: list[int] = []
        i = 0
        with workspace.verified(committed[path]) as local, local.open("rb") as stream:
            found = images_of(stream, list(dict.fromkeys(uids)), f"{workspace.url}/{path}")
            for uid, suffix, image in found:
                while uids[i] != uid:
                    i += 1
                while i < len(uids) and uids[i] == uid:
                    key = rows[i]["key"]
                    writer.add(f"{key}.{suffix}", image)
                    writer.add(f"{key}.txt", str(rows[i].get("text") or "").encode())
                    writer.add(f"{key}.json", msgspec.json.encode(rows[i]))
                    kept.append(i)
                    i += 1
        return table.take(pa.array(kept, pa.int64()))

    def _done(self, workspace: Workspace) -> Iterator[Record]:
        return (r for r in RecordStore(workspace).iterate(self.name) if not r.failed)

    def _columns(self, workspace: Workspace, sizes: dict[str, int]) -> dict[str, str]:
        """Column → Arrow type, of the first output shard."""
        for name in sizes:
            with workspace.parquet(self._path(name.removesuffix(".tar") + ".parquet")) as file:
                return {field.name: str(field.type) for field in file.schema_arrow}
        return {}

    def _write_subset(self, workspace: Workspace, rows: int) -> None:
        """The uids of what was written, sorted, a repeat as a duplicate: DataComp's ``u8,u8``."""
        with workspace.writing(self._path(SUBSET)) as temporary, temporary.open("wb") as stream:
            header = {
                "descr": np.lib.format.dtype_to_descr(SUBSET_DTYPE),
                "fortran_order": False,
                "shape": (rows,),
            }
            np.lib.format.write_array_header_1_0(stream, header)
            for record in self._done(workspace):
                table = workspace.read_table(self._path(f"{record.unit}.parquet"), ["uid"])
                stream.write(halves(table["uid"]).tobytes())
