"""What every store has to hold; see ``curate.dataset.stores.protocol.Store``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dataset.stores.protocol import Store


class StoreContract:
    """Override ``opened``: a function that opens one empty place anew, as another process would."""

    @pytest.fixture
    def opened(self) -> Callable[[], Store]:
        """Opens the place under test. Each call gives a store that shares no state with the others."""
        raise TypeError("override the fixture `opened`")

    @pytest.fixture
    def store(self, opened: Callable[[], Store]) -> Store:
        """A store of an empty place."""
        return opened()

    def test_a_file_is_what_was_written(self, store: Store) -> None:
        """Also in folders that were not there before."""
        put(store, "a/deep/two.bin", b"22")
        with store.open("a/deep/two.bin") as stream:
            assert stream.read() == b"22"
            stream.seek(1)
            assert stream.read() == b"2"

    def test_a_file_that_is_not_there(self, store: Store) -> None:
        """Is FileNotFoundError, whoever asks; removing it is fine."""
        put(store, "a/b.bin", b"1")
        for missing in ("none.bin", "none/b.bin", "a/b"):
            assert not store.exists(missing)
            with pytest.raises(FileNotFoundError), store.open(missing):
                pass
            with pytest.raises(FileNotFoundError), store.parquet(missing):
                pass
            with pytest.raises(FileNotFoundError), store.local(missing):
                pass
            store.remove(missing)
            store.remove_tree(missing)
        assert store.sizes("") == {}
        assert store.sizes("a") == {"a/b.bin": 1}

    def test_listings(self, store: Store) -> None:
        """Tell files from folders, one level from all levels, and paths from names."""
        put(store, "a/one.bin", b"1")
        put(store, "a/deep/two.bin", b"22")
        put(store, "ab/other.bin", b"")
        put(store, "three.bin", b"333")
        assert store.sizes("") == {"three.bin": 3}
        assert store.sizes("a") == {"a/one.bin": 1}
        assert store.sizes("ab") == {"ab/other.bin": 0}
        assert store.sizes("none") == {} == store.sizes("three.bin")
        assert folders(store) == ["a", "ab"]
        assert store.folders("a") == ["deep"]
        assert store.folders("none") == []
        assert sorted(store.below("a")) == ["deep/two.bin", "one.bin"]
        assert store.below("none") == []
        assert store.exists("")
        assert store.exists("a")
        assert store.exists("a/deep/two.bin")

    def test_a_new_file_replaces_an_old_one(self, store: Store) -> None:
        """Whole, whatever their sizes."""
        put(store, "f.bin", b"long before")
        put(store, "f.bin", b"now")
        assert read(store, "f.bin") == b"now"
        assert store.sizes("") == {"f.bin": 3}

    def test_writing_that_fails_leaves_what_was_there(self, store: Store) -> None:
        """And nothing else anywhere."""
        put(store, "a/f.bin", b"before")
        for path in ("a/f.bin", "a/new.bin", "b/new.bin"):
            with pytest.raises(RuntimeError):
                _fail_while_writing(store, path)
        assert read(store, "a/f.bin") == b"before"
        assert store.sizes("a") == {"a/f.bin": 6}
        assert not store.exists("a/new.bin")
        assert not store.exists("b/new.bin")

    def test_a_file_is_not_seen_before_it_is_whole(self, store: Store, opened: Callable[[], Store]) -> None:
        """By whoever looks from another process."""
        with store.writing("a/f.bin") as temporary:
            temporary.write_bytes(b"half")
            assert not opened().exists("a/f.bin")
            assert opened().sizes("a") == {}
            temporary.write_bytes(b"whole")
        assert read(opened(), "a/f.bin") == b"whole"

    def test_no_listing_is_remembered(self, store: Store, opened: Callable[[], Store]) -> None:
        """What another process writes, replaces or removes is seen by one that has looked before."""
        other = opened()
        put(other, "a/1.bin", b"1")
        assert store.sizes("a") == {"a/1.bin": 1}
        assert folders(store) == ["a"]
        assert store.below("") == ["a/1.bin"]
        assert not store.exists("a/2.bin")
        put(other, "a/2.bin", b"22")
        put(other, "b/3.bin", b"333")
        assert store.sizes("a") == {"a/1.bin": 1, "a/2.bin": 2}
        assert folders(store) == ["a", "b"]
        assert sorted(store.below("")) == ["a/1.bin", "a/2.bin", "b/3.bin"]
        assert store.exists("a/2.bin")
        assert read(store, "a/2.bin") == b"22"
        put(other, "a/2.bin", b"four")
        assert store.sizes("a")["a/2.bin"] == 4
        assert read(store, "a/2.bin") == b"four"
        other.remove("a/1.bin")
        assert not store.exists("a/1.bin")
        assert store.sizes("a") == {"a/2.bin": 4}

    def test_removing(self, store: Store) -> None:
        """Takes what was named, and not what begins like it."""
        for path in ("a/1.bin", "a/deep/2.bin", "ab/3.bin", "4.bin"):
            put(store, path, b"x")
        store.remove("a/1.bin")
        assert not store.exists("a/1.bin")
        store.remove_tree("a")
        assert store.below("a") == []
        assert store.exists("ab/3.bin")
        store.remove_tree("4.bin")
        assert folders(store) == ["ab"]
        assert store.sizes("") == {}

    def test_a_local_path(self, store: Store) -> None:
        """Holds the file's bytes, and what is done to it after the context is nobody's business."""
        put(store, "a/f.bin", b"bytes")
        with store.local("a/f.bin") as path:
            assert path.read_bytes() == b"bytes"
            assert path.name == "f.bin"
        assert read(store, "a/f.bin") == b"bytes"

    def test_parquet(self, store: Store) -> None:
        """Is read column by column; broken files raise what pyarrow raises."""
        with store.writing("t.parquet") as temporary:
            pq.write_table(pa.table({"a": [1, 2], "b": ["x", None]}), temporary)
        with store.parquet("t.parquet") as file:
            assert file.read(["b"]).to_pydict() == {"b": ["x", None]}
        put(store, "broken.parquet", b"PAR1 not at all")
        with pytest.raises((pa.ArrowInvalid, OSError)), store.parquet("broken.parquet"):
            pass

    def test_a_log(self, store: Store) -> None:
        """Is there when it is closed; it may lie in a new folder."""
        with store.log("logs/of/run.txt") as log:
            log.write(b"one\n")
            log.write(b"two\n")
        assert read(store, "logs/of/run.txt") == b"one\ntwo\n"

    def test_scratch(self, store: Store) -> None:
        """Is local, empty and gone afterwards, also after an error, and no file of the store."""
        with store.scratch() as first, store.scratch() as second:
            assert first.is_dir()
            assert not list(first.iterdir())
            assert first != second
            (first / "spill").write_bytes(b"x")
        assert not first.exists()
        with contextlib.suppress(RuntimeError), store.scratch() as folder:
            raise RuntimeError
        assert not folder.exists()
        assert store.sizes("") == {}

    def test_temporaries(self, store: Store) -> None:
        """Whatever a killed process left is cleared, and nothing else."""
        put(store, "a/f.bin", b"x")
        with store.writing("a/g.bin") as temporary:
            temporary.write_bytes(b"y")
        store.clear_temporaries()
        assert store.sizes("a") == {"a/f.bin": 1, "a/g.bin": 1}

    def test_a_lock(self, store: Store) -> None:
        """Is given, given back, and given again."""
        for _ in range(2):
            with store.lock(".curate/lock") as held:
                assert held

    def test_places(self, store: Store, opened: Callable[[], Store]) -> None:
        """Are told apart and said so that a person finds them."""
        assert store.is_same(opened())
        assert store.location("a/f.bin").endswith("/a/f.bin")
        put(store, "a/f.bin", b"x")
        assert (store.root is None) or (store.root / "a/f.bin").read_bytes() == b"x"
        room = store.free_bytes()
        assert room is None or room > 0

    def test_duckdb_reads_it(self, store: Store) -> None:
        """Also by a pattern, and what came after the first question."""
        duckdb = pytest.importorskip("duckdb")
        with duckdb.connect() as connection:
            for number in (1, 2):
                with store.writing(f"t/{number}.parquet") as temporary:
                    pq.write_table(pa.table({"n": [number]}), temporary)
                path = store.for_duckdb(connection, "t/*.parquet")
                ((total,),) = connection.execute(f"SELECT sum(n) FROM read_parquet('{path}')").fetchall()
                assert total == (1, 3)[number - 1]

    def test_odd_names(self, store: Store) -> None:
        """Survive: spaces, per cent signs, other alphabets, a plus."""
        for name in ("a b.bin", "50%.bin", "50%25.bin", "名.bin", "a+b.bin", "#h.bin", "q?.bin"):
            put(store, f"odd/{name}", name.encode())
        assert {p: read(store, p).decode() for p in store.sizes("odd")} == {
            p: p.rpartition("/")[2] for p in store.sizes("odd")
        }
        assert len(store.sizes("odd")) == 7

    def test_many_files(self, store: Store) -> None:
        """A listing is whole, however many pages a server gives it in."""
        for number in range(60):
            put(store, f"many/{number:03d}.bin", b"x" * number)
        assert store.sizes("many") == {f"many/{n:03d}.bin": n for n in range(60)}


def put(store: Store, path: str, data: bytes) -> None:
    """Write one file."""
    with store.writing(path) as temporary:
        assert isinstance(temporary, Path)
        temporary.write_bytes(data)


def read(store: Store, path: str) -> bytes:
    """Read one file."""
    with store.open(path) as stream:
        return stream.read()


def _fail_while_writing(store: Store, path: str) -> None:
    with store.writing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError


def folders(store: Store) -> list[str]:
    """Folders at the top, without the one in which a store may keep its temporaries."""
    return [name for name in store.folders("") if name != ".curate"]
