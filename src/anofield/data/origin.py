"""Where the scans of a cohort come from: how many people, which contrast, and the program that made synthetic ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from anofield._words import counted
from anofield.data.cohort.case import Case
from anofield.data.cohort.contrast import contrast_in
from anofield.data.cohort.own import maker_of
from anofield.data.scan import stem

SEVERAL = "+"  # between the contrasts of a cohort that has several: T1w+T2w


class Origin(BaseModel):
    """Where the scans of a cohort come from, as far as it is known.

    Attributes:
        people: Number of people; 0 if it is not known.
        contrast: Contrast of the scans, such as `T2w`; several are joined by `+`; empty if it is not known.
        learned: Whether the contrast was learned from the order of the tissues, because no name says it.
        maker: Program that made the scans, if all of them are synthetic; empty for others.
    """

    model_config = ConfigDict(frozen=True)

    people: int = 0
    contrast: str = ""
    learned: bool = False
    maker: str = ""

    @property
    def synthetic(self) -> bool:
        """Whether a program made the scans."""
        return bool(self.maker)

    def __str__(self) -> str:
        """A few words.

        >>> str(Origin(people=224, contrast="T2w", maker="anofield phantom")), str(Origin(people=12))
        ('224 synthetic people (anofield phantom), T2w', '12 people, contrast unknown')
        """
        some = f"{self.people or 'an unknown number of'} "
        who = f"{some}synthetic people ({self.maker})" if self.maker else some + "people"
        who = counted(1, "person") if self.people == 1 and not self.maker else who
        return f"{who}, {self.contrast or 'contrast unknown'}"


def origin_of(cases: Sequence[Case]) -> Origin:
    """Where some scans come from, by their names and headers; files that cannot be read are left out."""
    makers = {maker_of(case.image) for case in cases}
    people = {case.subject or case.id for case in cases}
    maker = makers.pop() if len(makers) == 1 else ""
    return Origin(people=len(people), contrast=joined(contrast_of(case) for case in cases), maker=maker)


def contrast_of(case: Case) -> str:
    """Contrast of a scan, as its cohort or its own name says; empty if neither does."""
    return case.contrast or contrast_in(stem(case.image))


def joined(contrasts: Iterable[str]) -> str:
    """The contrast of a cohort from those of its scans; empty if one of them is not known.

    >>> joined(["T2w", "T2w"]), joined(["T2w", "T1w"]), joined(["T2w", ""])
    ('T2w', 'T1w+T2w', '')
    """
    found = set(contrasts)
    return "" if "" in found else SEVERAL.join(sorted(found))
