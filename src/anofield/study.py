"""Synthetic people, store and experiment of a phantom study, used by the demo, the benchmark and the notebooks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from anofield._files import write_json
from anofield._words import counted
from anofield.data.centers import fit_cohort_centers
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.parallel import Failure, failures_of, map_cases
from anofield.data.recipe import recipe_for
from anofield.data.store import Store, prepare_cohort, stored_recipe
from anofield.errors import AnofieldError, UsageError
from anofield.field.experiment import Experiment
from anofield.field.specs import Specs
from anofield.field.train import TrainOptions, train
from anofield.phantom.cohort import Cohort, plan_cohort, write_case
from anofield.phantom.layouts import case_name, case_paths

LAYOUT = "brats"


@dataclass(frozen=True)
class Plan:
    """Sizes of a phantom study.

    Attributes:
        n_train: Number of healthy people for training.
        n_calibration: Number of healthy people for calibration.
        n_test: Number of people with lesions.
        scan_size: Voxels per axis of the synthetic scans.
        resolution: Lattice voxels per axis.
        epochs: Training epochs.
        points: Training points per person and step.
        people: People per training step.
        width: Units per hidden layer of the field.
        depth: Hidden layers of the field.
        octaves: Octaves of the positional encoding.
        code_length: Length of a code.
        classes: Number of intensity classes.
        kinds: Lesion kinds of the test people, used in turn.
        modality: Contrast of the scans.
        normalise: Normalisation of the recipe; the ablation benchmark varies it.
    """

    n_train: int
    n_calibration: int
    n_test: int
    scan_size: int
    resolution: int
    epochs: int
    points: int = 512
    people: int = 24
    width: int = 128
    depth: int = 5
    octaves: int = 6
    code_length: int = 64
    classes: int = 10
    kinds: tuple[str, ...] = field(default=("glioma",))
    modality: str = "T2w"
    normalise: str = "robust"


FULL = Plan(n_train=224, n_calibration=16, n_test=16, scan_size=96, resolution=64, epochs=200)
QUICK = Plan(n_train=64, n_calibration=8, n_test=6, scan_size=64, resolution=48, epochs=160)


def study_specs(plan: Plan, seed: int) -> Specs:
    """Specs of the experiment: a small decoder that is trained mostly inside the brain."""
    rates = [
        {"Type": "Cosine", "Initial": rate, "Final": rate / 50, "Length": plan.epochs} for rate in (2e-3, 5e-3)
    ]  # network, codes
    layers = list(range(plan.depth))
    return Specs.model_validate(
        {
            "Description": "Demo on a phantom cohort",
            "DataSource": "../train.zarr",
            "NetworkSpecs": {
                "dims": [plan.width] * plan.depth,
                "dim_out": plan.classes,
                "dropout": [],
                "norm_layers": layers,
                "weight_norm": True,
                "latent_in": [plan.depth // 2 + 1],
            },
            "CodeLength": plan.code_length,
            "L": plan.octaves,
            "NumEpochs": plan.epochs,
            "SamplesPerScene": plan.points,
            "ScenesPerBatch": plan.people,
            "LearningRateSchedule": rates,
            "LogFrequency": 20,
            "CodeInitStdDev": 0.3,
            "BrainFraction": 0.8,
            "Seed": seed,
        }
    )


def claim(out: Path, plan: Any, seed: int, force: bool, what: str = "demo") -> None:
    """Reserve a folder for a demo or benchmark, unless it already holds the same one.

    Args:
        out: Folder to reserve.
        plan: Sizes, a dataclass.
        seed: Seed of the cohort and of the training.
        force: Delete an existing demo or benchmark in the folder.
        what: `demo` or `benchmark`.

    Raises:
        UsageError: The folder holds other files, other sizes or another seed.
    """
    wanted = {"plan": asdict(plan), "seed": seed}
    mark = out / f"{what}.json"
    if force and mark.is_file():
        shutil.rmtree(out)
    if not mark.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(f"the folder is not empty and holds no {what}", where=out, remedy="choose another -o")
        write_json(mark, wanted)
        return
    if json.loads(mark.read_text()) != json.loads(json.dumps(wanted)):
        raise UsageError(
            f"holds a {what} with another seed or size", where=out, remedy="choose another -o, or --force to replace it"
        )


def make_people(folder: Path, name: str, plan: Plan, seed: int) -> list[Case]:
    """Write the missing scans of one part of the cohort (train, calibration, test); the parts share no person."""
    first = {"train": 0, "calibration": plan.n_train, "test": plan.n_train + plan.n_calibration}[name]
    healthy = {"train": plan.n_train, "calibration": plan.n_calibration, "test": 0}[name]
    lesion = plan.n_test if name == "test" else 0
    cohort = Cohort(LAYOUT, size=plan.scan_size, seed=seed, modality=plan.modality)
    return write_people(folder, cohort, plan_cohort(healthy, lesion, plan.kinds, first), f"phantom {name}")


def write_people(folder: Path, cohort: Cohort, plan: Sequence[tuple[int, str | None]], label: str) -> list[Case]:
    """Write the missing scans of some people in the layout of BraTS.

    Args:
        folder: Folder of the scans; made if missing.
        cohort: Properties that the scans share.
        plan: Case numbers and lesion kinds, see `plan_cohort`.
        label: What is written, for the progress.

    Returns:
        All cases that are in the folder then.
    """
    people = {case_name(LAYOUT, n, kind): (n, kind) for n, kind in plan}
    work = partial(_write_person, folder=folder, cohort=cohort, people=people)
    images = {
        case_id: case_paths(LAYOUT, case_id, cohort.modality, kind).image for case_id, (_, kind) in people.items()
    }
    asked = [Case(case_id, folder / image) for case_id, image in images.items()]
    refuse_failures(failures_of(list(map_cases(work, asked, label=label))))
    return find_cases(folder, dataset=LAYOUT, modality=cohort.modality)


def _write_person(case: Case, *, folder: Path, cohort: Cohort, people: dict[str, tuple[int, str | None]]) -> None:
    number, kind = people[case.id]
    if not (case.image.is_file() and case.image.with_name(f"{case.id}_seg.nii.gz").is_file()):
        write_case(folder, cohort, number, kind)


def make_store(cases: list[Case], path: Path, plan: Plan, seed: int) -> Store:
    """Prepare the scans of the training people, with class centres fitted on them."""
    recipe = stored_recipe(path)
    if recipe is None:
        recipe = recipe_for("box", plan.resolution).model_copy(update={"normalise": plan.normalise})
        recipe = recipe.model_copy(update={"centers": fit_cohort_centers(cases, recipe, plan.classes, seed)})
    store, outcomes = prepare_cohort(cases, recipe, path)
    refuse_failures(failures_of(outcomes))
    return store


def make_experiment(path: Path, store: Store, plan: Plan, seed: int, device: str) -> Path:
    """Train the field, or resume its training."""
    experiment = (
        Experiment(path) if (path / "specs.json").is_file() else Experiment.create(path, study_specs(plan, seed))
    )
    options = TrainOptions(device=device, precision="auto")
    train(experiment, store, options, resume="latest" if experiment.has_checkpoint() else None)
    return path


def refuse_failures(failures: Sequence[Failure]) -> None:
    """Check that no case failed, which must not happen on synthetic scans.

    Raises:
        AnofieldError: A case failed.
    """
    if failures:
        raise AnofieldError(
            f"{counted(len(failures), 'case')} failed, the first: {failures[0].error}", remedy="report this"
        )
