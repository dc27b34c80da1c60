"""Ablation of the detection on phantom cohorts: one switch at a time against the default, fields trained once.

Usage: python benchmarks/detection.py OUT --demos DEMO ... [--rows NAME ...]. DEMO is a folder of `anofield demo`.
Further cohorts (healthy people, small and dark lesions, displaced gliomas) are written to OUT once; every row and
demo leaves one JSON file there, so a run that was stopped goes on. About 1.5 s per case and fit on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anofield._files import write_json
from anofield.benchmark.people import Changed, displaced
from anofield.curves import ScoreHistogram, exact_curve, top_mean
from anofield.data.brain import as_stripped
from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.labels import as_labels
from anofield.detect.calibration import Calibrated
from anofield.detect.detection import CASE_ML, Examined, examine
from anofield.detect.findings import components
from anofield.detect.fit import Fit
from anofield.detect.model import Model, load_model
from anofield.detect.options import SMALL_LESIONS, DetectOptions, FitOptions
from anofield.detect.reference import Moments, Standard, Sums
from anofield.phantom.cohort import Cohort, write_case

QUANTILES = (0.998, 0.999)
GROUPS = {"healthy": (None, 300, 10), "small": ("small", 340, 8), "dark": ("dark", 360, 4)}  # kind, first, count
GLIOMAS = 12  # of the demo
DISPLACED = 6  # gliomas of the demo, turned by up to 20 degrees, shifted by up to 30 mm, sized 0.9 to 1.1
BRIGHT = ("glioma", "displaced", "small")


COLUMNS = (  # heading → figure
    {
        "AP": "glioma AP",
        "Dice": "glioma Dice 0.999",
        "Dice, oracle": "glioma oracle",
        "displaced: AP": "displaced AP",
        "displaced: Dice": "displaced Dice 0.999",
    },
    {
        "small: AP": "small AP",
        "small: recall at 1 FP": "small recall at 1 FP",
        "small: case AUROC": "small case AUROC",
        "dark: AP": "dark AP",
        "healthy volume / promise": "healthy volume/promise 0.999",
    },
)


def options(score: str = "deviation", fit: dict[str, Any] | None = None, **filters: Any) -> DetectOptions:
    """The default but for what is named."""
    return DetectOptions.model_validate({"score": score, "also": (), "fit": fit or {}, "filters": filters})


ROWS: dict[str, DetectOptions] = {
    "default": options(),
    "before: no pose, no guided filter, Gaussian 11 mm": options(
        fit={"pose": "none"}, edge_mm=0, native_edge_mm=0, gaussian_mm=11
    ),
    "no guided filter": options(edge_mm=0, native_edge_mm=0),
    "no guided filter on native voxels": options(native_edge_mm=0),
    "Gaussian 11 mm": options(gaussian_mm=11),
    "minimum 0, Gaussian 4 mm": options(minimum_mm=0, gaussian_mm=4),
    "standardised": options(standardise=True),
    "elastic 7 mm": options(fit={"elastic_mm": 7}),
    "preset small-lesions": SMALL_LESIONS.model_copy(update={"also": ()}),
    "preset small-lesions without elastic": SMALL_LESIONS.model_copy(update={"also": (), "fit": FitOptions()}),
    "tail-probability standardised": options("tail-probability", standardise=True),
    "tail dark": options(tail="dark"),
    "tail both": options(tail="both"),
    "score cross-entropy": options("cross-entropy"),
    "score crps": options("crps"),
    "score tail": options("tail-probability"),
    "pose none": options(fit={"pose": "none"}),
    "intensity smooth": options(fit={"intensity": "smooth"}),
    "120 iterations": options(fit={"iterations": 120}),
}


@dataclass
class Seen:
    """One scored case: map and truth at the brain voxels, and what is needed to count lesions."""

    values: NDArray[np.float32]
    truth: NDArray[np.bool_]
    brain: NDArray[np.bool_]
    score: float


def main() -> None:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--demos", type=Path, nargs="+", required=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    chosen = parser.parse_args()
    for demo in chosen.demos:
        for names in _by_fit(chosen.rows):
            missing = [name for name in names if not _file(chosen.out, demo, name).is_file()]
            if missing:
                run(chosen.out, demo, missing)
    print(table(chosen.out, chosen.demos, chosen.rows))


def run(out: Path, demo: Path, names: list[str]) -> None:
    """Score all groups of one demo with rows that share their fit options."""
    model = load_model(demo / "experiment", device="cpu", precision="float32")
    groups = cohorts(out, demo)
    seen: dict[str, dict[str, list[Seen]]] = {name: {group: [] for group in groups} for name in names}
    kept = out / "fits" / demo.name
    healthy = [_examine(case, model, names, kept / "calibration") for case in groups["calibration"]]
    seconds: list[float] = []
    judges = {name: _Judge(name, healthy) for name in names}
    for group, cases in groups.items():
        for index, case in enumerate(cases):
            own = group == "calibration"
            examined = healthy[index] if own else _examine(case, model, names, kept / group)
            seconds += [sum(one.seconds.values()) for one in list(examined.values())[:1]]
            for name, judge in judges.items():
                seen[name][group].append(judge.see(case, examined, own=own))
    for name in names:
        write_json(_file(out, demo, name), {**measure(seen[name]), "s/case": float(np.median(seconds))})


def cohorts(out: Path, demo: Path) -> dict[str, list[Case]]:
    """Calibration and glioma cases of the demo, and the further groups, written where they are missing."""
    about = json.loads((demo / "demo.json").read_text())
    seed, size = about["seed"], about["plan"]["scan_size"]
    found = {"calibration": find_cases(demo / "cohort" / "calibration", dataset="brats", modality="T2w")}
    for name, (kind, first, count) in GROUPS.items():
        folder = out / demo.name / name
        for number in range(first, first + count):
            if not list(folder.glob(f"*_{number}_*/*_t2.nii.gz")):
                write_case(folder, Cohort("brats", size=size, seed=seed), number, kind)
        found[name] = find_cases(folder, dataset="brats", modality="T2w")[:count]
    found["glioma"] = find_cases(demo / "cohort" / "test", dataset="brats", modality="T2w")[:GLIOMAS]
    found["displaced"] = _displaced(found["glioma"][:DISPLACED], out / demo.name, seed)
    return found


def _displaced(cases: list[Case], folder: Path, seed: int) -> list[Case]:
    """The same scans, lying elsewhere in the world."""

    class Gliomas:
        name = "gliomas"

        def cases(self, folder: Path, seed: int) -> list[Case]:
            return cases

    return Changed(people=Gliomas(), change=displaced).cases(folder, seed)


def measure(seen: dict[str, list[Seen]]) -> dict[str, Any]:
    """Figures of one row on one demo."""
    healthy = ScoreHistogram()
    for case in seen["calibration"]:
        healthy.add(case.values)
    figures: dict[str, Any] = {}
    for quantile in QUANTILES:
        threshold = healthy.quantile(quantile)
        above = np.mean([float((case.values > threshold).mean()) for case in seen["healthy"]])
        figures[f"healthy volume/promise {quantile}"] = float(above / (1 - quantile))
        for group in ("glioma", "displaced", "small", "dark"):
            figures[f"{group} Dice {quantile}"] = float(np.mean([_dice(case, threshold) for case in seen[group]]))
    for group in ("glioma", "displaced", "small", "dark"):
        pooled = exact_curve(*(np.concatenate([getattr(c, k) for c in seen[group]]) for k in ("values", "truth")))
        figures[f"{group} AP"] = pooled.average_precision()
        figures[f"{group} oracle"] = pooled.best_dice()[0]
        figures[f"{group} case AUROC"] = _auroc([c.score for c in seen[group]], [c.score for c in seen["healthy"]])
    figures["small recall at 1 FP"] = lesion_recall(seen["small"])
    return figures


def lesion_recall(seen: list[Seen], allowed: float = 1.0) -> float:
    """Largest share of lesions that a finding touches with at most `allowed` findings per scan that touch none."""
    best, values = 0.0, np.concatenate([case.values for case in seen])
    for quantile in 1 - np.geomspace(0.05, 2e-5, 24):
        counts = np.sum([_count(case, float(np.quantile(values, quantile))) for case in seen], axis=0)
        hit, lesions, false = (int(value) for value in counts)
        if false <= allowed * len(seen):
            best = max(best, hit / max(lesions, 1))
    return best


def table(out: Path, demos: list[Path], names: list[str]) -> str:
    """Two Markdown tables, of gliomas and of all else: mean ± SD over the demos, and on how many where some lack."""
    found = {n: [json.loads(_file(out, d, n).read_text()) for d in demos if _file(out, d, n).is_file()] for n in names}
    return "\n\n".join(_rows(columns, found, len(demos)) for columns in COLUMNS)


def _rows(columns: dict[str, str], found: dict[str, list[dict[str, float]]], demos: int) -> str:
    lines = ["| row | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, rows in found.items():
        if rows:
            few = "" if len(rows) == demos else f" (n = {len(rows)})"
            cells = [_cell([row[column] for row in rows]) for column in columns.values()]
            lines.append(f"| {name}{few} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = f"\u00a0±\u00a0{np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def _by_fit(names: list[str]) -> list[list[str]]:
    """Rows that can share a fit."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(ROWS[name].fit.model_dump_json(), []).append(name)
    return list(groups.values())


def _examine(case: Case, model: Model, names: list[str], kept: Path) -> dict[str, Examined]:
    """One scan with the scores of every row: tail → examined. Its fit is kept, so that a stopped run goes on."""
    rows = [ROWS[name] for name in names]
    settings = hashlib.sha256(rows[0].fit.model_dump_json(exclude={"elastic_mm"}).encode()).hexdigest()[:12]
    path = kept / settings / f"{case.id}.pkl"
    fit: Fit | None
    fit, seconds = pickle.loads(path.read_bytes()) if path.is_file() else (None, 0.0)
    native = as_stripped(case.image, case.mask, dtype=model.recipe.kind.dtype)
    found: dict[str, Examined] = {}
    for tail in dict.fromkeys(row.filters.tail for row in rows):
        found[tail] = examine(native, model, _joined([row for row in rows if row.filters.tail == tail]), fit)
        found[tail].seconds["fit"] = seconds = max(seconds, found[tail].seconds["fit"])
        fit = found[tail].analysis.fit
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps((fit, seconds)))
    return found


def _joined(rows: Sequence[DetectOptions]) -> DetectOptions:
    """Options that compute the scores of all these rows, which share fit and tail."""
    first, *others = sorted({row.score for row in rows})
    return rows[0].model_copy(update={"score": first, "also": tuple(others)})


class _Judge:
    """Final maps of one row, with the reference maps that it needs; calibration scans are left out of their own."""

    def __init__(self, name: str, healthy: list[dict[str, Examined]]) -> None:
        self.row = ROWS[name]
        self.healthy = [examined[self.row.filters.tail] for examined in healthy]
        self.moments = Moments.none([self.row.score], self._sums(self.healthy[0]))
        for one in self.healthy:
            self.moments = self.moments.plus(self._sums(one))
        self.standards = self.moments.standards(_spacing(self.healthy[0]))

    def see(self, case: Case, examined: dict[str, Examined], *, own: bool) -> Seen:
        """One scan with this row; `own` says whether it is one of the calibration scans."""
        one = replace(examined[self.row.filters.tail], options=self.row)
        out = own and self.row.filters.standardise
        standards = self.moments.without(self._sums(one)).standards(_spacing(one)) if out else self.standards
        final = one.native_map(self.row.score, _maps_alone(self.row.score, standards))
        scan, brain = one.native.scan, one.native.brain
        label = None if case.label is None else as_labels(case.label, scan) > 0
        truth = np.zeros(int(brain.sum()), bool) if label is None else label[brain]
        return Seen(final[brain], truth, brain, top_mean(final[brain], round(CASE_ML / scan.voxel_ml)))

    def _sums(self, one: Examined) -> Sums:
        """What a scan contributes to the reference maps."""
        return Moments.sums_of([self.row.score], one.analysis.maps, one.prepared, one.analysis.pose)


def _spacing(one: Examined) -> float:
    """Lattice spacing of a scan, mm."""
    return float(one.prepared.lattice.spacing.mean())


def _maps_alone(score: str, standards: Mapping[str, Standard]) -> Calibrated:
    """Reference maps without thresholds."""
    return Calibrated(score=score, thresholds={}, quantile=1.0, meaning="", healthy_fit={}, reference=standards)


def _dice(case: Seen, threshold: float) -> float:
    above = case.values > threshold
    return 2 * float((above & case.truth).sum()) / max(float(above.sum() + case.truth.sum()), 1.0)


def _count(case: Seen, threshold: float) -> tuple[int, int, int]:
    """Lesions found, lesions, findings that touch no lesion."""
    truth, above = np.zeros(case.brain.shape, bool), np.zeros(case.brain.shape, bool)
    truth[case.brain], above[case.brain] = case.truth, case.values > threshold
    lesions, count = components(truth)
    findings, all_found = components(above)
    both = truth & above
    return len(np.unique(lesions[both])), count, all_found - len(np.unique(findings[both]))


def _auroc(sick: list[float], healthy: list[float]) -> float:
    order = np.subtract.outer(np.array(sick), np.array(healthy))
    return float((order > 0).mean() + 0.5 * (order == 0).mean())


def _file(out: Path, demo: Path, name: str) -> Path:
    plain = "".join(c if c.isalnum() else "-" for c in name)
    return out / "rows" / f"{demo.name}-{plain}.json"


if __name__ == "__main__":
    main()
