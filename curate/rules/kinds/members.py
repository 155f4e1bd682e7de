"""The rules ``in`` and ``not_in``: whether a value of the row is one of a list."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.config.rules.in_ import InRule
from curate.config.rules.not_in import NotInRule
from curate.dataset import external
from curate.dataset.uid import halves, is_uid
from curate.errors import UserError
from curate.rules.contract import BoundRule, CompiledRule, Compiling, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Mask
from curate.rules.sql.expressions import Expression
from curate.samples.pool import Uids

Member = Callable[[pa.ChunkedArray], Mask]
"""Which values are listed, bool, shape (n,); False for NULL."""

INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


@dataclass(frozen=True)
class Members(CompiledRule):
    """The value is one of a list, or is none of it. NULL is missing.

    Attributes:
        inside: which of the two.
    """

    settings: InRule | NotInRule

    inside: ClassVar[bool] = True
    any_order = True
    judges_uids = Uids.RAW

    @classmethod
    def compile(cls, settings: InRule | NotInRule, at: Compiling) -> Members:
        """See ``CompiledRule.compile``."""
        text = settings.in_ if isinstance(settings, InRule) else settings.not_in
        value, values = at.key(text), settings.values
        if value.type not in (*INTEGERS, "VARCHAR"):
            raise UserError(
                f"{at.place}: '{value.text}' is {value.type}; a list has texts or whole numbers: "
                "cast it, e.g. `CAST(… AS VARCHAR)`"
            )
        if values is not None:
            _member(pa.array([str(v) for v in values]), value, at.at("values"))
        listed = settings.file or ", ".join(str(v) for v in values or ())
        said = f"{text} {'in' if cls.inside else 'not in'} {listed}"
        return cls(at.name, at.place, settings, said, (value,), 1)

    def check_files(self) -> None:
        """Reads the list."""
        self.member()

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """The list is in memory: 8 bytes a number, 16 a uid, about 100 a text."""
        member = self.member()

        def judge(rows: Rows) -> Verdict:
            listed = member(rows.values[0])
            return Verdict.on_present(rows.values[0], listed if self.inside else ~listed)

        return BoundRule(judge)

    def member(self) -> Member:
        """Reads the list.

        Raises:
            UserError: the file is empty, of no known form, or its values cannot be those of the column.
        """
        file, (value,) = self.settings.file, self.expressions
        if file is None:
            return _member(pa.array([str(v) for v in self.settings.values or ()]), value, self.place)
        data = external.read(file, f"{self.place}.file", self.settings.digest)
        place = f"{self.place}.file: {file}"
        if file.endswith(".npy"):
            found = _from_npy(data, place)
            if isinstance(found, np.ndarray):
                return UidSet(found).member
        elif file.endswith(".parquet"):
            found = _from_parquet(data, self.settings.column, place)
        else:
            found = pa.array(lines_of(data, place), pa.string())
        if not len(found):
            raise UserError(f"{place} lists nothing")
        return _member(found, value, place)


class In(Members):
    """The value is listed."""


class NotIn(Members):
    """The value is not listed."""

    inside = False


def lines_of(data: bytes, place: str) -> list[str]:
    """The lines of a text file without the blanks around them; empty lines do not count.

    Raises:
        UserError: not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 text (byte {error.start})") from None
    return [line for raw in text.split("\n") if (line := raw.strip())]


def _from_npy(data: bytes, place: str) -> pa.Array | npt.NDArray[np.void]:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{place}: not an npy file ({error})") from None
    if not array.size:
        raise UserError(f"{place} lists nothing")
    if array.dtype.names and len(array.dtype.names) == 2:
        return array.reshape(-1)
    if array.dtype.kind in "iu":
        return pa.array(array.reshape(-1))
    if array.dtype.kind == "U":
        return pa.array(array.reshape(-1).tolist(), pa.string())
    raise UserError(f"{place}: expected whole numbers, text, or uids as u8,u8, got {array.dtype}")


def _from_parquet(data: bytes, column: str | None, place: str) -> pa.Array:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        name = column or (names[0] if len(names) == 1 else "uid")
        if name not in names:
            raise UserError(f"{place}: no column '{name}'; columns: {', '.join(names)}; name one by `column`")
        values = file.read([name])[name].combine_chunks().drop_null()
    except pa.ArrowInvalid as error:
        raise UserError(f"{place}: not a parquet file ({error})") from None
    if pa.types.is_integer(values.type):
        return values
    return values.cast(pa.string())


def _member(listed: pa.Array, expression: Expression, place: str) -> Member:
    if expression.type in INTEGERS:
        return _numbers(listed, expression, place)
    texts = listed.cast(pa.string()).to_pylist()
    if expression.text.strip().lower() == "uid":
        wrong = next((t for t in texts if not is_uid(t)), None)
        if wrong is not None:
            raise UserError(f"{place}: '{wrong}' is not a uid: expected 32 lower-case hex digits")
        return UidSet(halves(pa.array(texts))).member
    known = frozenset(texts)

    def member(values: pa.ChunkedArray) -> Mask:
        encoded = values.combine_chunks().dictionary_encode()
        found = [text in known for text in encoded.dictionary.to_pylist()]
        indices = np.asarray(encoded.indices.fill_null(len(found)), np.int64)
        return np.array([*found, False])[indices]

    return member


def _numbers(listed: pa.Array, expression: Expression, place: str) -> Member:
    kind = pa.uint64() if expression.type == "UBIGINT" else pa.int64()
    try:
        numbers = np.unique(np.asarray(listed.cast(kind)))
    except pa.ArrowInvalid:
        wrong = next((v for v in listed.to_pylist() if not _fits(v, kind)), "?")
        raise UserError(
            f"{place}: '{wrong}' cannot be a value of '{expression.text}', which is {expression.type}"
        ) from None

    def member(values: pa.ChunkedArray) -> Mask:
        missing = np.asarray(values.is_null()).astype(bool)
        mine = np.asarray(values.cast(kind).fill_null(0))
        places = np.minimum(np.searchsorted(numbers, mine), len(numbers) - 1)
        found: Mask = (numbers[places] == mine) & ~missing
        return found

    return member


def _fits(value: int | str, kind: pa.DataType) -> bool:
    try:
        return pa.scalar(int(value)).cast(kind) is not None
    except (ValueError, OverflowError, pa.ArrowException):
        return False


class UidSet:
    """Uids, 16 bytes each."""

    def __init__(self, uids: npt.NDArray[np.void]) -> None:
        """Args: uids: two unsigned 64-bit fields, the halves of each uid, in any order."""
        first, second = (uids[name].astype(np.uint64) for name in uids.dtype.names or ())
        order = np.lexsort((second, first))
        self.first, self.second = first[order], second[order]

    def member(self, values: pa.ChunkedArray) -> Mask:
        """Which of these uids are in the set; NULL is not."""
        found = np.zeros(len(values), bool)
        present = np.flatnonzero(~np.asarray(values.is_null()).astype(bool))
        asked = halves(values.take(pa.array(present)))
        start = np.searchsorted(self.first, asked["f0"], "left")
        end = np.searchsorted(self.first, asked["f0"], "right")
        one = np.flatnonzero(end > start)
        found[present[one]] = self.second[start[one]] == asked["f1"][one]
        for i in np.flatnonzero(end > start + 1).tolist():
            found[present[i]] = asked["f1"][i] in self.second[start[i] : end[i]]
        return found
