"""One scan from file to anomaly map: anofield against the published procedure, on the same network and the same scans.

    python benchmarks/detect.py -m EXPERIMENT -i SCANS/ [--cases 2] [--precision auto]

Seconds of the published procedure are extrapolated from a few of its iterations and slices, done plainly (the oracle of
the tests: code concatenated to every point, weight norm in every call, gradients of the weights too), in turns with
ours. What it arrives at (cross-entropy, AP) comes from all of its iterations, done with our arithmetic, which gives the
same gradients. Cross-entropy is that of voxels drawn anew, of the whole lattice and of the brain; AP that of the final
map inside the brain, lesion truth from beside the scans.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional

from anofield.data.cohort.case import Case
from anofield.data.cohort.find import find_cases
from anofield.data.labels import as_labels
from anofield.data.prepare import prepare_case
from anofield.data.prepared import Prepared
from anofield.detect import published as ifl2021
from anofield.detect.detection import Detection
from anofield.detect.model import Model, load_model
from anofield.detect.options import DetectOptions, FieldOptions, PublishedOptions
from anofield.detect.run import detect_case
from anofield.field.decoder import folded_weights
from anofield.field.points import axis_coordinates, coordinates_of
from anofield.typing import Mask

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle import PublishedNetwork, joined

FRESH = 100_000  # voxels that cross-entropy is measured on
SIDES: dict[str, FieldOptions] = {
    "anofield": DetectOptions(also=("cross-entropy",)),
    "published": PublishedOptions(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-i", "--input", required=True)
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=("speed", "quality"))
    options = parser.parse_args()
    model = load_model(options.model, precision=options.precision)
    cases = find_cases(options.input)[: options.cases]
    print(f"torch {torch.__version__}, {model.device}, {torch.get_num_threads()} threads, ours in {model.precision}")
    if options.only != "quality":
        speed(model, cases, options.turns)
    if options.only != "speed":
        quality(model, cases)


def speed(model: Model, cases: list[Case], turns: int) -> None:
    """Wall seconds of a whole case, and their ratio."""
    plain, ratios, ours = Plain(model), [], []
    prepared = prepare_case(cases[0], model.recipe)
    for turn in range(turns):
        case = cases[turn % len(cases)]
        seconds, found = _timed(lambda case=case: _whole(case, model))
        theirs = plain.seconds(prepared)
        ours.append(seconds)
        ratios.append(sum(theirs.values()) / seconds)
        stages = ", ".join(f"{name} {value:.1f}" for name, value in found.seconds.items())
        parts = ", ".join(f"{name} {value:.0f}" for name, value in theirs.items())
        print(f"  ours {seconds:6.1f} s ({stages});  published {sum(theirs.values()):6.0f} s ({parts})", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  {statistics.median(ratios):.0f} × ({min(ratios):.0f} to {max(ratios):.0f}); "
          f"ours {statistics.median(ours):.1f} s; peak memory of both sides {peak:.2f} GiB")  # fmt: skip
    _floor(model, prepared, statistics.median(ours))


def _whole(case: Case, model: Model) -> Detection:
    """From scan file to files on disk."""
    found = detect_case(case, model, DetectOptions(also=()), None)
    with tempfile.TemporaryDirectory() as folder:
        found.save(Path(folder) / case.id)
    return found


def _floor(model: Model, prepared: Prepared, seconds: float) -> None:
    """Operations of fit and decoding over the measured peak of the matrix products."""
    weights = sum(weight.numel() for weight in folded_weights(model.trained.field.decoder))
    fit = DetectOptions().fit
    voxels = int(prepared.brain.sum()) / fit.step(prepared.lattice.resolution) ** 3
    operations = 2 * weights * (2 * fit.iterations * fit.points + voxels)
    a = torch.randn(4096, 512).to(torch.bfloat16 if model.trained.field.bfloat16 else torch.float32)
    b = torch.randn(512, 512).to(a.dtype)
    best = min(_timed(lambda: [a @ b for _ in range(40)])[0] for _ in range(5))
    peak = 40 * 2 * a.numel() * 512 / best
    floor = operations / peak
    print(f"  floor: {operations / 1e12:.2f} TFLOP at {peak / 1e9:.0f} GFLOP/s = {floor:.1f} s of {seconds:.1f}")


class Plain:
    """The published procedure as its description has it, a few steps of it."""

    def __init__(self, model: Model) -> None:
        specs = model.trained.specs
        network = specs.dump()["NetworkSpecs"]
        self.network = PublishedNetwork(specs.code_length, specs.octaves, **network)
        self.network.load_state_dict(model.trained.field.decoder.state_dict())
        self.network.eval()
        self.code = torch.zeros(1, specs.code_length, requires_grad=True)

    def seconds(self, prepared: Prepared) -> dict[str, float]:
        """Of every stage of one case."""
        phases = {
            f"{phase.iterations}×{phase.points}": phase.iterations * _timed(lambda p=phase: self._step(prepared, p))[0]
            for phase in ifl2021.SCHEDULE
        }
        side = prepared.lattice.resolution
        slices = [_timed(lambda k=k: self._slice(k, side))[0] for k in (0, side // 2)]
        values = np.random.default_rng(0).random(prepared.lattice.shape, dtype=np.float32)
        return {**phases, "decode": side * statistics.mean(slices), "filter": _timed(lambda: _pool(values))[0]}

    def _step(self, prepared: Prepared, phase: ifl2021.Phase) -> None:
        flat = torch.randint(prepared.classes.size, (phase.points,))
        axis = axis_coordinates(prepared.lattice.resolution, prepared.recipe.lattice)
        points = coordinates_of(flat, len(axis), axis)
        targets = torch.from_numpy(prepared.classes.reshape(-1)).long()[flat]
        functional.cross_entropy(self.network(joined(points[None], self.code)), targets).backward()

    def _slice(self, k: int, side: int) -> None:
        with torch.no_grad():
            flat = torch.arange(side**2) + k * side**2
            points = coordinates_of(flat, side, torch.linspace(-1, 1, side))
            functional.log_softmax(self.network(joined(points[None], self.code)), dim=-1)


def _pool(values: np.ndarray) -> Tensor:
    x = torch.from_numpy(values)[None, None]
    return functional.avg_pool3d(-functional.max_pool3d(-x, 3, 1, 1), 15, 1, 7)


def quality(model: Model, cases: list[Case]) -> None:
    """Cross-entropy at fresh voxels and AP of both, with the seconds that all published iterations took here."""
    print("| case | procedure | CE lattice | CE brain | CE brain but the lesion | AP |\n" + "|---" * 6 + "|")
    for case in cases:
        prepared = prepare_case(case, model.recipe)
        for name, options in SIDES.items():
            found = detect_case(case, model, options, None)
            brain = prepared.brain
            regions = (np.ones_like(brain), brain, brain if prepared.label is None else brain & (prepared.label == 0))
            entropies = " | ".join(f"{_fresh(model, prepared, found, region):.4f}" for region in regions)
            scores = {name: _ap(case, found, name) for name in found.maps}
            shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            print(f"| {case.id} | {name} | {entropies} | {shown} |", flush=True)


def _fresh(model: Model, prepared: Prepared, found: Detection, region: Mask) -> float:
    """Cross-entropy at voxels of a region drawn anew, nats."""
    generator = torch.Generator().manual_seed(99)
    voxels = torch.from_numpy(np.flatnonzero(region))
    flat = voxels[torch.randint(len(voxels), (FRESH,), generator=generator)]
    axis = axis_coordinates(prepared.lattice.resolution, prepared.recipe.lattice)
    points, fit = coordinates_of(flat, len(axis), axis), found.fit
    targets = torch.from_numpy(prepared.classes.reshape(-1)).long()[flat]
    if fit is None:
        raise SystemExit("no fit")
    with torch.no_grad():
        placed = points if fit.pose is None else fit.pose(points)
        parts = [model.trained.field.logits(some[None], fit.code[None])[0] for some in placed.split(16_384)]
        return float(functional.cross_entropy(torch.cat(parts), targets))


def _ap(case: Case, found: Detection, name: str) -> float:
    if case.label is None:
        return float("nan")
    truth = as_labels(case.label, found.scan) > 0
    return float(average_precision_score(truth[found.brain], found.maps[name][found.brain]))


def _timed(work: Callable[[], object]) -> tuple[float, Detection]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result  # type: ignore[return-value]


if __name__ == "__main__":
    main()
