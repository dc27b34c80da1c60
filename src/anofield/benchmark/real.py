"""The suites on real brains, which need the folder that the environment variable `ANOFIELD_REAL` names.

The folder has `oasis/participants.tsv` (a manifest with age, subject and the groups train, calibration and test),
`ms26/{T1w,T2w,FLAIR,lesion}.nii.gz` (a patient with multiple sclerosis) and `heads/` (whole heads of patients in a BIDS
tree). Only the scans into which lesions are implanted are copied, to the folder of the benchmark.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from anofield.benchmark.measure import Figures, MappedScan, Resampled, pooled_ap
from anofield.benchmark.people import People
from anofield.benchmark.scans import Heads, Implants, Patient, Scans
from anofield.benchmark.suite import AGAINST, Column, Part, Setting, Suite
from anofield.benchmark.synthetic import Synthetic
from anofield.benchmark.world import World
from anofield.bootstrap import Weights
from anofield.data.brain import as_stripped
from anofield.data.lattice import brain_to_lattice
from anofield.data.prepare import prepare_scan
from anofield.detect.options import SMALL_LESIONS, ScoreOptions
from anofield.detect.placer import Placer, posing
from anofield.typing import FloatVolume, Mask

VARIABLE = "ANOFIELD_REAL"
DARK, BOTH = ScoreOptions(tail="dark"), ScoreOptions(tail="both")
# Small lesions need the filters of `small-lesions`; five calibration people are too few to standardise.
FINE = SMALL_LESIONS.filters.model_copy(update={"tail": "dark", "standardise": False})
FINE_BRIGHT = FINE.model_copy(update={"tail": "bright"})
LARGE_KINDS, SMALL_KINDS = ("glioma", "dark"), ("small", "ms")  # darker than white matter in T1w
OTHER_KINDS = ("infarct", "bleeding", "infiltration", "dysplasia")  # bright, dark, or neither
EPOCHS, POINTS = 1200, 1024  # of the field on the few real people: as many steps as on the synthetic ones, and more
MS_CONTRASTS = ("T1w", "T2w", "FLAIR")


@dataclass(frozen=True)
class Real:
    """Real people for a setting.

    Attributes:
        setting: Folder, sizes, seed and device.
        folder: Folder of the real scans.
    """

    setting: Setting
    folder: Path

    @classmethod
    def of(cls, setting: Setting) -> Real:
        """The real people of the folder that the environment names; it may be missing."""
        return cls(setting, Path(os.environ.get(VARIABLE) or "."))

    @property
    def missing(self) -> str:
        """Why no suite can run; empty if they can."""
        named = os.environ.get(VARIABLE)
        if not named:
            return f"{VARIABLE} names no folder with real brains"
        return "" if self.manifest.is_file() else f"{VARIABLE} is {named}, which has no oasis/participants.tsv"

    @property
    def manifest(self) -> Path:
        """Table of the healthy people."""
        return self.folder / "oasis" / "participants.tsv"

    def people(self, group: str, subjects: tuple[str, ...] = ()) -> Scans:
        """A group of the manifest."""
        return Scans(name=f"real-{group}", manifest=self.manifest, groups=(group,), subjects=subjects)

    @property
    def world(self) -> World:
        """The world that is trained on the real training people."""
        plan = self.setting.sizes.plan
        if not self.setting.sizes.everything_small:
            plan = replace(plan, modality="T1w", epochs=EPOCHS, points=POINTS)
        if not self.missing:
            plan = replace(plan, n_train=list(self.column("group").values()).count("train"))
        return self.setting.world("real", self.people("train"), replace(self.setting.sizes, plan=plan))

    def column(self, name: str) -> dict[str, str]:
        """A column of the manifest by case id."""
        with self.manifest.open(encoding="utf-8", newline="") as stream:
            return {row["id"]: row[name] for row in csv.DictReader(stream, delimiter="\t")}

    def rescanned(self) -> tuple[str, ...]:
        """Subjects of the calibration who were scanned again for the test."""
        groups, subjects = self.column("group"), self.column("subject")
        again = {subjects[case] for case, group in groups.items() if group == "test"}
        return tuple(sorted(again & {subjects[case] for case, group in groups.items() if group == "calibration"}))

    def world_of(self, contrast: str) -> tuple[World, People]:
        """World and calibration people for a contrast: real ones for T1w, else synthetic ones."""
        if contrast == "T1w":
            return self.world, self.people("calibration")
        made = Synthetic(self.setting, contrast)
        return made.world, made.calibration()


def healthy(setting: Setting) -> Suite:
    """Healthy people by age, and people who were scanned twice."""
    real = Real.of(setting)
    shows = (
        "Trained on 12 healthy people of 19 to 34 years (OASIS, T1w), calibrated on 5 others; every finding in the 7 "
        "test scans is false, and two scans of a person should give the same map. Dark departures count."
    )
    if real.missing:
        return _suite("real-healthy", shows, real, (), ())
    ages, again = real.column("age"), real.rescanned()
    pairs = Scans(name="real-rescanned", manifest=real.manifest, groups=("calibration", "test"), subjects=again)
    calibration = real.people("calibration")
    parts = (
        Part(name="healthy", calibration=calibration, test=(real.people("test"),), filters=DARK,
             more=partial(by_age, ages)),
        Part(name="fine", calibration=calibration, test=(real.people("test"),), filters=FINE),
        Part(name="rescan", calibration=calibration, test=(pairs,), filters=DARK,
             more=partial(between_scans, real.world)),
    )  # fmt: skip
    columns = [
        Column("false volume, ml", "false_ml", "healthy"),
        Column("against the best other", AGAINST, "healthy"),
        Column("/ promise", "false_promise", "healthy"),
        Column("/ promise, filters for small lesions", "false_promise", "fine"),
        *(Column(f"{age} years, ml", f"ml at {age}", "healthy") for age in sorted_ages(real)),
        Column("two scans: correlation of maps", "rescan_r", "rescan"),
        Column("Dice of findings", "rescan_dice", "rescan"),
        Column("difference, ml", "rescan_ml", "rescan"),
    ]
    return replace(_suite("real-healthy", shows, real, parts, columns), rank="false_ml", lower_is_better=True)


def sorted_ages(real: Real) -> list[str]:
    """Ages of the test people, in years, youngest first."""
    ages, groups = real.column("age"), real.column("group")
    return sorted({ages[case] for case, group in groups.items() if group == "test"}, key=int)


def implants(setting: Setting) -> Suite:
    """Lesions of all kinds in real healthy people."""
    real = Real.of(setting)
    shows = (
        f"Lesions implanted into the real healthy test people, one kind a person and part, in turn. "
        f"{', '.join(LARGE_KINDS)}: dark departures count. {', '.join(SMALL_KINDS)}: dark ones, with filters for small "
        f"lesions. {', '.join(OTHER_KINDS)}: dark and bright ones."
    )
    parts, columns = [], []
    groups = (("large", LARGE_KINDS, DARK), ("small", SMALL_KINDS, FINE), ("other", OTHER_KINDS, BOTH))
    for name, kinds, filters in groups:
        group = Implants(name=f"real-{name}", people=real.people("test"), kinds=kinds)
        parts.append(Part(name=name, calibration=real.people("calibration"), test=(group,), filters=filters,
                          more=partial(by_kind, group)))  # fmt: skip
        columns += [Column(f"{name}: AP", "ap", name), Column("against the best other", AGAINST, name),
                    Column("Dice, calibrated", "dice", name), Column("Dice, oracle", "dice_oracle", name)]  # fmt: skip
        columns += [Column("recall at 1 false finding", "recall_at_1", name)] if name == "small" else []
        columns += [Column(f"{kind}: AP", f"ap {kind}", name) for kind in kinds]
    return _suite("real-implants", shows, real, parts, columns)


def patient(setting: Setting) -> Suite:
    """The patient with multiple sclerosis in three contrasts."""
    real = Real.of(setting)
    shows = (
        "One patient with multiple sclerosis (8.2 ml of lesions). T1w: trained on the real people, dark departures "
        "count. T2w and FLAIR: trained on synthetic people of that contrast, bright ones count. Filters for small "
        "lesions. One patient has no interval."
    )
    shown = {"AP": "ap", "AUROC": "auroc", "Dice, oracle": "dice_oracle"}
    parts = _parts_by_contrast(real, lambda name: Patient(folder=real.folder / "ms26", contrast=name))
    return _suite("real-ms", shows, real, parts, _columns_by_contrast(shown))


def heads(setting: Setting) -> Suite:
    """Whole clinical heads, stripped: does the field say what it cannot do."""
    real = Real.of(setting)
    shows = (
        "Two patients as they came from a clinical scanner (slices of 3 to 4 mm), stripped by deepbet. T1w: the field "
        "of the real people; T2w and FLAIR: that of synthetic ones. The field says of each scan whether it can be "
        "trusted; the volume of findings is not false, because they have lesions, which are not labelled."
    )
    shown = {"trusted": "trusted", "findings, ml": "false_ml"}
    parts = _parts_by_contrast(real, lambda name: Heads(folder=real.folder / "heads", contrast=name))
    suite = _suite("real-heads", shows, real, parts, _columns_by_contrast(shown))
    if not suite.missing and importlib.util.find_spec("deepbet") is None:
        suite = replace(suite, missing="deepbet, which strips the heads, is not installed (pip install deepbet)")
    return replace(suite, rank="false_ml", lower_is_better=True, judged_only=True)


def _parts_by_contrast(real: Real, patients: Callable[[str], People]) -> list[Part]:
    """One part per contrast, each with the world of that contrast and fine filters."""
    parts = []
    for contrast in MS_CONTRASTS:
        world, calibration = real.world_of(contrast)
        filters = FINE if contrast == "T1w" else FINE_BRIGHT
        parts.append(
            Part(name=contrast, calibration=calibration, test=(patients(contrast),), filters=filters, world=world)
        )
    return parts


def _columns_by_contrast(shown: dict[str, str]) -> list[Column]:
    """Columns for every contrast; `shown` has the figures by their headings."""
    return [Column(f"{name}: {heading}", key, name) for name in MS_CONTRASTS for heading, key in shown.items()]


def _suite(name: str, shows: str, real: Real, parts: Sequence[Part], columns: Sequence[Column]) -> Suite:
    return Suite(name=name, shows=shows, world=real.world, parts=tuple(parts), columns=tuple(columns),
                 missing=real.missing)  # fmt: skip


def by_age(ages: dict[str, str], seen: Sequence[MappedScan], threshold: float, weights: Weights) -> Figures:
    """False volume of the people of each age, ml."""
    volumes: dict[str, list[float]] = {}
    for one in seen:
        volumes.setdefault(ages[one.case.id], []).append(_volume(one, threshold))
    return {f"ml at {age}": Resampled(float(np.mean(some))) for age, some in volumes.items()}


def by_kind(group: Implants, seen: Sequence[MappedScan], threshold: float, weights: Weights) -> Figures:
    """AP over the scans with each kind of lesion."""
    found: Figures = {}
    for kind in group.kinds:
        some = [one for one in seen if group.of_kind(kind)(one)]
        if some:
            found[f"ap {kind}"] = Resampled(pooled_ap(some))
    return found


def between_scans(world: World, seen: Sequence[MappedScan], threshold: float, weights: Weights) -> Figures:
    """Agreement of two scans of a person, as the mean over people.

    Both maps are laid on the lattice on which the world's field finds the heads: correlation over the common brain,
    Dice of what lies above the threshold (1 where nothing does in both), difference of the volumes above it.
    """
    place = posing(world.experiment, device=world.device)
    subjects: dict[str, list[MappedScan]] = {}
    for one in seen:
        subjects.setdefault(one.case.subject or one.case.id, []).append(one)
    pairs = [pair for pair in subjects.values() if len(pair) == 2]
    rows = [_agreement(one, other, place, threshold) for one, other in pairs]
    names = ("rescan_r", "rescan_dice", "rescan_ml")
    return {
        name: Resampled(float(np.mean(values))) for name, values in zip(names, zip(*rows, strict=True), strict=False)
    }


def _agreement(one: MappedScan, other: MappedScan, place: Placer, threshold: float) -> tuple[float, float, float]:
    """Correlation of two maps, Dice of what lies above the threshold, difference of the volumes above it in ml."""
    (a, in_a), (b, in_b) = (_posed(scan, place) for scan in (one, other))
    a, b = a[in_a & in_b].astype(np.float64), b[in_a & in_b].astype(np.float64)
    both = int((a > threshold).sum() + (b > threshold).sum())
    dice = 2 * int(((a > threshold) & (b > threshold)).sum()) / both if both else 1.0
    correlation = float(np.corrcoef(a, b)[0, 1]) if a.std() * b.std() > 0 else 0.0
    return correlation, dice, abs(_volume(one, threshold) - _volume(other, threshold))


def _posed(one: MappedScan, place: Placer) -> tuple[FloatVolume, Mask]:
    """The map of a scan on the posed lattice, (R, R, R), and the brain there."""
    native = as_stripped(one.case.image, one.case.mask)
    recipe = place.model.recipe
    pose = place(native, prepare_scan(native, None, recipe))
    lattice = prepare_scan(native, None, recipe, pose).lattice
    return brain_to_lattice(one.map, one.brain, lattice)


def _volume(one: MappedScan, threshold: float) -> float:
    return float((one.map[one.brain] > threshold).sum()) * one.scan.voxel_ml
