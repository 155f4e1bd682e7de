"""WAT files of the demo web, damage to them, and a slow plain account of what must survive it."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.unit.ingest.wat_files import read

Page = tuple[str, tuple[tuple[Any, ...], ...]]
"""The URL of a page and its rows."""


def records_of(text: bytes) -> list[bytes]:
    """The records of an undamaged WARC file."""
    found = []
    while text:
        head = text.partition(b"\r\n\r\n")[0]
        (length,) = (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
        size = len(head) + 4 + length + 4
        assert text[size - 4 : size] == b"\r\n\r\n"
        found.append(text[:size])
        text = text[size:]
    return found


def gzip_member(text: bytes, flush_every: int = 0) -> bytes:
    """One gzip member, with nothing of its own in the header; flushed now and then if asked."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    step = flush_every or len(text) or 1
    parts = []
    for start in range(0, len(text), step):
        parts += [packer.compress(text[start : start + step])]
        if flush_every:
            parts.append(packer.flush(zlib.Z_FULL_FLUSH if start % 2 else zlib.Z_SYNC_FLUSH))
    return b"".join([*parts, packer.flush()])


def unpack_all(data: bytes) -> bytes:
    """The text of an undamaged gzip file."""
    texts = []
    while data:
        member = zlib.decompressobj(wbits=31)
        texts.append(member.decompress(data))
        assert member.eof
        data = member.unused_data
    return b"".join(texts)


def pages_of(data: bytes) -> tuple[list[Page], dict[str, int], Counter[str]]:
    """What comes of a file, page by page, with the counts and the statistics."""
    stats: Counter[str] = Counter()
    rows, counts = read(data, stats=stats)
    pages = []
    for url, of_page in groupby(rows, key=lambda row: row["page_url"]):
        pages.append((url, tuple(tuple(row.values()) for row in of_page)))
    return pages, counts, stats


@dataclass
class Packed:
    """A file, the members it is made of, and the records in their text. A plain file has no members."""

    data: bytes
    records: list[bytes]
    members: list[tuple[int, int]] = field(default_factory=list)
    """Where each begins and ends."""
    texts: list[tuple[int, int]] = field(default_factory=list)
    """Where the text of each begins and ends in that of the file."""

    @property
    def record_places(self) -> Iterator[tuple[int, int]]:
        """Where each record begins and ends in the text."""
        end = 0
        for record in self.records:
            yield end, end + len(record)
            end += len(record)


def pack(records: list[bytes], texts: list[bytes], flush_every: int = 0) -> Packed:
    """Records as a gzip file whose members have these texts."""
    assert b"".join(texts) == b"".join(records)
    packed = Packed(b"", records)
    stored = unpacked = 0
    for text in texts:
        member = gzip_member(text, flush_every)
        packed.data += member
        packed.members.append((stored, stored + len(member)))
        packed.texts.append((unpacked, unpacked + len(text)))
        stored += len(member)
        unpacked += len(text)
    return packed


def _chunks(records: list[bytes], size: int) -> list[bytes]:
    text = b"".join(records)
    return [text[at : at + size] for at in range(0, len(text), size)]


PACKINGS: dict[str, Callable[[list[bytes]], Packed]] = {
    "plain": lambda records: Packed(b"".join(records), records),
    "member per record": lambda records: pack(records, records),
    "flushed members": lambda records: pack(records, records, flush_every=300),
    "three records a member": lambda records: pack(
        records, [b"".join(records[at : at + 3]) for at in range(0, len(records), 3)]
    ),
    "members across records": lambda records: pack(records, _chunks(records, 1700)),
    "one member": lambda records: pack(records, [b"".join(records)]),
}


@dataclass
class Damaged:
    """A damaged file; ``origin`` says of each byte where in the undamaged file it was, -1 for a new one."""

    data: bytearray
    origin: npt.NDArray[np.int64]

    @classmethod
    def of(cls, data: bytes) -> Damaged:
        return cls(bytearray(data), np.arange(len(data)))

    def replace(self, start: int, end: int, new: bytes) -> None:
        self.data[start:end] = new
        fresh = np.full(len(new), -1)
        self.origin = np.concatenate([self.origin[:start], fresh, self.origin[end:]])

    def swap(self, a: int, b: int, c: int, d: int) -> None:
        order = [slice(0, a), slice(c, d), slice(b, c), slice(a, b), slice(d, None)]
        self.data = bytearray(b"".join(bytes(self.data[part]) for part in order))
        self.origin = np.concatenate([self.origin[part] for part in order])

    def place(self, start: int, end: int) -> int | None:
        """Where a range of the undamaged file is now; None if it is not whole."""
        at = np.flatnonzero(self.origin == start)
        if not len(at) or not np.array_equal(self.origin[at[0] :][: end - start], np.arange(start, end)):
            return None
        return int(at[0])


MEMBERS = tuple(
    gzip_member(text)
    for text in (b"", b"WARC/1.0 is not enough", b"WARC/1.0\r\nContent-Length: 99999999\r\n\r\n" * 9)
)
"""Whole members that hold no record."""
TEASERS = (
    *MEMBERS,
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    gzip_member(b"WARC/1.0\r\nContent-Length: 99999999\r\n\r\n" * 9)[:45],
    b"WARC/1.0\r\nContent-Length: 5\r\n",
    b"WARC/1.0\r\nWARC-Type: metadata\r\n\r\n",
    b"WARC/1.0\r\nWARC-Type: metadata\r\nContent-Length: 1000000000\r\n\r\n",
    b"\r\n\r\n",
    b"\n",
)


def damage(data: bytes, rng: random.Random) -> Damaged:
    """One to four random mishaps."""
    found = Damaged.of(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        size = len(found.data)
        start = rng.randrange(size)
        end = min(size, start + int(rng.choice((1, 4, 50, 500, 3000)) * rng.random()) + 1)
        kind = rng.choice(("flip", "flip", "overwrite", "delete", "insert", "insert", "tease", "cut", "swap"))
        if kind == "flip":
            found.replace(start, start + 1, bytes([found.data[start] ^ 1 << rng.randrange(8)]))
        elif kind == "overwrite":
            found.replace(start, end, rng.choice((rng.randbytes(end - start), bytes(end - start))))
        elif kind == "delete":
            found.replace(start, end, b"")
        elif kind == "insert":
            found.replace(start, start, rng.randbytes(end - start))
        elif kind == "tease":
            found.replace(start, start, rng.choice(TEASERS))
        elif kind == "cut" and rng.random() < 0.3:
            found.replace(start, size, b"")
        elif kind == "swap" and size > 4:
            found.swap(*sorted(rng.sample(range(size), 4)))
        if not found.data:
            return Damaged.of(data)
    return found


def surviving_records(packed: Packed, damaged: Damaged) -> list[int]:
    """Numbers of the records whose bytes, and for gzip whose members, are all there, in order of the file."""
    if not packed.members:
        places = [(damaged.place(*place), n) for n, place in enumerate(packed.record_places)]
        return [n for at, n in sorted((at, n) for at, n in places if at is not None)]
    survivors = []
    for run in _runs(packed, damaged):
        first, last = packed.texts[run[0]][0], packed.texts[run[-1]][1]
        survivors += [
            n for n, (start, end) in enumerate(packed.record_places) if first <= start and end <= last
        ]
    return survivors


def _runs(packed: Packed, damaged: Damaged) -> list[list[int]]:
    """Whole members, in order of the damaged file, in groups that follow upon each other as they should."""
    places = [(damaged.place(*member), n) for n, member in enumerate(packed.members)]
    found = sorted((at, n) for at, n in places if at is not None)
    runs = [[found[0][1]]] if found else []
    for (at, n), (after, m) in pairwise(found):
        start, end = packed.members[n]
        if m == n + 1 and after == at + end - start:
            runs[-1].append(m)
        else:
            runs.append([m])
    return runs


def readable_members(packed: Packed, damaged: Damaged) -> list[tuple[int, int, int]]:
    """Begin, end and number of the members that still unpack to their text, in order of the damaged file.

    Some changes do no harm: the time in a header, for example.
    """
    text = b"".join(packed.records)
    found = []
    for n, (start, _) in enumerate(packed.members):
        # Its first bytes may be damaged as well: look wherever it could begin.
        near = np.flatnonzero((damaged.origin >= start) & (damaged.origin < start + 10))
        offsets = damaged.origin[near] - start
        for at in {int(a - o) for a, o in zip(near, offsets, strict=True) if a >= o}:
            member = zlib.decompressobj(wbits=31)
            rest = bytes(damaged.data[at:])
            try:
                same = member.decompress(rest) == text[slice(*packed.texts[n])]
            except zlib.error:
                continue
            if same and member.eof:
                found.append((at, len(damaged.data) - len(member.unused_data), n))
                break
    return sorted(found)
