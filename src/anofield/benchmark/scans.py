"""Groups of real people: scans where they lie, lesions implanted into them, a patient, and stripped whole heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from anofield.benchmark.measure import MappedScan
from anofield.benchmark.people import People
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.scan import read_geometry, write_like
from anofield.phantom.host import host_of
from anofield.phantom.onto import implant_in


@dataclass(frozen=True, kw_only=True)
class Scans:
    """Real healthy people of the manifest.

    Attributes:
        name: Name of the group of people.
        manifest: The manifest.
        groups: Groups of the manifest.
        subjects: Their subjects; empty for all.
    """

    name: str
    manifest: Path
    groups: tuple[str, ...]
    subjects: tuple[str, ...] = ()

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The scans, where they lie."""
        found = [case for group in self.groups for case in find_cases(self.manifest, group=group)]
        return [case for case in found if not self.subjects or case.subject in self.subjects]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """The patient with multiple sclerosis, in one contrast."""

    folder: Path
    contrast: str

    @property
    def name(self) -> str:
        """Name of the group, which is one scan."""
        return f"ms26-{self.contrast}"

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The scan with its label."""
        image, label = (self.folder / f"{part}.nii.gz" for part in (self.contrast, "lesion"))
        return [Case(self.name, image, label, subject="ms26", contrast=self.contrast)]


@dataclass(frozen=True, kw_only=True)
class Implants:
    """Healthy people, each with an implanted lesion.

    Attributes:
        name: Name of the group.
        people: The people.
        kinds: Kinds of lesions; the people take them in turn, one each.
        contrast: Contrast of the scans.
    """

    name: str
    people: People
    kinds: tuple[str, ...]
    contrast: str = "T1w"

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The scans with lesions and their labels; missing ones are written."""
        found = []
        for number, case in enumerate(self.people.cases(folder, seed)):
            found.append(self._implanted(case, self.kinds[number % len(self.kinds)], folder / self.name, seed))
        return found

    def of_kind(self, kind: str) -> Callable[[MappedScan], bool]:
        """Whether a scan has a lesion of a kind."""
        return lambda one: one.case.id.endswith(f"-{kind}")

    def _implanted(self, case: Case, kind: str, folder: Path, seed: int) -> Case:
        name = f"{case.id}-{kind}"
        image, label = folder / f"{name}_{self.contrast}.nii.gz", folder / f"{name}_label.nii.gz"
        if not (image.is_file() and label.is_file()):
            native = as_stripped(case.image, case.mask)
            lesion = implant_in(host_of(native, self.contrast), kind, seed)
            write_like(native.scan, lesion.label, label, description="lesion")
            write_like(native.scan, lesion.image, image, description="scan with a lesion")
        return Case(name, image, label, case.mask, subject=case.subject, contrast=self.contrast)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Whole heads of patients in one contrast, stripped by deepbet (Fisch et al. 2024)."""

    folder: Path
    contrast: str

    @property
    def name(self) -> str:
        """Name of the group."""
        return f"heads-{self.contrast}"

    def cases(self, folder: Path, seed: int) -> list[Case]:
        """The heads with brain masks; missing masks are written."""
        heads = find_cases(self.folder, modality=self.contrast)
        return [self._stripped(case, folder / self.name / f"{case.id}_mask.nii.gz") for case in heads]

    def _stripped(self, case: Case, mask: Path) -> Case:
        if not mask.is_file():
            mask.parent.mkdir(parents=True, exist_ok=True)
            strip(case.image, mask)
        return replace(case, id=f"{case.id}-{self.contrast}", mask=mask)


def strip(head: Path, mask: Path) -> None:
    """Write a brain mask of a whole head with deepbet."""
    from deepbet.bet import BrainExtraction  # type: ignore[import-not-found, unused-ignore]

    _, found, _ = BrainExtraction(no_gpu=True).run(str(head))
    whole: Any = nib.as_closest_canonical(found)
    geometry = read_geometry(head)
    turned = whole.as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(geometry.affine)
        )
    )
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj, dtype=np.uint8), geometry.affine), mask)
