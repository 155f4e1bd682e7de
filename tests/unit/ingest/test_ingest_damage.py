"""What of a WAT file survives damage, against a slow account of the members that are whole."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fastwarc import ArchiveIterator, WarcRecordType

from curate.demo.wat import write_wats
from curate.demo.world import World, WorldConfig
from curate.ingest import unpack as unpack_module
from curate.ingest.inputs import check_complete
from curate.ingest.unpack import Gap, Text, unpack
from curate.ingest.warc import iter_metadata
from curate.ingest.wat import iter_wat_batches
from curate.reasons import IngestReason
from tests.unit.ingest.damage import (
    MEMBERS,
    PACKINGS,
    Packed,
    Page,
    damage,
    gzip_member,
    pack,
    pages_of,
    readable_members,
    records_of,
    surviving_records,
    unpack_all,
)
from tests.unit.ingest.wat_files import img, page, read, warc_record, wat

SEEDS = 150

DAMAGED, TRUNCATED = IngestReason.DAMAGED_RECORD, IngestReason.TRUNCATED_INPUT
UNREADABLE = IngestReason.UNREADABLE_RECORD


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The records of a WAT file of the demo web."""
    (path,) = write_wats(World(WorldConfig(images=60)), tmp_path_factory.mktemp("wat"), files=1)
    return records_of(unpack_all(path.read_bytes()))


@pytest.fixture(scope="module")
def pages(records: list[bytes]) -> list[list[Page]]:
    """What each record gives when it is alone."""
    found = [pages_of(record)[0] for record in records]
    urls = [url for of_record in found for url, _ in of_record]
    assert len(urls) == len(set(urls)) > 20
    return found


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_undamaged_file_is_read_whole(packing: str, records: list[bytes], pages: list[list[Page]]) -> None:
    found, counts, stats = pages_of(PACKINGS[packing](records).data)
    assert found == [each for of_record in pages for each in of_record]
    assert not {DAMAGED, TRUNCATED} & set(counts)
    assert not stats.get("bytes_lost")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_damage_costs_what_it_touches(
    packing: str, seed: int, records: list[bytes], pages: list[list[Page]]
) -> None:
    packed = PACKINGS[packing](records)
    damaged = damage(packed.data, random.Random(f"{packing}/{seed}"))
    found, counts, stats = pages_of(bytes(damaged.data))
    expected = [each for n in surviving_records(packed, damaged) for each in pages[n]]
    due = {url for url, _ in expected}
    assert [each for each in found if each[0] in due] == expected
    if packing in ("member per record", "flushed members"):
        originals = [each for of_record in pages for each in of_record]
        assert all(each in originals for each in found), "a record comes out as it was, or not at all"
        assert len(found) == len({url for url, _ in found})
        check_account(packed, bytes(damaged.data), readable_members(packed, damaged), counts, stats)
    if stats.get("bytes_lost"):
        assert counts.get(DAMAGED, 0) + counts.get(TRUNCATED, 0) > 0


def check_account(
    packed: Packed,
    data: bytes,
    readable: list[tuple[int, int, int]],
    counts: dict[str, int],
    stats: dict[str, int],
) -> None:
    """Every stretch between two members that can be read is counted, with its bytes."""
    gaps, end = [], 0
    for start, stop, _ in readable:
        if data[end:start].strip(b"\0"):
            gaps.append(start - end)
        end = stop
    assert counts.get(DAMAGED, 0) == len(gaps)
    rest = data[end:].strip(b"\0")
    assert counts.get(TRUNCATED, 0) == bool(rest)
    if not rest and not any(member in data for member in MEMBERS):
        assert stats["bytes_lost"] == sum(gaps)


PAGES = [page([img(f"https://e.com/{n}.jpg", f"photo {n}")]) for n in range(9)]


def numbers(data: bytes) -> tuple[list[int], dict[str, int]]:
    """Which of the nine pages come out, and the counts."""
    rows, counts = read(data)
    return [int(row["text"].removeprefix("photo ")) for row in rows], counts


def without(*lost: int) -> list[int]:
    return [n for n in range(9) if n not in lost]


PLAIN = wat(*PAGES)
RECORDS = records_of(PLAIN)


def edited(number: int, change: Callable[[bytes], bytes]) -> list[bytes]:
    """The records, that of one page changed."""
    return [change(record) if at == number + 1 else record for at, record in enumerate(RECORDS)]


def with_length(change: Callable[[int], object]) -> Callable[[bytes], bytes]:
    def edit(record: bytes) -> bytes:
        head, _, rest = record.partition(b"Content-Length: ")
        length, _, rest = rest.partition(b"\r\n")
        return b"".join((head, b"Content-Length: ", str(change(int(length))).encode(), b"\r\n", rest))

    return edit


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_length(lambda n: n + 100), DAMAGED),
        (with_length(lambda n: n - 10), DAMAGED),
        (with_length(lambda n: n + 1_000_000), DAMAGED),
        (with_length(lambda n: 10**9), UNREADABLE),
        (with_length(lambda n: 10**17), UNREADABLE),
        (with_length(lambda n: "9" * 5000), DAMAGED),
        (with_length(lambda n: -n), DAMAGED),
        (with_length(lambda n: ""), DAMAGED),
        (with_length(lambda n: f"{n}x"), DAMAGED),
        (with_length(lambda n: n + len(RECORDS[5])), DAMAGED),  # the next record, to its end
        (lambda record: record.replace(b"Content-Length", b"Content-Lengti"), DAMAGED),
        (lambda record: record.replace(b"WARC/1.0", b"XARC/1.0"), DAMAGED),
        (lambda record: record.replace(b"WARC/1.0", b"WARC/x.0"), DAMAGED),
        (lambda record: record.replace(b"\r\n\r\n", b"\r\n", 1), DAMAGED),
        (lambda record: record[:120], DAMAGED),
        (lambda record: record[120:], DAMAGED),
        (lambda record: record[:-40], DAMAGED),
        (lambda record: b"junk" * 3000, DAMAGED),
        (lambda record: b"WARC/1.0\r\n" + b"a: b\r\n" * 20_000, DAMAGED),
    ],
)
def test_a_malformed_record_costs_itself(
    packing: str, change: Callable[[bytes], bytes], reason: IngestReason
) -> None:
    # The members are whole: it was written like that.
    assert numbers(PACKINGS[packing](edited(4, change)).data) == (without(4), {reason: 1})


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.replace(b"\r\n", b"\n"),
        lambda record: (
            record.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"\n")
            + b"\n\n"
            + record.partition(b"\r\n\r\n")[2]
        ),
        lambda record: record.removesuffix(b"\r\n\r\n") + b"\n",
        lambda record: record.removesuffix(b"\r\n\r\n"),
        lambda record: record + b"\r\n\n\r\n",
        with_length(lambda n: n + 2),  # with the line end behind it
        lambda record: record.replace(b"WARC/1.0", b"WARC/1.1").replace(
            b"Content-Length: ", b"CONTENT-LENGTH:"
        ),
        lambda record: record.replace(b"WARC-Type: metadata", b"warc-type:  Metadata "),
    ],
)
def test_variants_of_a_record_are_read(packing: str, change: Callable[[bytes], bytes]) -> None:
    assert numbers(PACKINGS[packing](edited(4, change)).data) == (without(), {})
    everywhere = [change(record) for record in RECORDS]
    assert numbers(PACKINGS[packing](everywhere).data) == (without(), {})


def test_a_gzip_file_whose_first_bytes_are_damaged_is_still_one() -> None:
    data = PACKINGS["member per record"](RECORDS).data
    assert numbers(b"\x1e" + data[1:]) == (without(), {DAMAGED: 1}), "the first record is the file's own"
    assert numbers(data[9:]) == (without(), {DAMAGED: 1})
    assert numbers(b"<html>" + data) == (without(), {DAMAGED: 1})


def test_a_damaged_member_that_runs_to_the_end_of_the_file_takes_none_with_it() -> None:
    # A stored block is said to be longer than it is, so that it unpacks over all members behind it.
    members = [gzip_member(record) for record in RECORDS]
    text = RECORDS[5]
    size = len(text) + sum(map(len, members[6:])) + 1000
    overrun = (
        gzip_member(b"")[:10] + b"\x01" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")
    )
    members[5] = overrun + text + bytes(8)
    assert numbers(b"".join(members)) == (without(4), {DAMAGED: 1})


def test_zeros_between_members_are_padding_and_other_bytes_are_not() -> None:
    members = [gzip_member(record) for record in RECORDS]
    assert numbers(bytes(700).join(members) + bytes(512)) == (without(), {})
    stats: Counter[str] = Counter()
    rows, counts = read(members[0] + bytes(100) + b"x" + b"".join(members[1:]), stats=stats)
    assert (len(rows), counts, stats) == (9, {DAMAGED: 1}, {"bytes_lost": 101})
    assert numbers(bytes(1000)) == ([], {TRUNCATED: 1})


def long_members(monkeypatch: pytest.MonkeyPatch, text: int) -> None:
    """Members are too long to be held from ``text`` bytes on."""
    monkeypatch.setattr(unpack_module, "MAX_HELD_TEXT", text)
    monkeypatch.setattr(unpack_module, "_SEGMENT", text // 2)  # what damage may swallow of the next members
    monkeypatch.setattr(unpack_module, "_STEP", 1000)
    monkeypatch.setattr(unpack_module, "_TRIAL", 0)  # of these small files, not much is read in vain


def noisy(numbered: int) -> bytes:
    """A record that does not pack well."""
    noise = random.Random(numbered).randbytes(2000).hex()
    body = {**page([img(f"https://e.com/{numbered}.jpg", f"photo {numbered}")]), "noise": noise}
    return warc_record(json.dumps(body).encode())


def test_a_long_member_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [noisy(n) for n in range(9)]
    packed = PACKINGS["one member"](records).data
    long_members(monkeypatch, 12_000)
    assert numbers(packed) == (without(), {})
    assert numbers(packed + packed)[0] == without() + without()
    wrong = packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:]
    assert numbers(wrong) == (without(8), {TRUNCATED: 1}), "the last waits for the checksum"
    found, counts = numbers(packed[: len(packed) * 3 // 4])
    assert found == without()[: len(found)]
    assert len(found) > 4
    assert counts == {TRUNCATED: 1}
    broken = packed[: len(packed) * 3 // 4] + b"\xff" * 50 + packed[len(packed) * 3 // 4 + 50 :]
    found, counts = numbers(broken + gzip_member(noisy(30)))
    assert found == [*without()[: len(found) - 1], 30]
    assert len(found) > 5
    assert counts[DAMAGED] == 1
    assert TRUNCATED not in counts


@pytest.mark.parametrize("seed", range(60))
def test_damage_in_and_around_long_members(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [noisy(n) for n in range(135)]
    short = {*range(60, 65), *range(125, 135)}
    members = [b"".join(records[:60]), *records[60:65], b"".join(records[65:125]), *records[125:]]
    packed = pack(records, members)
    damaged = damage(packed.data, random.Random(seed))
    long_members(monkeypatch, 200_000)
    survivors = [f"photo {n}" for n in surviving_records(packed, damaged) if n in short]
    found = iter(row["text"] for row in read(bytes(damaged.data))[0])
    # In order; those of a damaged long member may be wrong, and so also repeat others.
    assert all(text in found for text in survivors)


def test_a_failed_read_is_no_damage(records: list[bytes]) -> None:
    for packing in PACKINGS.values():
        data = packing(records).data

        class Breaks(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() >= 3000:
                    raise TimeoutError("the store went away")
                return super().read(min(size or 0, 1000))

        counts: Counter[str] = Counter()
        stats: Counter[str] = Counter()
        with pytest.raises(TimeoutError, match="went away"):
            list(iter_wat_batches(Breaks(data), batch_rows=10, counts=counts, stats=stats))
        assert not {DAMAGED, TRUNCATED} & set(counts)
        assert not stats["bytes_lost"]


def test_a_store_that_gives_less_than_there_is_has_failed() -> None:
    class Short(io.BytesIO):
        size = 100

    stream = Short(b"x" * 90)
    stream.read()
    with pytest.raises(OSError, match=r"s3://b/x.wat.gz: only 90 of 100 bytes came"):
        check_complete(stream, "s3://b/x.wat.gz")
    check_complete(io.BytesIO(b"x"), "no size is said")
    whole = Short(b"x" * 100)
    whole.read()
    check_complete(whole, "all came")


def test_reads_of_any_size_give_the_same(records: list[bytes]) -> None:
    class Trickles(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    for seed, packing in enumerate(PACKINGS.values()):
        data = bytes(damage(packing(records[:8]).data, random.Random(seed)).data)
        counts: Counter[str] = Counter()
        batches = list(iter_wat_batches(Trickles(data), batch_rows=1000, counts=counts))
        rows = [row for batch in batches for row in batch.to_pylist()]
        assert (rows, dict(counts)) == read(data)


def test_bodies_are_those_that_fastwarc_reads(fixtures_dir: Path) -> None:
    compared = 0
    for path in [*(fixtures_dir / "wat").iterdir(), *(fixtures_dir / "warc").rglob("*.warc*")]:
        data = path.read_bytes()
        counts: Counter[str] = Counter()
        ours = list(iter_metadata(io.BytesIO(data), counts, Counter(), max_record_bytes=1 << 27))
        if counts:
            continue
        found = ArchiveIterator(io.BytesIO(data), record_types=WarcRecordType.metadata, parse_http=False)
        assert ours == [record.reader.read() for record in found], path.name
        compared += len(ours)
    assert compared > 10


RANDOM = random.Random(0).randbytes(1 << 20)
EMPTY_STORED = b"\x00\x00\x00\xff\xff"

MB = 1 << 20
GARBAGE: dict[str, tuple[bytes, bytes, int]] = {
    "noise": (b"", RANDOM, 50 * MB),
    "noise that begins as gzip": (gzip_member(b"")[:10], RANDOM, 50 * MB),
    "zeros": (b"", bytes(MB), 50 * MB),
    "zeros that begin as gzip": (b"\x1f\x8b", bytes(MB), 50 * MB),
    "beginnings of members": (b"", gzip_member(b"")[:10] * 10_000, MB),
    "members that break off": (b"", (gzip_member(b"")[:10] + EMPTY_STORED * 99 + b"\xff" * 9) * 200, 3 * MB),
    "a long member": (gzip_member(b"")[:10], b"\x00\x00\x80\xff\x7f" + RANDOM[:32768], 50 * MB),
    "beginnings of records": (b"WARC/1.0\r\n", b"a:WARC/1.0\r\n" * 80_000, 50 * MB),
    "records without a length": (b"", b"WARC/1.0\r\na: b\r\n\r\n" * 10_000, MB),
    "a record said to be long": (b"WARC/1.0\r\nContent-Length: 9000000\r\n\r\n", b"x" * MB, 50 * MB),
    "a record said to be too long": (b"WARC/1.0\r\nContent-Length: 1000000000\r\n\r\n", b"x" * MB, 50 * MB),
    "records said to be long": (b"", b"WARC/1.0\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 20_000, 50 * MB),
    "one line": (b"WARC/1.0\r\nA: ", b"x" * MB, 50 * MB),
}


class Repeated(io.RawIOBase):
    """A file of a beginning and a part that comes again and again, made as it is read."""

    def __init__(self, begin: bytes, part: bytes, size: int) -> None:
        self.rest, self.part, self.left = begin, part, size - len(begin)

    def read(self, size: int = -1, /) -> bytes:
        while len(self.rest) < size and self.left > 0:
            self.rest += self.part
            self.left -= len(self.part)
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_ends_and_takes_no_memory(kind: str) -> None:
    begin, part, large = GARBAGE[kind]

    def peak(size: int) -> int:
        counts: Counter[str] = Counter()
        tracemalloc.start()
        stream = Repeated(begin, part, size)
        bodies = list(iter_metadata(stream, counts, Counter(), max_record_bytes=10 * MB))
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert bodies == []
        return held

    assert peak(large) < peak(large // 3) + 4 * MB


def test_a_bomb_takes_no_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = b"WARC/1.0\r\nWARC-Type: metadata\r\nContent-Length: 300000000\r\n\r\n"
    bomb = (
        packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(287)) + packer.flush()
    )
    data = bomb + PACKINGS["member per record"](RECORDS).data
    tracemalloc.start()
    found, counts = numbers(data)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found, counts) == (without(), {UNREADABLE: 1})
    assert held < 80 << 20


def test_pieces_hold_all_text_and_nothing_twice(records: list[bytes]) -> None:
    text = b"".join(records)
    for packing in PACKINGS.values():
        pieces = list(unpack(io.BytesIO(packing(records).data)))
        assert all(isinstance(piece, Text) for piece in pieces)
        assert b"".join(piece.data for piece in pieces if isinstance(piece, Text)) == text
        assert isinstance(pieces[-1], Text)
        assert pieces[-1].checked
    members = [gzip_member(record) for record in records]
    members[3] = members[3][:-8] + b"wrong!!!"
    pieces = list(unpack(io.BytesIO(b"".join(members))))
    assert [piece for piece in pieces if isinstance(piece, Gap)] == [Gap(len(members[3]))]
    whole = text.replace(records[3], b"")
    assert b"".join(piece.data for piece in pieces if isinstance(piece, Text)) == whole
    saved = list(unpack(io.BytesIO(b"".join(members)), salvage=True))
    assert b"".join(piece.data for piece in saved if isinstance(piece, Text)).startswith(
        text[: len(b"".join(records[:3]))]
    )
