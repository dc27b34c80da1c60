"""Counts in messages and tables: one case, two cases."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    Args:
        number: Number of things.
        noun: Noun in the singular.
        plural: Plural of the noun; empty for the noun with an s.

    >>> counted(1, "case"), counted(0, "case"), counted(2, "person", "people")
    ('1 case', '0 cases', '2 people')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
