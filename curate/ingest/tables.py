"""Tables of image URL and text (LAION, DataComp, CC12M...) to batches: parquet, csv, tsv, jsonl."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import IO, Any

import ada_url
import fsspec
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import DataError, UserError
from curate.ingest.delimited import Pushback, iter_lines, split_record
from curate.ingest.inputs import InputFormat, check_complete, guess_format
from curate.ingest.json_text import decode_leniently
from curate.reasons import IngestReason

URL_COLUMNS = ("url", "image_url", "img_url", "imageurl", "image_link")
"""Names by which a URL column is recognised, without regard to case, in this order."""
TEXT_COLUMNS = ("text", "caption", "alt", "alt_text", "top_caption", "txt", "title", "description")
"""Names by which a text column is recognised, without regard to case, in this order."""

TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
"""Types that an extra column of csv, tsv or jsonl may be given as ``name:type``."""

_KNOWN_TYPES = {
    **dict.fromkeys(("width", "height", "original_width", "original_height", "hash", "sample_id"), "int64"),
    **dict.fromkeys(("punsafe", "pwatermark"), "float32"),
    **dict.fromkeys(("clip_b32_similarity_score", "clip_l14_similarity_score"), "float32"),
    **dict.fromkeys(("similarity", "aesthetic", "aesthetic_score"), "float64"),
}

BoolMask = npt.NDArray[np.bool_]

_UID = r"^[0-9a-fA-F]{32}$"
_HTTP = re.compile(r"[\x00-\x20]*https?:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which of a file's columns are read."""

    url: str
    text: str
    uid: str | None = None
    extra: dict[str, pa.DataType] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The file's columns to read, each once."""
        return list(dict.fromkeys([self.url, self.text, *([self.uid] if self.uid else []), *self.extra]))


def iter_table_batches(
    url: str,
    *,
    format: InputFormat | None = None,
    url_column: str | None = None,
    text_column: str | None = None,
    uid_column: str | None = None,
    extra_columns: Sequence[str] = (),
    swap_width_height: bool = False,
    batch_rows: int,
    counts: Counter[str],
    stats: Counter[str] | None = None,
    fs_options: Mapping[str, Any] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of one table: ``url`` and ``text`` (strings, verbatim), ``uid`` if named, then extras.

    Columns not named are found by the usual names (:data:`URL_COLUMNS`, :data:`TEXT_COLUMNS`). A csv or tsv
    whose first line holds an http URL has no header: its columns are named ``0``, ``1``...; of two, the one
    with the URL is the URL and the other the text. ``extra_columns`` are carried over under their own names,
    in parquet with the file's type, else with the type of ``name:type`` (:data:`TYPES`), else that of the
    releases (similarity, WIDTH...), else as strings; a value that does not fit its type is NULL.
    ``swap_width_height`` undoes LAION's swapped WIDTH and HEIGHT. ``uid_column`` names a column of ready
    uids (DataComp); without it the batch has none, since the uid is hashed after the text is cleaned.

    A row adds one to ``counts`` instead of becoming a row: ``unreadable_record`` (a line that is no record,
    text that is not UTF-8, a uid that is not 32 hex digits, a parquet row group that does not decode: one),
    ``no_url``, ``no_text`` (empty or NULL), ``bad_url``, ``bad_scheme`` (not http or https). Where a
    compressed file is damaged it adds one ``damaged_record``, or one ``truncated_input`` if nothing can be
    read from there to its end, and to ``stats["bytes_lost"]`` the bytes (see
    :func:`~curate.ingest.delimited.iter_lines`). gzip is recognised by its first bytes.

    Raises: UserError for a column that is not there or holds no strings, DataError for a parquet file
    whose footer cannot be read, OSError when the file cannot be read.
    """
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows}")
    kind = format or guess_format(url)
    stats = Counter() if stats is None else stats
    asked = _Asked(url, url_column, text_column, uid_column, tuple(extra_columns))
    with fsspec.open(url, "rb", **(fs_options or {})) as stream:
        if kind == "parquet":
            batches = _parquet_batches(stream, asked, batch_rows, counts)
        elif kind == "jsonl":
            batches = _jsonl_batches(iter_lines(stream, counts, stats), asked, batch_rows, counts)
        else:
            lines = Pushback(iter_lines(stream, counts, stats))
            batches = _delimited_batches(lines, asked, "\t" if kind == "tsv" else ",", batch_rows, counts)
        for batch, columns in batches:
            checked = _check_rows(batch, columns, counts)
            if swap_width_height:
                checked = _swap_sizes(checked, url)
            if checked.num_rows:
                yield checked
        if kind != "parquet":  # whose readers ask for what they need
            check_complete(stream, url)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the user asked for, before the file's columns are known."""

    file: str
    url: str | None
    text: str | None
    uid: str | None
    extra: tuple[str, ...]

    def among(self, names: Sequence[str]) -> _Columns:
        """The columns to read of a file that has ``names``."""
        extra: dict[str, pa.DataType] = {}
        for wanted in self.extra:
            name, typed, kind = wanted.rpartition(":")
            if not typed or kind not in TYPES:
                name, kind = wanted, _KNOWN_TYPES.get(wanted.lower(), "string")
            if name in ("url", "text", "uid"):
                raise UserError(f"{self.file}: extra_columns {name!r}: a column of this name exists already")
            extra[self._named(name, names, "extra_columns")] = TYPES[kind]
        return _Columns(
            self._one(self.url, URL_COLUMNS, names, "url"),
            self._one(self.text, TEXT_COLUMNS, names, "text"),
            self._named(self.uid, names, "uid_column") if self.uid else None,
            extra,
        )

    def _one(self, name: str | None, usual: Sequence[str], names: Sequence[str], what: str) -> str:
        return self._guess(usual, names, what) if name is None else self._named(name, names, f"{what}_column")

    def _named(self, name: str, names: Sequence[str], key: str) -> str:
        if name in names:
            return name
        lower = {known.lower(): known for known in names}
        near = get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
        hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
        raise UserError(f"{self.file}: {key} {name!r} is not a column; there are {_listed(names)}{hint}")

    def _guess(self, usual: Sequence[str], names: Sequence[str], what: str) -> str:
        lower = {known.lower(): known for known in reversed(names)}
        for name in usual:
            if name in lower:
                return lower[name]
        near = next((get_close_matches(name, list(lower), n=1, cutoff=0.5) for name in usual), [])
        hint = f" (perhaps {lower[near[0]]!r})" if near else ""
        raise UserError(
            f"{self.file}: no column looks like the {what}; there are {_listed(names)}; "
            f"set {what}_column to one of them{hint}"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:30]) or "none"
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")


_Batches = Iterator[tuple[pa.RecordBatch, _Columns]]


def _parquet_batches(stream: IO[bytes], asked: _Asked, batch_rows: int, counts: Counter[str]) -> _Batches:
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        if _is_stores_fault(error):
            raise
        raise DataError(f"{asked.file}: not a readable parquet file: {error}") from error
    columns = asked.among(file.schema_arrow.names)
    types = {name: file.schema_arrow.field(name).type for name in columns.names}
    for name in (columns.url, columns.text, *([columns.uid] if columns.uid else [])):
        if not _is_texty(types[name]):
            raise UserError(f"{asked.file}: column {name!r} holds {types[name]}, not text")
    columns = replace(columns, extra={name: types[name] for name in columns.extra})
    for group in range(file.num_row_groups):
        # One row group that does not decode must not cost those behind it.
        batches = file.iter_batches(batch_rows, row_groups=[group], columns=columns.names)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                if _is_stores_fault(error):
                    raise
                counts[IngestReason.UNREADABLE_RECORD] += 1
                break
            if batch is None:
                break
            yield batch, columns


def _is_stores_fault(error: Exception) -> bool:
    # Arrow reports bad data as OSError, too, but then without an errno and never as a subclass.
    return isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError)


def _is_texty(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_null(kind)
    )


def _jsonl_batches(
    lines: Iterator[bytes | None], asked: _Asked, batch_rows: int, counts: Counter[str]
) -> _Batches:
    columns: _Columns | None = None
    rows: list[list[Any]] = []
    for line in lines:
        if line is not None and not line.strip():
            continue
        record = _json_object(line)
        if record is None:
            counts[IngestReason.UNREADABLE_RECORD] += 1
            continue
        if columns is None:
            columns = asked.among(list(record))
        rows.append([record.get(name) for name in columns.names])
        if len(rows) == batch_rows:
            yield _batch_of(rows, columns), columns
            rows = []
    if columns is not None:
        yield _batch_of(rows, columns), columns


def _json_object(line: bytes | None) -> dict[str, Any] | None:
    if line is None:
        return None
    text = line.removeprefix(b"\xef\xbb\xbf")
    try:
        record = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        try:
            record = decode_leniently(text.decode("utf-8"))
        except ValueError:
            return None
    return record if isinstance(record, dict) else None


def _delimited_batches(
    lines: Pushback, asked: _Asked, delimiter: str, batch_rows: int, counts: Counter[str]
) -> _Batches:
    first: list[str] | None = None
    while not first:
        if lines.exhausted():
            return
        first = split_record(lines, delimiter, None)
        if first is None:
            counts[IngestReason.UNREADABLE_RECORD] += 1
    names, headless = _header(first)
    if headless:
        asked = _guess_headless(asked, first)
    columns = asked.among(names)
    picks = [names.index(name) for name in columns.names]
    rows: list[list[Any]] = [[first[pick] for pick in picks]] if headless else []
    while not lines.exhausted():
        if len(rows) >= batch_rows:
            yield _batch_of(rows, columns), columns
            rows = []
        record = split_record(lines, delimiter, len(names))
        if record is None:
            counts[IngestReason.UNREADABLE_RECORD] += 1
        elif record:
            rows.append([record[pick] for pick in picks])
    yield _batch_of(rows, columns), columns


def _header(first: list[str]) -> tuple[list[str], bool]:
    if any(_HTTP.match(cell) for cell in first):
        return [str(at) for at in range(len(first))], True
    return [first[0].removeprefix("\ufeff"), *first[1:]], False


def _guess_headless(asked: _Asked, first: list[str]) -> _Asked:
    found = next(at for at, cell in enumerate(first) if _HTTP.match(cell))
    url = asked.url or str(found)
    text = asked.text or (str(1 - found) if len(first) == 2 and url == str(found) else None)
    return replace(asked, url=url, text=text)


def _batch_of(rows: list[list[Any]], columns: _Columns) -> pa.RecordBatch:
    """Rows in the order of ``columns.names`` as a batch; a value that does not fit its column is NULL."""
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns.names)
    arrays = []
    for name, column in zip(columns.names, values, strict=True):
        is_text = name in (columns.url, columns.text, columns.uid)
        arrays.append(_typed(column, pa.string() if is_text else columns.extra[name]))
    return pa.RecordBatch.from_arrays(arrays, names=columns.names)


def _typed(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    return pa.array([_fit(value, kind) for value in values], kind)


def _fit(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else _as_text(value)
    try:
        if pa.types.is_boolean(kind):
            return _BOOLEANS[str(value).strip().lower()]
        if pa.types.is_floating(kind):
            return float(value)
        if isinstance(value, str | int) and not _POINT.search(str(value)):
            whole = int(value)  # exact, also beyond 2^53
        else:
            whole = int(number := float(value))
            if whole != number:
                return None
        bound = 1 << (kind.bit_width - 1)
        return whole if -bound <= whole < bound else None
    except (ValueError, TypeError, OverflowError, KeyError):
        return None


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_POINT = re.compile(r"[.eE]")


def _as_text(value: Any) -> str | None:
    return None if isinstance(value, list | dict) else msgspec.json.encode(value).decode()


def _check_rows(batch: pa.RecordBatch, columns: _Columns, counts: Counter[str]) -> pa.RecordBatch:
    """``url``, ``text``, ``uid`` and extras of the good rows; the others counted by their first reason."""
    url, bad_url = _strings(batch.column(columns.url))
    text, bad_text = _strings(batch.column(columns.text))
    broken = bad_url | bad_text
    uid = None
    if columns.uid:
        uid, _ = _strings(batch.column(columns.uid))
        uid = pc.ascii_lower(uid)
        broken |= ~_mask(pc.match_substring_regex(uid, _UID))
    verdicts = np.array([_url_verdict(value) for value in url.to_pylist()], dtype=object)
    alive = np.ones(batch.num_rows, np.bool_)
    for reason, fails in (
        (IngestReason.UNREADABLE_RECORD, broken),
        (IngestReason.NO_URL, verdicts == IngestReason.NO_URL),
        (IngestReason.NO_TEXT, ~_mask(pc.greater(pc.binary_length(text), 0))),
        (IngestReason.BAD_URL, verdicts == IngestReason.BAD_URL),
        (IngestReason.BAD_SCHEME, verdicts == IngestReason.BAD_SCHEME),
    ):
        if count := int((fails & alive).sum()):
            counts[reason] += count
            alive &= ~fails
    out = {"url": url, "text": text, **({"uid": uid} if uid is not None else {})}
    for name in columns.extra:
        out[name] = batch.column(name)
    return pa.RecordBatch.from_pydict(out).filter(pa.array(alive, pa.bool_()))


def _url_verdict(url: str | None) -> IngestReason | None:
    if not url or url.isspace():
        return IngestReason.NO_URL
    if not ada_url.URL.can_parse(url):
        return IngestReason.BAD_URL
    return None if _HTTP.match(url) else IngestReason.BAD_SCHEME


def _strings(column: pa.Array) -> tuple[pa.Array, BoolMask]:
    """A column as strings, and which values are no UTF-8 (NULL in the strings)."""
    none_bad = np.zeros(len(column), np.bool_)
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    try:
        strings = column.cast(pa.string())
        strings.validate(full=True)  # a string column of a hostile file need not be UTF-8 either
    except pa.ArrowInvalid:
        pass
    else:
        return strings, none_bad
    values = [_utf8(value) for value in column.cast(pa.binary()).to_pylist()]
    bad = np.array([value is False for value in values], np.bool_)
    return pa.array([value or None for value in values], pa.string()), bad


def _utf8(value: bytes | None) -> str | bool | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _swap_sizes(batch: pa.RecordBatch, file: str) -> pa.RecordBatch:
    by_name = {name.lower(): at for at, name in enumerate(batch.schema.names)}
    if "width" not in by_name or "height" not in by_name:
        raise UserError(f"{file}: swap_width_height needs WIDTH and HEIGHT among the extra_columns")
    columns = list(batch.columns)
    width, height = by_name["width"], by_name["height"]
    columns[width], columns[height] = columns[height], columns[width]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _mask(condition: pa.Array) -> BoolMask:
    mask: BoolMask = condition.fill_null(False).to_numpy(zero_copy_only=False)
    return mask
