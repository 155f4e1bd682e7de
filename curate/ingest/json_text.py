"""JSON that a strict reader refuses, read as far as it makes sense."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

_MAX_DIGITS = 400
"""Of an integer; no double is longer, and Python refuses to read very long ones."""


def decode_leniently(text: str) -> Any:
    """The value of a JSON text, whose strings may have what RFC 8259 leaves open or forbids.

    An escaped surrogate without its partner (``\\ud800``) becomes U+FFFD, as in a browser's URLs: neither
    UTF-8 nor Arrow can hold it. Control characters in strings stay what they are. Numbers beyond the range of
    a double are infinite; NaN and Infinity are numbers. The last of several equal keys counts.

    Raises: ValueError if it is no JSON all the same, or is nested too deeply.
    """
    paired = _ESCAPE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    try:
        return json.loads(paired, strict=False, parse_int=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < _MAX_DIGITS else float(digits)
