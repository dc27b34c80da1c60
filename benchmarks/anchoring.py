"""What a pose and anchored intensities bring to the voxel-wise z-score atlas on real brains.

Rows: normalisation (robust, tissue) x pose (none, similarity, affine). Every row trains the atlas on the healthy people
of the group `train`, sets its threshold on `calibration`, and is tested on the healthy people of `test` (false volume)
and on a patient with multiple sclerosis (T1w, dark tail) whose lesions are known (average precision, Dice).

The pose needs a field: an experiment that was trained on the same people, for example by

    anofield prepare -i $ANOFIELD_REAL/oasis/participants.tsv --group train -o train.zarr --res 64
    anofield train --experiment FIELD --data train.zarr

The atlas takes no standard deviation below a floor. The usual one is 0.02; `chosen` is that under which the
calibration people are likeliest. Filters are those of `--preset small-lesions`, not standardised (or the default ones).

Usage: ANOFIELD_REAL=FOLDER python benchmarks/anchoring.py --field EXPERIMENT --work FOLDER [--filters default]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anofield.baselines import statistics
from anofield.baselines.base import observed
from anofield.baselines.run import TrainedBaseline, baseline_options, make_settings, train_baseline
from anofield.curves import exact_curve
from anofield.data.brain import as_stripped
from anofield.data.centers import fit_cohort_centers
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.prepare import prepare_scan
from anofield.data.recipe import Recipe
from anofield.data.scan import read_scan
from anofield.data.store import Store, prepare_cohort
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import look_up
from anofield.detect.detection import Detection, detect_scan
from anofield.detect.model import load_model
from anofield.detect.options import SMALL_LESIONS, BaselineOptions, FitOptions, ScoreOptions
from anofield.detect.placer import Placer
from anofield.errors import UsageError
from anofield.evaluation.case import dice

NORMALISATIONS, POSES = ("robust", "tissue"), ("none", "similarity", "affine")
RESOLUTION, CLASSES, USUAL = 64, 10, statistics.SD_FLOOR
FLOORS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
FILTERS = {
    "default": ScoreOptions(tail="dark"),
    "small-lesions": SMALL_LESIONS.filters.model_copy(update={"tail": "dark", "standardise": False}),
}


@dataclass(frozen=True)
class Row:
    """One row of the table: how scans are normalised and posed."""

    normalise: str
    pose: str

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.normalise}-{self.pose}"


@dataclass(frozen=True)
class World:
    """The real people, the field that finds poses, and the options of the runs."""

    real: Path
    field: Path
    work: Path
    options: BaselineOptions

    def people(self, group: str) -> list[Case]:
        """Healthy people of a group."""
        return find_cases(self.real / "oasis" / "participants.tsv", group=group)

    def placer(self, pose: str, steps: int) -> Placer | None:
        """What finds the poses; None without."""
        if pose == "none":
            return None
        return Placer(load_model(self.field), self.field / "poses", FitOptions(pose=pose, iterations=steps))  # type: ignore[arg-type]


def store_of(world: World, row: Row, steps: int) -> Store:
    """The training people, prepared as the row says."""
    cases, recipe = world.people("train"), Recipe(resolution=RESOLUTION, normalise=row.normalise)  # type: ignore[arg-type]
    recipe = recipe.model_copy(update={"centers": fit_cohort_centers(cases, recipe, CLASSES)})
    path = world.work / f"{row.name}.zarr"
    return prepare_cohort(cases, recipe, path, place=world.placer(row.pose, steps))[0]


def measured(world: World, row: Row, steps: int) -> list[str]:
    """Train, calibrate and test the atlas, with the usual floor of the SD and with the chosen one."""
    statistics.SD_FLOOR = USUAL
    folder, store = world.work / row.name, store_of(world, row, steps)
    atlas = train_baseline("zscore", store, folder, make_settings("zscore", {}), force=True)
    lines = []
    for floor in sorted({USUAL, likeliest_floor(atlas, world.people("calibration"))}, reverse=True):
        statistics.SD_FLOOR = floor
        calibrate(world.people("calibration"), atlas, world.options)
        false = [found.volume_ml for found in detected(world, atlas, world.people("test"))]
        precision, overlap, best, volume = patient(world, atlas)
        numbers = f"{floor:6.4f} {precision:6.3f} {best:6.3f} {overlap:6.3f} {volume:7.1f} {np.mean(false):7.2f}"
        lines.append(f"{row.normalise:7} {row.pose:11} {numbers}   " + " ".join(f"{ml:5.1f}" for ml in false))
    return lines


def likeliest_floor(atlas: TrainedBaseline, cases: Sequence[Case]) -> float:
    """The floor of the SD under which healthy people that the atlas was not trained on have the highest density."""
    state, fits = atlas.method.state(), []
    mean, sd = state["mean"].numpy(), state["sd"].numpy()
    for case in cases:
        native = as_stripped(case.image)
        prepared = prepare_scan(native, None, atlas.recipe)
        prepared = prepare_scan(native, None, atlas.recipe, atlas.place(native, prepared))
        values = observed(prepared.classes, prepared.brain, atlas.recipe)
        difference, spread = (values - mean)[prepared.brain], sd[prepared.brain]
        fits.append([_density(difference, np.maximum(spread, floor)) for floor in FLOORS])
    return FLOORS[int(np.mean(fits, axis=0).argmax())]


def _density(difference: np.ndarray, sd: np.ndarray) -> float:
    """Mean log density of a Gaussian."""
    return float((-np.log(sd) - 0.5 * (difference / sd) ** 2).mean())


def detected(world: World, atlas: TrainedBaseline, cases: Sequence[Case]) -> list[Detection]:
    """The atlas's findings."""
    calibrated = look_up(atlas, world.options)
    return [detect_scan(case, as_stripped(case.image), atlas, world.options, calibrated) for case in cases]


def patient(world: World, atlas: TrainedBaseline) -> tuple[float, float, float, float]:
    """Average precision, Dice at the threshold, best Dice, and detected ml of the patient."""
    image = world.real / "ms26" / "T1w.nii.gz"
    (found,) = detected(world, atlas, [Case("ms26", image)])
    truth = read_scan(world.real / "ms26" / "lesion.nii.gz").data[found.brain] > 0
    scores = found.maps["zscore"][found.brain]
    mask = found.mask.data[found.brain] > 0
    curve = exact_curve(scores, truth)
    return curve.average_precision(), dice(mask, truth), curve.best_dice()[0], found.volume_ml


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--field", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=FitOptions().iterations, help="steps of the fit of a pose")
    parser.add_argument("--filters", choices=FILTERS, default="small-lesions")
    parser.add_argument("--normalise", nargs="+", default=NORMALISATIONS)
    parser.add_argument("--pose", nargs="+", default=POSES)
    options = parser.parse_args()
    if "ANOFIELD_REAL" not in os.environ:
        raise UsageError("ANOFIELD_REAL is not set", remedy="set it to the folder of real scans")
    chosen = baseline_options("zscore", FILTERS[options.filters])
    world = World(Path(os.environ["ANOFIELD_REAL"]), options.field, options.work, chosen)
    print("norm    pose        floor      AP   best   Dice found ml false ml   per healthy test person, ml")
    for normalise in options.normalise:
        for pose in options.pose:
            print("\n".join(measured(world, Row(normalise, pose), options.steps)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
