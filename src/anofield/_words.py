"""Counts in messages and tables: one case, two cases."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    Args:
        number: How many.
        noun: In the singular.
        plural: If it is not the noun with an s.

    >>> counted(1, "case"), counted(0, "case"), counted(2, "person", "people")
    ('1 case', '0 cases', '2 people')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
