"""Counts in messages and tables: one case, two cases."""

from __future__ import annotations

from collections.abc import Iterable


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


def named(names: Iterable[str], most: int = 3) -> str:
    """The first names of a list, and the number of the others.

    >>> named("abcde"), named("ab")
    ('a, b, c and 2 more', 'a, b')
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
