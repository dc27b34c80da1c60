"""The rows of a table: every method as it is, and every method that depends on position on the posed lattice too."""

from __future__ import annotations

from dataclasses import dataclass

from anofield.baselines.registry import known_baselines
from anofield.errors import UsageError

ANYWHERE = ("random", "intensity", "equalised")  # methods that look at each voxel without its place
FIELD, FEW, PUBLISHED = "anofield", "anofield-few", "ifl2021"
POSED = "+pose"


@dataclass(frozen=True)
class MethodRow:
    """A method with the help that it is given.

    Attributes:
        name: Name of the row.
        method: The field (`anofield`, `ifl2021`) or the baseline.
        posed: Whether it is trained and run on the lattice that the field's pose lays in every scan.
        few: Whether it is calibrated and tested on few people only.
    """

    name: str
    method: str
    posed: bool = False
    few: bool = False

    @property
    def is_field(self) -> bool:
        """Whether it is the field, in its own or in the published procedure."""
        return self.method in (FIELD, PUBLISHED)


def all_rows() -> list[MethodRow]:
    """All rows in the order in which they run; the slow ones come last."""
    rows = [MethodRow(FIELD, FIELD)]
    for name in known_baselines():
        rows.append(MethodRow(name, name))
        if name not in ANYWHERE:
            rows.append(MethodRow(name + POSED, name, posed=True))
    return [*rows, MethodRow(FEW, FIELD, few=True), MethodRow(PUBLISHED, PUBLISHED, few=True)]


def chosen_rows(names: tuple[str, ...]) -> list[MethodRow]:
    """The rows with these names, in their own order; all for no names.

    Raises:
        UsageError: There is no such row.
    """
    rows = all_rows()
    known = [row.name for row in rows]
    for name in names:
        if name not in known:
            raise UsageError(f"unknown method {name!r}", remedy=f"known: {', '.join(known)}")
    return [row for row in rows if row.name in names or not names]
