"""Small shared builders: people without files and a store of them, specs, checkpoints, a trained phantom world."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from anofield.data.brain import StrippedScan
from anofield.data.centers import fit_cohort_centers
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.lattice import Lattice
from anofield.data.prepared import Prepared
from anofield.data.recipe import Recipe, recipe_for
from anofield.data.scan import Scan
from anofield.data.store import Store, prepare_cohort
from anofield.detect.calibrate import calibrate
from anofield.detect.calibration import look_up
from anofield.detect.detection import Detection
from anofield.detect.method import Method
from anofield.detect.model import Model, load_model
from anofield.detect.options import DetectOptions, FitOptions, RunOptions
from anofield.detect.run import detect_case
from anofield.field.experiment import Checkpoint, Experiment
from anofield.field.logs import Logs
from anofield.field.specs import Specs
from anofield.field.train import TrainOptions, train
from anofield.phantom.cohort import Cohort, plan_cohort, write_cohort

torch.set_num_threads(1)  # tiny networks are slower on several

PUBLISHED: dict[str, Any] = {
    "Description": ["IFL on T2w scans of healthy people"],
    "DataSource": "data/HCP_extracted",
    "SamplesPerScene": 16384,
    "ScenesPerBatch": 6,
    "DataLoaderThreads": 6,
    "NetworkSpecs": {
        "dims": [512] * 8,
        "dim_out": 10,
        "dropout": list(range(8)),
        "dropout_prob": 0.2,
        "norm_layers": list(range(8)),
        "latent_in": [4],
        "xyz_in_all": False,
        "latent_dropout": False,
        "weight_norm": True,
    },
    "CodeLength": 256,
    "L": 10,
    "NumEpochs": 2001,
    "SnapshotFrequency": 1000,
    "AdditionalSnapshots": [100, 500],
    "LearningRateSchedule": [
        {"Type": "Step", "Initial": 0.0005, "Interval": 500, "Factor": 0.5},
        {"Type": "Step", "Initial": 0.001, "Interval": 500, "Factor": 0.5},
    ],
    "CodeRegularization": True,
    "CodeRegularizationLambda": 1e-4,
    "CodeBound": 1.0,
    "EncodeImage": False,
}
CLASSES = 4
CENTERS = (0.0, 0.3, 0.5, 0.7)
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])


def oblique_affine(spacing: float = 5.0) -> np.ndarray:
    """Left-right flipped, turned about z by 16 degrees, off the origin."""
    affine = np.eye(4)
    affine[:3, :3] = TURN @ np.diag([-spacing, spacing, spacing])
    affine[:3, 3] = (40.0, -30.0, 12.5)
    return affine


def make_scan(shape: tuple[int, int, int], affine: np.ndarray | None = None) -> Scan:
    return Scan(np.zeros(shape, np.float32), oblique_affine() if affine is None else affine, None, Path("scan.nii.gz"))


def make_prepared(seed: int, resolution: int = 12) -> Prepared:
    """An ellipsoid brain with a bright core; its size and the core's place differ from person to person."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[(2 * np.arange(resolution) + 1) / resolution - 1] * 3, indexing="ij"))
    radii = generator.uniform(0.65, 0.95, 3)[:, None, None, None]
    core = generator.uniform(-0.3, 0.3, 3)[:, None, None, None]
    brain = ((grid / radii) ** 2).sum(0) < 1
    classes = brain * (1 + (((grid - core) ** 2).sum(0) < 0.3) + (((grid - core) ** 2).sum(0) < 0.1))
    classes = classes.astype(np.uint8)
    intensity = np.take(np.array(CENTERS, np.float32), classes)
    affine = oblique_affine()
    lattice = Lattice(resolution, np.eye(4), (resolution,) * 3, affine)
    recipe = Recipe(resolution=resolution, centers=CENTERS)
    return Prepared(
        classes=classes,
        brain=brain,
        intensity=intensity,
        label=None,
        lattice=lattice,
        recipe=recipe,
        scale=(0.0, 1000.0),
    )  # fmt: skip


def make_native(prepared: Prepared) -> StrippedScan:
    """The scan of `make_prepared`, whose own voxels are those of the lattice."""
    scan = Scan(prepared.intensity * 1000, prepared.lattice.native_affine, nib.Nifti1Header(), Path("scan.nii.gz"))
    return StrippedScan(scan, prepared.brain)


def with_lesion(prepared: Prepared, size: int = 3) -> Prepared:
    """The same person with a cube of the brightest class at one side of the brain."""
    classes = prepared.classes.copy()
    middle = prepared.lattice.resolution // 2
    place = (slice(2, 2 + size), slice(middle, middle + size), slice(middle, middle + size))
    classes[place] = np.where(prepared.brain[place], CLASSES - 1, 0)
    return replace(prepared, classes=classes)


def make_store(path: Path, people: int = 5, resolution: int = 12, first: int = 0) -> Store:
    """A store of people `first`, `first` + 1 …, the same whenever it is made."""
    numbers = range(first, first + people)
    cases = [Case(f"p{number}", Path(f"{number}.nii.gz")) for number in numbers]
    recipe = Recipe(resolution=resolution, centers=CENTERS)
    store = Store.create(path, cases, recipe, labels=False, side=resolution)
    for row, number in enumerate(numbers):
        store.write(row, make_prepared(number, resolution), f"{number:064x}")
    return Store(path)


def tiny_specs(**changes: Any) -> Specs:
    """A network that trains in a blink; `changes` are published keys."""
    layers = [0, 1, 2]
    content: dict[str, Any] = {
        "DataSource": "store.zarr",
        "NetworkSpecs": {
            "dims": [48, 48, 48],
            "dim_out": CLASSES,
            "dropout": layers,
            "dropout_prob": 0.1,
            "norm_layers": layers,
            "weight_norm": True,
            "latent_in": [2],
        },
        "CodeLength": 6,
        "L": 2,
        "NumEpochs": 4,
        "SamplesPerScene": 128,
        "ScenesPerBatch": 2,
        "LearningRateSchedule": [
            {"Type": "Step", "Initial": 2e-3, "Interval": 2, "Factor": 0.5},
            {"Type": "Warmup", "Initial": 1e-3, "Final": 5e-3, "Length": 3},
        ],
        "LogFrequency": 1,
        "CodeBound": 1.0,
        "CodeRegularizationLambda": 1e-2,
        "Seed": 3,
    }
    return Specs.model_validate({**content, **changes})


def train_on(experiment: Path, store: Path) -> None:
    """In a process of its own: train from where the experiment stands."""
    train(Experiment(experiment), Store(store), TrainOptions(device="cpu"), resume="auto")


def make_checkpoint(epoch: int, step: int = 0) -> Checkpoint:
    """Every number in it says which epoch and step it belongs to, so that a mixture shows."""
    value = torch.full((2, 3), float(100 * epoch + step))
    logs = Logs(epoch, [float(i) for i in range(3 * epoch + step)], [[0.1, 0.2]] * epoch, [1.0] * epoch, [1.0] * epoch)
    return Checkpoint(epoch=epoch, step=step, model={"w": value}, code_ids=["a", "b"], codes=value + 1,
                      optimizer={"state": {0: {"step": value + 2}}}, logs=logs)  # fmt: skip


def install(site: Path, module: str, code: str, points: dict[str, dict[str, str]]) -> Path:
    """A package of one module with entry points, group → name → `module:object`, as pip would leave it in `site`."""
    about = site / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"{module}.py").write_text(code)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    groups = [f"[{group}]\n" + "\n".join(f"{name} = {place}" for name, place in lines.items())
              for group, lines in points.items()]  # fmt: skip
    (about / "entry_points.txt").write_text("\n".join(groups) + "\n")
    return site


@dataclass(frozen=True)
class World:
    """A phantom cohort and a small model that was trained and calibrated on its healthy people."""

    root: Path
    training: list[Case]
    healthy: list[Case]
    glioma: list[Case]

    @property
    def experiment(self) -> Path:
        return self.root / "experiment"

    @property
    def model(self) -> Model:
        return load_model(self.experiment, device="cpu", precision="float32")


QUICK = DetectOptions(also=("crps", "intensity"), fit=FitOptions(iterations=15, points=512))


@cache
def small_world(root: Path) -> World:
    """Eight healthy people for training, two for calibration, two with a glioma; made once per session."""
    parts = {}
    for part, healthy, glioma, first in (("train", 8, 0, 0), ("healthy", 2, 0, 8), ("glioma", 0, 2, 10)):
        write_cohort(root / part, Cohort("brats", size=32), plan_cohort(healthy, glioma, ("glioma",), first))
        parts[part] = find_cases(root / part, dataset="brats")
    recipe = recipe_for("box", 24)
    recipe = recipe.model_copy(update={"centers": fit_cohort_centers(parts["train"], recipe, 6)})
    store, _ = prepare_cohort(parts["train"], recipe, root / "train.zarr")
    layers = [0, 1, 2]
    rates = [{"Type": "Constant", "Value": 5e-3}, {"Type": "Constant", "Value": 1e-2}]
    specs = tiny_specs(
        NetworkSpecs={"dims": [64] * 3, "dim_out": 6, "dropout": [], "norm_layers": layers, "weight_norm": True,
                      "latent_in": [2]},
        CodeLength=8, L=3, NumEpochs=60, SamplesPerScene=512, ScenesPerBatch=8, LearningRateSchedule=rates,
        LogFrequency=60, BrainFraction=0.8,
    )  # fmt: skip
    train(Experiment.create(root / "experiment", specs), store, TrainOptions(device="cpu"))
    world = World(root, parts["train"], parts["healthy"], parts["glioma"])
    calibrate(world.healthy, world.model, QUICK)
    return world


def uncalibrated(world: World, folder: Path) -> Model:
    """A copy of the world's model without its calibrations."""
    ignored = shutil.ignore_patterns("calibrations")
    copy = shutil.copytree(world.experiment, folder, ignore=ignored, dirs_exist_ok=True)
    return load_model(copy, device="cpu", precision="float32")


def found_in(case: Case, method: Method, options: RunOptions) -> Detection:
    """Detect with the calibration of these options."""
    return detect_case(case, method, options, look_up(method, options))


def threshold_of(method: Method, options: RunOptions) -> float | None:
    """The calibrated threshold of the main score; None without a calibration."""
    calibrated = look_up(method, options)
    return None if calibrated is None else calibrated.threshold


def facts_of(path: Path) -> dict[str, Any]:
    """Content of a JSON file without its checksum, for comparisons, or to write it back changed."""
    content: dict[str, Any] = json.loads(path.read_text())
    content.pop("checksum", None)
    return content
