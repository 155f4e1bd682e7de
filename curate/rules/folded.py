"""A pool whose columns lie one behind the other, in files that are mapped and not read.

An experiment wants a few columns of thousands of shards, and opening their tables takes longer than
judging them. So the first experiment that asks for a column writes all of it into one file, checked and
cleaned; the next ones map that file. A file is named after the tables it was made of: when one of them
changes, its name is another, and the old one goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.samples import BASES, base_family, family_path
from curate.dataset.workspace import Workspace
from curate.errors import DataError
from curate.rules.expressions import scan_type
from curate.rules.pool import BATCH_ROWS, Batch, Pool


class FoldedPool(Pool):
    """The samples of all shards; ``scan`` reads files of whole columns, which it makes when they are missing.

    Disk: 36 bytes a row for the uid, and what the columns that rules name take uncompressed. Memory:
    that of a batch; pages of a file are given back when a batch is done.
    """

    def scan(self, names: Sequence[str], batch_rows: int = BATCH_ROWS, uids: bool = True) -> Iterator[Batch]:
        """All shards in order, in batches of at least ``batch_rows`` rows.

        Raises:
            DataError: as ``Pool.scan``, when a column is read for the first time.
        """
        if not self.shards:
            return
        wanted = list(dict.fromkeys(["uid", *names]))
        paths = self._files(wanted)
        self._fold([name for name in wanted if not self.workspace.exists(paths[name])], paths)
        with ExitStack() as stack:
            files = [stack.enter_context(_opened(self.workspace, paths[name])) for name in wanted]
            held: list[pa.RecordBatch] = []
            shards: list[tuple[str, int]] = []
            for number, shard in enumerate(self.shards):
                held.append(pa.record_batch([file.batch(number) for file in files], names=wanted))
                shards.append((shard, held[-1].num_rows))
                last = number == len(self.shards) - 1
                if last or sum(rows for _, rows in shards) >= batch_rows:
                    yield Batch(pa.Table.from_batches(held), tuple(shards))
                    held, shards = [], []
                    for file in files:
                        file.release()

    def _files(self, names: Sequence[str]) -> dict[str, str]:
        """Name → path of the file that holds the column as it is now."""
        base = base_family(self.workspace)
        keys = {base: self._digest(base, "")}
        paths = {}
        for name in names:
            column = self.columns[name]
            if column.family not in keys:
                # Its rows are those of the base: when they change, so does every column.
                keys[column.family] = self._digest(column.family, keys[base])
            paths[name] = layout.folded_column(column.family, column.stored, keys[column.family])
        return paths

    def _digest(self, family: str, base: str) -> str:
        stage = BASES.get(family) or next(c.stage for c in self.columns.values() if c.family == family)
        refs = RecordStore(self.workspace).outputs(stage)
        hasher = hashlib.blake2b(base.encode(), digest_size=8)
        for shard in self.shards:
            path = family_path(family, shard)
            hasher.update(f"{path}\0{refs[path].digest}\n".encode())
        return hasher.hexdigest()

    def _fold(self, names: Sequence[str], paths: Mapping[str, str]) -> None:
        """Write the columns that are missing, all in one pass over their tables."""
        if not names:
            return
        schemas = {name: pa.schema([(name, _plain(self.columns[name].type))]) for name in names}
        with ExitStack() as stack:
            writers = {}
            for name, schema in schemas.items():
                self._remove_older(paths[name])
                temporary = stack.enter_context(self.workspace.writing(paths[name]))
                stream = stack.enter_context(pa.OSFile(str(temporary), "wb"))
                writers[name] = stack.enter_context(pa.ipc.new_file(stream, schema))
            for _, table in self._parts(names, uids=True):
                for name, schema in schemas.items():
                    values = table[name].cast(schema.field(0).type).combine_chunks()
                    writers[name].write_batch(pa.record_batch([values], schema=schema))

    def _remove_older(self, path: str) -> None:
        """The same column as it was when its tables were others."""
        stem = path.rpartition("-")[0]
        for other in self.workspace.sizes(path.rpartition("/")[0]):
            if other.rpartition("-")[0] == stem:
                self.workspace.remove(other)


class _Mapped:
    """One column: a batch for every shard."""

    def __init__(self, local: Path, place: str) -> None:
        with local.open("rb") as stream:
            self._memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._batches = pa.ipc.open_file(pa.py_buffer(self._memory))
        except pa.ArrowException as error:
            raise DataError(f"{place}: cannot be read ({error}); remove it, it is made again") from None

    def batch(self, number: int) -> pa.Array:
        """The column of one shard; its memory is the file's."""
        return self._batches.get_batch(number).column(0)

    def release(self) -> None:
        """Give back the pages that were read; who reads on gets them again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED)


@contextlib.contextmanager
def _opened(workspace: Workspace, path: str) -> Iterator[_Mapped]:
    with workspace.local(path) as local:
        yield _Mapped(local, f"{workspace.url}/{path}")


def _plain(stored: pa.DataType) -> pa.DataType:
    """What a file of batches can hold: dictionaries may differ from shard to shard."""
    kind = scan_type(stored)
    return kind.value_type if pa.types.is_dictionary(kind) else kind
