"""What JSON values of ``learned.json`` can be: tests for ``LearnedForm``."""

from __future__ import annotations

import math
from typing import Any

from curate.dataset.uid import is_uid


def is_count(value: Any) -> bool:
    """A whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """A number, an infinity (which is text), or None: no row had a value."""
    if isinstance(value, str):
        return value in ("inf", "-inf")
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def is_share(value: Any) -> bool:
    """A finite number, or None."""
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def is_uid_or_none(value: Any) -> bool:
    """A uid, or None."""
    return value is None or (isinstance(value, str) and is_uid(value))


def is_text(value: Any) -> bool:
    """A text."""
    return isinstance(value, str)
