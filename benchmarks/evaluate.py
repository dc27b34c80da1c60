"""How long pooled AP and AUROC take, and how much memory: anofield's streamed counts against scikit-learn's sort.

Both sides run in one process, alternating, on the same synthetic scores of 8 scans of 160³ (background included, ties
among the clipped ones), and must agree. Then the scores of 285 scans are made and counted one by one in a fresh
process, whose peak memory is printed.

    python benchmarks/evaluate.py

With --files, instead: a run folder of so many scans of 240 × 240 × 155 at 1 mm, float32 maps of two scores in
compressed NIfTI files (six different scans, linked under further ids), and `anofield evaluate` on it from end to end,
intervals included, whose peak memory and CPU time are printed. --workers N evaluates on so many processes; the memory
printed is then that of the parent, which pools what they return.

    python benchmarks/evaluate.py --files 285
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from anofield._files import write_json
from anofield.data.recipe import Recipe
from anofield.detect.run_folder import CASE_FILE, RUN_FILE, CaseInfo, RunInfo, Threshold
from anofield.evaluation.pooled import PooledScores, count_case

Arrays = tuple[np.ndarray, np.ndarray]
SHAPE = (240, 240, 155)  # of the scans of BraTS, 1 mm
HALF_AXES = (65, 82, 62)  # of the brain, mm
DIFFERENT = 6  # scans in the run of files
CALIBRATED = 2.5  # threshold of the run of files
SCORES = {"deviation": "anomaly.nii.gz", "intensity": "score-intensity.nii.gz"}  # and the files of their maps
SHARE = 0.01  # of the voxels are anomalous: a glioma of 40 ml in the grid of 4.1 litres


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--side", type=int, default=160, help="voxels per axis")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--many", type=int, default=285, help="scans of the memory test; 0 for none")
    parser.add_argument("--scores", type=int, default=2, help="scores per scan of the memory test")
    parser.add_argument("--files", type=int, default=0, help="scans of the run evaluated from files, instead")
    parser.add_argument("--workers", type=int, default=1, help="processes of the run evaluated from files")
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write-only", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write_only:
        _write_run(arguments.write_only, arguments.files)
        return
    if arguments.files:
        _end_to_end(arguments.files, arguments.workers)
        return
    if arguments.memory_only:
        _stream(arguments.many, arguments.side, arguments.scores)
        return
    _race([_scan(seed, arguments.side) for seed in range(arguments.scans)], arguments.repeat)
    if arguments.many:
        subprocess.run([sys.executable, __file__, "--memory-only", *sys.argv[1:]], check=True)


def _scan(seed: int, side: int) -> Arrays:
    """Scores and truth of one scan: half background of zeros, healthy scores that are clipped at 0, a lesion."""
    generator = np.random.default_rng(seed)
    truth = generator.random(side**3, dtype=np.float32) < SHARE
    scores = generator.standard_normal(side**3, dtype=np.float32) + 2 * truth
    scores[: side**3 // 2] *= truth[: side**3 // 2]
    return np.maximum(scores, 0).astype(np.float32), truth


def _ours(scans: list[Arrays]) -> tuple[float, float]:
    pooled = PooledScores()
    for scores, truth in scans:
        pooled.add(scores, truth)
    curve = pooled.curve()
    return curve.average_precision(), curve.roc_auc()


def _theirs(scans: list[Arrays]) -> tuple[float, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, truth = (np.concatenate(parts) for parts in zip(*scans, strict=True))
    return float(average_precision_score(truth, scores)), float(roc_auc_score(truth, scores))


def _race(scans: list[Arrays], repeat: int) -> None:
    sides = {"anofield": _ours, "scikit-learn": _theirs}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found = {}
    for _ in range(repeat):
        for name, side in sides.items():
            start = time.perf_counter()
            found[name] = side(scans)
            seconds[name].append(time.perf_counter() - start)
    print(f"{len(scans)} scans of {len(scans[0][0]):,} voxels, {repeat} rounds")
    for name, times in seconds.items():
        ap, auroc = found[name]
        spread = f"{min(times):.2f}–{max(times):.2f}"
        print(f"{name:13s} median {statistics.median(times):6.2f} s ({spread})  AP {ap:.12f}  AUROC {auroc:.12f}")
    ratios = [theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)]
    print(f"ratio: median {statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})")
    apart = max(abs(one - other) for one, other in zip(*found.values(), strict=True))
    print(f"largest difference {apart:.1e}")


def _stream(scans: int, side: int, scores: int) -> None:
    import anofield.evaluation.evaluate  # noqa: F401 - its imports belong to what an evaluation needs

    before, start = _peak_mib(), time.perf_counter()
    pooled = [PooledScores() for _ in range(scores)]
    kept = []
    for seed in range(scans):
        values, truth = _scan(seed, side)
        for scores_of in pooled:
            scores_of.add(values, truth)
            kept.append(count_case(values, truth))
    curves = [scores_of.curve() for scores_of in pooled]
    took = time.perf_counter() - start
    print(f"{scans} scans × {scores} scores: {took:.0f} s with making them; exact: {pooled[0].exact}")
    print(f"peak memory {_peak_mib():.0f} MiB, of which imports {before:.0f}")
    bounds = pooled[0].bounds(curves[0])
    for name, value in (("ap", curves[0].average_precision()), ("auroc", curves[0].roc_auc())):
        print(f"{name} {value:.7f}, proven to lie within [{bounds[name][0]:.7f}, {bounds[name][1]:.7f}]")


def _end_to_end(scans: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, results = Path(folder) / "run", Path(folder) / "results"
        # the folder is written by another process: the peak of a process begins with that of the one that starts it
        subprocess.run([sys.executable, __file__, "--files", str(scans), "--write-only", str(run)], check=True)
        command = [sys.executable, "-m", "anofield", "evaluate", "-p", run, "-o", results, "--workers", str(workers)]
        start = time.perf_counter()
        _, status, used = os.wait4(subprocess.Popen(command).pid, 0)
        took = time.perf_counter() - start
    print(f"anofield evaluate of {scans} scans × {len(SCORES)} scores: exit {os.waitstatus_to_exitcode(status)}")
    cpu = used.ru_utime + used.ru_stime
    print(f"peak memory {used.ru_maxrss / 1024:.0f} MiB, CPU {cpu:.0f} s, {took:.0f} s by the clock")


def _write_run(run: Path, scans: int) -> None:
    """A run folder: `DIFFERENT` scans, the others are hard links to their maps."""
    inputs = run.parent / "inputs"
    inputs.mkdir(parents=True)
    for seed in range(min(DIFFERENT, scans)):
        _write_case(inputs / str(seed), seed)
    ids = [f"case{number:03d}" for number in range(scans)]
    for number, case_id in enumerate(ids):
        source, folder = inputs / str(number % DIFFERENT), run / case_id
        folder.mkdir(parents=True)
        for name in SCORES.values():
            (folder / name).hardlink_to(source / name)
        write_json(folder / CASE_FILE, _case_info(case_id, source, number))
    write_json(run / RUN_FILE, _run_info(ids))


def _case_info(case_id: str, source: Path, number: int) -> CaseInfo:
    return CaseInfo(
        id=case_id,
        subject=case_id,
        image=str(source / "t2.nii.gz"),
        mask=None,
        label=str(source / "seg.nii.gz"),
        score="deviation",
        threshold=CALIBRATED,
        shape=SHAPE,
        brain_ml=1400.0,
        case_score=2.0 + number % 7,
        lesions=0,
        volume_ml=40.0,
        findings=[],
        fit=None,
        seconds={},
        source_hash="",
        identity="",
        key="",
        files=list(SCORES.values()),
    )


def _run_info(ids: list[str]) -> RunInfo:
    return RunInfo(
        anofield="",
        created="",
        command="",
        identity="",
        experiment="",
        model_hash="",
        score="deviation",
        scores=list(SCORES),
        baselines=["intensity"],
        options={"filters": {"min_lesion_ml": 0.1}},
        recipe=Recipe(),
        threshold=Threshold(value=CALIBRATED, quantile=0.995, meaning="made up"),
        thresholds=dict.fromkeys(SCORES, CALIBRATED),
        device="cpu",
        precision="float32",
        versions={},
        cases=ids,
        seconds=0.0,
    )


def _write_case(folder: Path, seed: int) -> None:
    """Scan, label and maps of one made-up head: a brain of 1.4 litres, a glioma of 39 ml and a lesion of 0.5 ml."""
    import nibabel as nib
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) - n / 2 for n in SHAPE), indexing="ij")
    brain = sum((axis / half) ** 2 for axis, half in zip(grid, HALF_AXES, strict=True)) < 1
    truth = np.zeros(SHAPE, bool)
    for radius in (21, 5):
        centre = generator.uniform(-0.5, 0.5, 3) * HALF_AXES
        truth |= sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)) < radius**2

    def smooth(fwhm: float) -> np.ndarray:
        noise = gaussian_filter(generator.standard_normal(SHAPE, dtype=np.float32), fwhm / 2.355)
        return noise / noise[brain].std()

    folder.mkdir()
    arrays = {"t2.nii.gz": ((500 + 50 * smooth(2)) * brain).astype(np.int16), "seg.nii.gz": truth.astype(np.uint8)}
    arrays |= {name: (np.abs(smooth(4) + 2 * truth) * brain).astype(np.float32) for name in SCORES.values()}
    for name, array in arrays.items():
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / name)


def _peak_mib() -> float:
    """Of this program; `ru_maxrss` would be that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
