"""Output in the format of the MOOD challenge: scores in [0, 1], per voxel or per scan, for a folder of scans.

Source: Zimmerer et al. 2022, «MOOD 2020: a public benchmark for out-of-distribution detection and localization on
medical images», IEEE TMI. `pixel` writes a NIfTI of the same name, shape and affine, `sample` a `<name>.txt` with one
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from anofield._files import write_text
from anofield.data.cohort.case import Case, one_name
from anofield.data.parallel import Outcome, map_cases
from anofield.data.scan import write_like
from anofield.detect.calibration import Calibrated, look_up
from anofield.detect.model import Model
from anofield.detect.options import FieldOptions
from anofield.detect.run import detect_case
from anofield.errors import CohortError, ExperimentError
from anofield.typing import FloatVolume, PathLike

Task = Literal["pixel", "sample"]


def run_mood(
    cases: Sequence[Case], model: Model, options: FieldOptions, out: PathLike, task: Task
) -> list[Outcome[Path]]:
    """Score every scan; a failing scan is recorded and does not stop the others.

    Args:
        cases: The scans.
        model: A calibrated model.
        options: Options that it was calibrated with.
        out: Folder of the results.
        task: `pixel` or `sample`.

    Raises:
        CohortError: Two scans have one file name, which names the results.
        ExperimentError: The model is not calibrated, so its scores cannot be scaled to [0, 1].
    """
    first: dict[str, Case] = {}
    for case in cases:
        if (other := first.setdefault(one_name(case.image.name), case)) is not case:
            raise CohortError(
                f"two scans have the file name {case.image.name!r}", where=f"{other.image} and {case.image}",
                why="results of the challenge are named after the file", remedy="use the two folders separately",
            )  # fmt: skip
    found = look_up(model, options)
    if found is None or found.threshold is None:
        raise ExperimentError(
            "is not calibrated", where=model.path, why="scores in [0, 1] need a calibrated threshold",
            remedy="run `anofield calibrate` first",
        )  # fmt: skip
    work = partial(_one, model=model, options=options, out=Path(out).absolute(), task=task, calibrated=found)
    return list(map_cases(work, cases, label=f"mood {task}"))


def unit_score(score: FloatVolume, threshold: float) -> FloatVolume:
    """A score on [0, 1): ½ at the threshold, s/(s + threshold), order preserved; negative scores become 0.

    >>> unit_score(np.array([0.0, 2.0, 6.0]), 2.0).tolist()
    [0.0, 0.5, 0.75]
    """
    positive = np.maximum(score, 0.0)
    return np.asarray(positive / (positive + max(threshold, 1e-6)))


def _one(case: Case, *, model: Model, options: FieldOptions, out: Path, task: Task, calibrated: Calibrated) -> Path:
    found = detect_case(case, model, options.model_copy(update={"also": ()}), calibrated)
    anomaly, threshold = found.maps[options.score], calibrated.thresholds[options.score]
    if task == "pixel":
        path = out / case.image.name
        write_like(found.scan, unit_score(anomaly, threshold).astype(np.float32), path, description="anofield mood")
        return path
    path = out / f"{case.image.name}.txt"
    score = unit_score(np.array([found.case_score]), threshold)
    write_text(path, f"{float(score[0]):.6f}\n")
    return path
