"""Seeds computed from a key, so that results do not depend on order, batch size or number of workers."""

from __future__ import annotations

import hashlib


def seed_of(*key: object) -> int:
    """A 63-bit seed that depends only on the key.

    >>> seed_of(0, "case", 3) == seed_of(0, "case", 3) != seed_of(0, "case", 4)
    True
    """
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
