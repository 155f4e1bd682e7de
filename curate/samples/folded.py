"""A pool whose columns lie one behind the other, in files that are mapped and not read.

An experiment wants a few columns of thousands of shards, and opening their tables takes longer than
judging them. So the first experiment that asks for a column writes all of it into one file, checked and
cleaned; the next ones map that file. A file is named after the tables it was made of: when one of them
changes, its name is another, and the old one goes. It has the batches of a scan, and with each how many
of its rows are of which shard; texts of which there are few, as languages, are numbers and a dictionary.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pyarrow as pa

from curate.dataset import layout
from curate.dataset.family import TABLES, Family, base_family
from curate.dataset.records import RecordStore
from curate.dataset.uid import packed
from curate.dataset.workspace import Workspace
from curate.errors import DataError
from curate.samples.column_file import FEW, ColumnWriter, Part, column_parts
from curate.samples.pool import Batch, Pool, Uids
from curate.samples.tables import TablesPool
from curate.samples.types import plain_type

_FORMAT = 3
_RAW = "uid\0raw"
"""Stands for the uid as ``HALVES``."""


class Folding(Pool):
    """A pool whose ``scan`` reads files of whole columns, which it makes when they are missing.

    Disk: 16 bytes a row for the uid, 36 more when rules want it as text, and what the columns that rules
    name take uncompressed. Memory: that of a batch; pages of a file are given back when a batch is done.
    """

    @abstractmethod
    def _files(self, names: Sequence[str]) -> dict[str, str]:
        """Name → path of the file that holds the column as it is now."""

    def scan(self, names: Sequence[str], uids: Uids = Uids.TEXT) -> Iterator[Batch]:
        """All shards in order, in batches.

        Raises:
            DataError: as ``Pool.scan``, when a column is read for the first time.
        """
        if not self.shards:
            return
        raw = uids is not Uids.TEXT and "uid" not in names
        wanted = list(dict.fromkeys(names if names and uids is Uids.NONE else ["uid", *names]))
        files = {name: _RAW if name == "uid" and raw else name for name in wanted}
        paths = self._files(list(files.values()))
        self._fold([name for name in files.values() if not self._is_whole(name, paths[name])], paths)
        with ExitStack() as stack:
            mapped = [stack.enter_context(_opened(self.workspace, paths[f], f)) for f in files.values()]
            shards = iter(self.shards)
            for parts in zip(*mapped, strict=True):
                rows = parts[0].rows
                yield Batch(
                    pa.table([part.values for part in parts], names=wanted),
                    tuple(zip(islice(shards, len(rows)), rows, strict=True)),
                )
                for file in mapped:
                    file.release()

    def _is_whole(self, name: str, path: str) -> bool:
        """Whether a column's file is there. One that cannot be read goes: it is made again."""
        if not self.workspace.exists(path):
            return False
        try:
            with _opened(self.workspace, path, name):
                return True
        except DataError:
            self.workspace.remove_tree(path)  # whatever it is
            return False

    def _fold(self, names: Sequence[str], paths: Mapping[str, str]) -> None:
        """Write the columns that are missing, all in one pass over their tables."""
        if not names:
            return
        with ExitStack() as stack:
            writers = {}
            for name in names:
                self._remove_older(paths[name])
                # Rules want uids as plain strings, also those of a small pool.
                few = FEW if name != "uid" else -1
                temporary = stack.enter_context(self.workspace.writing(paths[name]))
                writers[name] = stack.enter_context(contextlib.closing(ColumnWriter(temporary, name, few)))
            uids = Uids.RAW if _RAW in names else Uids.NONE
            for batch in super().scan([name for name in names if name != _RAW], uids):
                rows = [rows for _, rows in batch.shards]
                for name, writer in writers.items():
                    if name == _RAW:
                        writer.add(pa.chunked_array([packed(batch.table["uid"])]), rows)
                    else:
                        writer.add(batch.table[name].cast(plain_type(self.columns[name].type)), rows)

    def _remove_older(self, path: str) -> None:
        """The same column as it was when its tables were others."""
        stem = path.rpartition("-")[0]
        for other in self.workspace.sizes(path.rpartition("/")[0]):
            if other.rpartition("-")[0] == stem:
                self.workspace.remove(other)


class FoldedPool(Folding):
    """The samples of all shards of a workspace."""

    def _files(self, names: Sequence[str]) -> dict[str, str]:
        base = base_family(self.workspace)
        keys = {base: self._digest(base, "")}
        paths = {}
        for name in names:
            family, stored = (
                (base, _RAW) if name == _RAW else (self.columns[name].family, self.columns[name].stored)
            )
            if family not in keys:
                # Its rows are those of the base: when they change, so does every column.
                keys[family] = self._digest(family, keys[base])
            paths[name] = layout.folded_column(family, stored, keys[family])
        return paths

    def _digest(self, family: Family, base: str) -> str:
        refs = RecordStore(self.workspace).outputs(family.stage)
        hasher = hashlib.blake2b(f"{base}\0{_FORMAT}\0{self.batch_rows}\n".encode(), digest_size=8)
        for shard in self.shards:
            path = family.path(shard)
            hasher.update(f"{path}\0{refs[path].digest}\n".encode())
        return hasher.hexdigest()


class FoldedTables(Folding, TablesPool):
    """The rows of published tables, and what was computed from them."""

    def _files(self, names: Sequence[str]) -> dict[str, str]:
        key = hashlib.blake2b(f"{self.digest}\0{_FORMAT}\0{self.batch_rows}".encode(), digest_size=8)
        return {name: layout.folded_column(TABLES, name, key.hexdigest()) for name in names}


class _Mapped:
    """One column."""

    def __init__(self, local: Path, place: str, name: str) -> None:
        self._place = place
        with self._explained():
            with local.open("rb") as stream:
                self._memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._parts = column_parts(pa.py_buffer(self._memory), name)

    def __iter__(self) -> Iterator[Part]:
        while True:
            with self._explained():
                part = next(self._parts, None)
            if part is None:
                return
            yield part

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DataError(f"{self._place}: cannot be read ({error}); remove it, it is made again") from None

    def release(self) -> None:
        """Give back the pages that were read; who reads on gets them again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED)


@contextlib.contextmanager
def _opened(workspace: Workspace, path: str, name: str) -> Iterator[_Mapped]:
    with workspace.local(path) as local:
        yield _Mapped(local, f"{workspace.url}/{path}", name)
