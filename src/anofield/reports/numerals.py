"""Numbers as the page shows them: sensible digits, a true minus sign, a dash for unknown values."""

from __future__ import annotations

import math
from typing import Any

DASH = "–"


def number(value: Any, digits: int = 3) -> str:
    """A number with this many significant digits, and a dash for any other value: `0.1234` → `0.123`."""
    value = finite(value)
    if value is None:
        return DASH
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        places = digits if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return _minus(f"{value:.{0 if value == 0 else places}f}")
    return _minus(f"{value:.{digits - 1}e}")


def decimal(value: Any, places: int = 3) -> str:
    """A number with this many decimals, for columns of values between 0 and 1: `0.9` → `0.900`."""
    value = finite(value)
    return DASH if value is None else _minus(f"{value:.{places}f}")


def ml(value: Any) -> str:
    """A volume in millilitres: two decimals below 10, one below 100."""
    value = finite(value)
    if value is None:
        return DASH
    return decimal(value, 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0)


def duration(seconds: Any) -> str:
    """A duration in words: `0.42 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    value = finite(seconds)
    if value is None:
        return DASH
    if value < 60:
        return f"{value:.0f} s" if value >= 9.95 else f"{number(value, 2)} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def finite(value: Any) -> float | None:
    """The value as a float; None if it is not a number, NaN or infinite."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def value(number: Any) -> str:
    """A number as text for sorting; empty for any other value."""
    found = finite(number)
    return "" if found is None else repr(found)


def _minus(text: str) -> str:
    """The text with a true minus sign, or without a sign if the value rounds to zero."""
    if not text.startswith("-"):
        return text
    return "−" + text[1:] if text.strip("-0.") else text[1:]
