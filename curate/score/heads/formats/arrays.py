"""Arrays of numbers: ``.npy``, and pickled ones, read without executing the pickle."""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


def read_npy(data: bytes) -> npt.NDArray[Any]:
    """The array of an npy file. Raises ValueError for anything but a whole array of floats."""
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - numpy parses the header as Python and raises what that raises
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not a whole npy file ({first[:160]})") from None
    if array.dtype.kind != "f":
        raise ValueError(f"expected floating point numbers, got {array.dtype}")
    return array


def read_pickled_array(data: bytes) -> npt.NDArray[Any]:
    """The one float array of a pickle that holds nothing else (Q16's ``prompts.p``).

    The opcodes are parsed, never run: names stay names, and calls stay descriptions of a call, from which
    type, shape and bytes are read.

    Raises:
        ValueError: anything else.
    """
    match _parse_pickle(data):
        case _Built(
            _Call(_Name("_reconstruct"), _),
            (
                1,
                tuple(shape),
                _Built(_Call(_Name("dtype"), (str(kind), *_)), (_, str(order), *_)),
                fortran,
                raw,
            ),
        ) if kind in ("f2", "f4", "f8") and order in "<>":
            raw = _as_bytes(raw)
            plain = all(type(size) is int and size > 0 for size in shape)
            if plain and math.prod(shape) * int(kind[1]) == len(raw):
                flat = np.frombuffer(raw, np.dtype(order + kind))
                return flat.reshape(shape, order="F" if fortran else "C")
    raise ValueError("a pickle, but not of one array of floating point numbers")


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass(frozen=True)
class _Call:
    function: object
    arguments: object


@dataclass(frozen=True)
class _Built:
    what: object
    state: object


_MARK = object()
_NAMES = {"_reconstruct", "ndarray", "dtype", "encode"}
_MODULES = {"numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs"}
_PLAIN = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "BINBYTES8",
    "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _as_bytes(value: object) -> bytes:
    """Bytes; before protocol 3 they were written as Latin-1 text and a call that encodes it."""
    match value:
        case bytes():
            return value
        case _Call(_Name("encode"), (str(text), "latin1")):
            return text.encode("latin-1")
    return b""


def _parse_pickle(data: bytes) -> object:
    """What a pickle describes: constants, names and calls that are not made."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for op, arg, _ in pickletools.genops(data):
            name = op.name
            if name in _PLAIN:
                stack.append(arg)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[arg if isinstance(arg, int) else len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[int(arg or 0)])
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "GLOBAL":
                stack.append(_name(*str(arg).split(" ", 1)))
            elif name == "STACK_GLOBAL":
                stack[-2:] = [_name(*stack[-2:])]
            elif name == "TUPLE":
                start = len(stack) - 1 - stack[::-1].index(_MARK)
                stack[start:] = [tuple(stack[start + 1 :])]
            elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            elif name in ("REDUCE", "BUILD"):
                stack[-2:] = [(_Call if name == "REDUCE" else _Built)(*stack[-2:])]
            elif name == "STOP":
                return stack[-1]
            elif name not in ("PROTO", "FRAME"):
                break
    except (IndexError, KeyError, TypeError, UnicodeDecodeError):
        pass
    raise ValueError("a pickle, but not of one array of floating point numbers")


def _name(module: str, name: str) -> _Name:
    if module not in _MODULES or name not in _NAMES:
        raise ValueError(f"a pickle of {module}.{name}, which is not loaded: a pickle can run code")
    return _Name(name)
