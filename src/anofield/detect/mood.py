"""The contract of the MOOD challenge: a folder of scans in, scores in [0, 1] out, per voxel or per scan.

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
from anofield.data.cohort.case import Case
from anofield.data.parallel import Outcome, map_cases
from anofield.data.scan import write_like
from anofield.detect.run import DetectOptions, detect_case, top_mean
from anofield.detect.thresholds import threshold_of
from anofield.errors import ExperimentError
from anofield.field.model import Model
from anofield.typing import FloatVolume, PathLike

Task = Literal["pixel", "sample"]


def run_mood(
    cases: Sequence[Case], model: Model, options: DetectOptions, out: PathLike, task: Task
) -> list[Outcome[Path]]:
    """Score every scan; failing ones are recorded and the others go on.

    Args:
        cases: The scans.
        model: A calibrated one.
        options: Those it was calibrated with.
        out: Folder of the results.
        task: `pixel` or `sample`.

    Raises:
        ExperimentError: The model is not calibrated: its scores have no scale.
    """
    threshold = threshold_of(model, options)
    if threshold is None:
        raise ExperimentError(
            "is not calibrated", where=model.path, why="scores in [0, 1] need the healthy scale",
            remedy="run `anofield calibrate` first",
        )  # fmt: skip
    work = partial(_one, model=model, options=options, out=Path(out), task=task, threshold=threshold)
    return list(map_cases(work, cases, label=f"mood {task}"))


def calibrated(score: FloatVolume, threshold: float) -> FloatVolume:
    """A score on [0, 1): ½ at the threshold, s/(s + threshold), the order unchanged; negative scores become 0.

    >>> calibrated(np.array([0.0, 2.0, 6.0]), 2.0).tolist()
    [0.0, 0.5, 0.75]
    """
    positive = np.maximum(score, 0.0)
    return np.asarray(positive / (positive + max(threshold, 1e-6)))


def _one(case: Case, *, model: Model, options: DetectOptions, out: Path, task: Task, threshold: float) -> Path:
    found = detect_case(case, model, options.model_copy(update={"also": ()}))
    anomaly = found.maps[options.score]
    if task == "pixel":
        path = out / case.image.name
        write_like(found.scan, calibrated(anomaly, threshold).astype(np.float32), path, description="anofield mood")
        return path
    path = out / f"{case.image.name}.txt"
    score = calibrated(np.array([top_mean(anomaly[found.brain], found.scan.voxel_ml)]), threshold)
    write_text(path, f"{float(score[0]):.6f}\n")
    return path
