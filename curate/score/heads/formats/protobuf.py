"""Protocol buffers by wire format: just enough to walk a message whose schema is known."""

from __future__ import annotations

from collections.abc import Iterator

Value = int | bytes


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at an offset and the offset after it. Raises ValueError past the end."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("cut short")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) in order: integers of varints and fixed widths, bytes of everything with a length.

    Raises:
        ValueError: not a whole message.
    """
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        value: Value
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 2, 5):
            size, at = varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
            if at + size > len(data):
                raise ValueError("cut short")
            raw, at = data[at : at + size], at + size
            value = raw if kind == 2 else int.from_bytes(raw, "little")
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, value


def messages(data: bytes, number: int) -> list[bytes]:
    """The values with a length of one field: sub-messages, strings, bytes."""
    return [value for n, value in fields(data) if n == number and isinstance(value, bytes)]


def message(data: bytes, number: int) -> bytes:
    """The last of them, or an empty one."""
    return (messages(data, number) or [b""])[-1]


def texts(data: bytes, number: int) -> list[str]:
    """A field of strings."""
    return [value.decode("utf-8") for value in messages(data, number)]


def text(data: bytes, number: int) -> str:
    """A string, empty when it is not there."""
    return message(data, number).decode("utf-8")


def numbers(data: bytes, number: int) -> list[int]:
    """A field of integers, packed or not."""
    out: list[int] = []
    for n, value in fields(data):
        if n != number:
            continue
        if isinstance(value, int):
            out.append(value)
        else:
            at = 0
            while at < len(value):
                one, at = varint(value, at)
                out.append(one)
    return out


def number(data: bytes, field: int, default: int = 0) -> int:
    """An integer."""
    return (numbers(data, field) or [default])[-1]
