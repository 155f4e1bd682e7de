"""Numbers as people read them."""

from __future__ import annotations


def percent(share: float) -> str:
    """``30 %``, ``2.5 %``, ``0.013 %``: as many digits as the number needs, at most three below 1 %."""
    value = share * 100
    text = f"{value:.1f}" if value >= 1 else f"{value:.3f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"
