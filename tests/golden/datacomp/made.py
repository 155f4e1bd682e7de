"""Made-up metadata in the form in which DataComp publishes its pools, full of edge cases, always the same.

`RandomState` draws the same numbers with every version of numpy. Whoever stores something about these rows
stores `fingerprint` with it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 100_000
FILES = 7
DIM = 128
CLUSTERS = 24

_COMMON = """
a the of with and red blue old new photo woman house vintage black white wooden table kitchen wedding dress
shoes engine garden sunset design logo 2019 set free size inch naïve año 東京 картина 😀 e\u0301
"""
_NAMED = """
dog dogs Dog DOG dog, cat cats cat's man men mice mouse ran runs running churches boxes better hotter leaves
us ponies quickly
"""
COMMON = _COMMON.split()
NAMED = _NAMED.split()
"""Words that the small WordNet knows, inflects, or just misses."""
SEPARATORS = (
    *(" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\u1680"),
    *("\u2003", "\u2028", "\u202f", "\u3000", "\u200b", "\ufeff", "\u180e", "\x00"),
)
"""White space of all kinds, and four that only look like it."""
EDGES = (
    *("a", "ab", "a b", "a b c", "a b cd", "ab cd", "abc de", "abcdef", "a  b  c", " a b c", "a b c "),
    *("\na b cd", "a\nb\nc", "a\nb\ncd", "abcde\n", "abcdef\n", "\nabcdef", "a b\xa0c", "a b\u3000cd"),
    *(
        "a\u200bb cd",
        "a b\x85cd",
        "a\x1cb\x1dcd",
        "𝒜 𝓑 𝒞",
        "𝒜 𝓑 𝒞𝒟",
        "e\u0301 e\u0301 e",
        "三 字 经",
        "三 字 经文",
    ),
    *("a\x00b\x00cd", "one two", "one two three", "?!, -- ...", "12 34 56"),
)
"""At two and three words, five and six characters."""
SCORES = tuple(
    near
    for bound in map(np.float32, (0.2, 0.28, 0.3, 0.35))
    for near in (np.nextafter(bound, np.float32(0)), bound, np.nextafter(bound, np.float32(1)))
)
"""At thresholds, and the next numbers on both sides."""
SIZES = (
    *((200, 600), (600, 200), (199, 597), (201, 603), (200, 601), (601, 200), (200, 599)),
    *((333, 999), (333, 1000), (199, 199), (200, 200), (201, 201), (200, 199), (1, 1), (1, 4096)),
    *((0, 0), (0, 300), (-1, 300), (10_000, 30_000), (10_000, 30_001)),
    *((12_345_679, 37_037_037), (12_345_679, 37_037_038)),
)
"""At a side of 200 and a ratio of 3, and some that are no sizes."""


def language(text: str) -> str:
    """Stands for every detector of languages; what it says means nothing, but it is cheap and the same."""
    return "en" if (7 * len(text) + ord((text or " ")[0])) % 16 < 9 else "de"


# A newline is a token of its own; of white space only these count, and NUL. As fasttext 0.9.2 does.
_TOKENS = re.compile("\n|[^ \n\r\t\v\f\0]+")


def tokens(text: str) -> list[str]:
    """fastText's, but for the name it gives a newline."""
    return _TOKENS.findall(text)


def make(rows: int = ROWS, empty: bool = False) -> pa.Table:
    """The metadata with a column `language` besides; `empty` puts captions among them that say nothing."""
    rng = np.random.RandomState(20_230_427)
    texts = [_caption(rng) for _ in range(rows)]
    if empty:
        texts[3::10] = ["", " ", "\n", "\u3000", ""] * (rows // 50)
    raw = rng.bytes(16 * rows).hex()
    uids = [raw[i : i + 32] for i in range(0, 32 * rows, 32)]
    assert len(set(uids)) == rows
    width, height = rng.randint(50, 1500, (2, rows))
    for at in rng.randint(0, rows, rows // 5):
        width[at], height[at] = SIZES[rng.randint(len(SIZES))]
    unknown = rng.random_sample(rows) < 0.001
    columns = {
        "uid": pa.array(uids),
        "url": pa.array([f"https://example{i % 97}.com/{i}.jpg" for i in range(rows)]),
        "text": pa.array(texts),
        "original_width": pa.array(width, pa.int64(), mask=unknown),
        "original_height": pa.array(height, pa.int64(), mask=unknown),
        # Few different values, so that every cut falls among equals.
        "clip_b32_similarity_score": _scores(rng, rows, 3, 0.0002),
        "clip_l14_similarity_score": _scores(rng, rows, 6, 0.005),
        "face_bboxes": pa.array([[[0.1, 0.2, 0.3, 0.4]] * (i % 11 == 0) for i in range(rows)],
                                pa.list_(pa.list_(pa.float64()))),
        "sha256": pa.array([2 * uid for uid in uids]),
        "language": pa.array([language(text.replace("\n", " ")) for text in texts]),
    }  # fmt: skip
    return pa.table(columns)


def _caption(rng: np.random.RandomState) -> str:
    kind = rng.random_sample()
    if kind < 0.1:
        return EDGES[rng.randint(len(EDGES))]
    count = int(np.clip(rng.lognormal(2.2, 0.6), 1, 60)) if kind < 0.8 else rng.randint(1, 5)
    words = [COMMON[i] for i in rng.randint(0, len(COMMON), count)]
    if rng.random_sample() < 0.3:
        words[rng.randint(count)] = NAMED[rng.randint(len(NAMED))]
    if kind < 0.85:
        return " ".join(words)
    gaps = [SEPARATORS[i] for i in rng.randint(0, len(SEPARATORS), count + 1)]
    text = "".join(word + gap for word, gap in zip(words, gaps[:-1], strict=True))
    return gaps[-1] + text if kind > 0.95 else text


def _scores(rng: np.random.RandomState, rows: int, digits: int, missing: float) -> pa.Array:
    """Rounded, some at thresholds and beside them; of the missing half are NULL and half NaN."""
    values = np.round(0.24 + 0.05 * rng.standard_normal(rows), digits).astype(np.float32)
    places = rng.randint(0, rows, rows // 50)
    values[places] = np.array(SCORES)[rng.randint(0, len(SCORES), len(places))]
    lot = rng.random_sample(rows)
    values[lot < missing / 2] = np.nan
    return pa.array(values, pa.float32(), mask=(lot >= missing / 2) & (lot < missing))


def centroids() -> np.ndarray:
    """Unit vectors, float32 (CLUSTERS, DIM)."""
    vectors = np.random.RandomState(1).standard_normal((CLUSTERS, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def targets() -> np.ndarray:
    """Embeddings of a target set near every third centroid, float32 (n, DIM)."""
    chosen = np.repeat(centroids()[::3], 5, axis=0)
    noise = 0.03 * np.random.RandomState(2).standard_normal(chosen.shape)
    return (chosen + noise).astype(np.float32)


def vectors(rows: int) -> np.ndarray:
    """Image embeddings, float16 (rows, DIM), each so near its centroid that rounding decides nothing."""
    rng = np.random.RandomState(3)
    found = centroids()[rng.randint(0, CLUSTERS, rows)] + 0.03 * rng.standard_normal((rows, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def fingerprint(table: pa.Table) -> str:
    """Of the values, whatever parquet makes of them."""
    hasher = hashlib.sha256()
    for name in table.column_names:
        hasher.update(f"{name}:{table[name].to_pylist()!r}".encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def write(folder: Path, table: pa.Table) -> None:
    """``<32 hex>.parquet`` and ``.npz`` side by side, FILES of them, unequal."""
    folder.mkdir(parents=True, exist_ok=True)
    images = vectors(table.num_rows)
    edges = [table.num_rows * i**2 // FILES**2 for i in range(FILES + 1)]
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        name = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
        pq.write_table(table.slice(first, last - first), folder / f"{name}.parquet")
        np.savez(folder / f"{name}.npz", l14_img=images[first:last])


# A WordNet of a few words: lemma → parts of speech, in the format of wndb(5WN).
LEMMAS = {
    "noun": ("dog", "cat", "man", "mouse", "church", "box", "run", "leaf", "leave", "pony", "table", "us"),
    "verb": ("run", "leave", "dog"),
    "adj": ("good", "hot", "red"),
    "adv": ("quickly", "well"),
}
IRREGULAR = {"noun": ("men man", "mice mouse", "leaves leaf leave"), "verb": ("ran run", "running run"),
             "adj": ("better good", "hotter hot"), "adv": ("better well",)}  # fmt: skip
LISTED = (
    ("noun", "dog"),
    ("noun", "mouse"),
    ("noun", "leaf"),
    ("verb", "run"),
    ("adj", "good"),
    ("noun", "pony"),
)
"""What the list of entities names; `run` is a noun first, and so not found by the verb's offset."""


def write_wordnet(folder: Path, listed: Path) -> None:
    """A ``dict`` folder that nltk reads, and a list of synset ids as ImageNet's are written."""
    folder.mkdir(parents=True, exist_ok=True)
    offsets = {}
    for part, lemmas in LEMMAS.items():
        letter = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[part]
        # Offsets of one part come in another as well: nothing but offsets is compared.
        data = "  made up\n"
        index = []
        for lemma in lemmas:
            offsets[part, lemma] = len(data)
            frames = " 01 + 02 00" if part == "verb" else ""
            index.append(f"{lemma} {letter} 1 0 1 0 {len(data):08d}  ")
            data += f"{len(data):08d} 03 {letter} 01 {lemma} 0 000{frames} | what a {lemma} is  \n"
        (folder / f"data.{part}").write_text(data, newline="\n")
        (folder / f"index.{part}").write_text("\n".join(sorted(index)) + "\n", newline="\n")
        (folder / f"{part}.exc").write_text("\n".join(IRREGULAR[part]) + "\n", newline="\n")
    (folder / "lexnames").write_text("".join(f"{i:02d}\tpart.{i}\t1\n" for i in range(45)), newline="\n")
    for name in ("index.sense", "cntlist.rev"):
        (folder / name).write_text("")
    listed.write_text("".join(f"n{offsets[pair]:08d}\n" for pair in LISTED), newline="\n")
