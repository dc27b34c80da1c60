"""Kinds of files that the program reads, and the loop that reads one damaged file after another.

A damaged file must be refused, or read as if it were whole. A text that no hash protects may also give another valid
value: a changed digit is a digit. Nothing may fail in any other way, take more than two gigabytes, or a minute.
"""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hostile.mutations import Way, damaged
from hostile.world import World

MOST_MEGABYTES, HARD_LIMIT = 2048, 6 << 30  # what reading may take, and where the system ends it
TIMEOUT = 60  # seconds
Protection = Literal["hash", "checksum", "none"]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        file: Path in the arena, perhaps a pattern: then the first match in the order of the names.
        reader: Function of `readers.py` that reads it.
        states: States that hold it.
        protected: What shows damage: a `hash` in another file, a `checksum` in the file itself, which a hostile writer
            can make right, or `none`.
        shared: Whether the default suite has a share of it.
        ways: Ways to damage it; a file that a quicker reader reads as well needs no flips of single bits.
    """

    file: str
    reader: str
    states: tuple[str, ...]
    protected: Protection = "checksum"
    shared: bool = False
    ways: tuple[Way, ...] = ("flip", "fuzz")


FUZZ: tuple[Way, ...] = ("fuzz",)
TRAINED, RUN, ATLAS, ATLAS_RUN = ("trained",), ("run", "results"), ("calibrated-atlas",), ("atlas-run",)
KINDS = {
    "scan .nii.gz": Kind("scans/g0.nii.gz", "scan", (), shared=True),
    "scan .mgz": Kind("scans/g0.mgz", "mgz", ("other-scans",), shared=True),
    "scan .nii": Kind("scans/g0.nii", "nii", ("other-scans",), "none"),
    "label .nii.gz": Kind("scans/g0_seg.nii.gz", "label", (), shared=True),
    "store: classes": Kind("train.zarr/classes/c/0/**/*", "whole_store", ("store",), shared=True),
    "store: brain": Kind("train.zarr/brain/c/0/**/*", "whole_store", ("store",)),
    "store: source hash": Kind("train.zarr/source_hash/c/0/**/*", "whole_store", ("store",)),
    "store: done": Kind("train.zarr/done/c/*", "whole_store", ("store",)),
    "store: zarr.json": Kind("train.zarr/zarr.json", "whole_store", ("store",), shared=True),
    "store: classes/zarr.json": Kind("train.zarr/classes/zarr.json", "whole_store", ("store",)),
    "checkpoint: weights": Kind("exp/ModelParameters/latest.pth", "checkpoint", TRAINED, "hash", shared=True),
    "checkpoint: codes": Kind("exp/LatentCodes/latest.pth", "checkpoint", TRAINED, "hash"),
    "checkpoint: optimiser": Kind("exp/OptimizerParameters/latest.pth", "checkpoint", TRAINED, "hash"),
    "checkpoint: Logs.pth": Kind("exp/Logs.pth", "checkpoint", TRAINED, shared=True),
    "specs.json": Kind("exp/specs.json", "model", TRAINED, "none", shared=True),
    "recipe.json": Kind("exp/recipe.json", "model", TRAINED, "none"),
    "provenance.json": Kind("exp/provenance.json", "provenance", TRAINED, "none"),
    "metrics.jsonl": Kind("exp/metrics.jsonl", "training_report", TRAINED, "none"),
    "calibration .json": Kind("exp/calibrations/*.json", "calibration", ("calibrated",), shared=True),
    "calibration .npz": Kind("exp/calibrations/*.npz", "calibration_with_maps", ("with-maps",), "hash", shared=True),
    "baseline: state.pth": Kind("atlas/state.pth", "baseline", ATLAS, "hash", shared=True),
    "baseline: baseline.json": Kind("atlas/baseline.json", "baseline", ATLAS),
    "run.json": Kind("run/run.json", "run_info", RUN, shared=True),
    "case.json": Kind("run/g0/case.json", "case", RUN, shared=True),
    "run: anomaly.nii.gz": Kind("run/g0/anomaly.nii.gz", "score_map", RUN),
    "run: failures.json": Kind("run/failures.json", "run_report", RUN, "none"),
    "results.json": Kind("results/results.json", "results", RUN, shared=True),
    "comparison.json": Kind("compared/comparison.json", "comparison_report", ("comparison",)),
    "manifest .tsv": Kind("glioma.tsv", "manifest", (), "none", shared=True),
    "class centres .txt": Kind("centers.txt", "centers", ("centers",), "none"),
    "2021: weights": Kind("published/ModelParameters/1.pth", "published_model", ("published",), "none"),
    "2021: dict_cid.k": Kind("published/dict_cid.k", "published_model", ("published",), "none"),
    "2021: .nt": Kind("nt/a0.nt", "nt_store", ("nt",), "none"),
    # by whole verbs, which also use what they read
    "run.json, evaluated": Kind("atlas-run/run.json", "atlas_evaluation", ATLAS_RUN, ways=FUZZ),
    "case.json, evaluated": Kind("atlas-run/g0/case.json", "atlas_evaluation", ATLAS_RUN, ways=FUZZ),
    "case.json, reported": Kind("atlas-run/g0/case.json", "atlas_report", ATLAS_RUN, ways=FUZZ),
    "mask.nii.gz, reported": Kind("atlas-run/g0/mask.nii.gz", "atlas_report", ATLAS_RUN, "none", ways=FUZZ),
    "store: classes, trained": Kind("train.zarr/classes/c/0/**/*", "trained_again", (*TRAINED, "store"), ways=FUZZ),
}


@dataclass
class Outcomes:
    """What reading the damaged files gave.

    Attributes:
        counts: Number of files per outcome: `refused`, `equal`, `said` (another value, and a message says so), `another
            value`, `wrong`.
        failures: Descriptions of the wrong ones.
        megabytes: Highest memory of a reading.
        slowest: Longest time of a reading, s.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    megabytes: int = 0
    slowest: float = 0.0


def damage(world: World, name: str, way: Way, count: int) -> Outcomes:
    """Damage the file of a kind `count` times, each time anew, and read it."""
    kind, found, done = KINDS[name], Outcomes(), 0
    while done < count:
        world.lay(*kind.states)
        record = world.folder / "outcomes.jsonl"
        record.unlink(missing_ok=True)
        ended = world.call("hostile.damage:read_damaged", name, way, done, count, str(record))
        lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        assert ended.code == 0 or ended.signal, ended.said
        for what, text, megabytes, seconds in lines:
            _add(found, what, text)
            found.megabytes, found.slowest = max(found.megabytes, megabytes), max(found.slowest, seconds)
        done += len(lines)
        if done < count:  # the child was ended while it read the next file
            why = "took more than a minute" if ended.signal == signal.SIGALRM else f"ended by signal {ended.signal}"
            _add(found, "wrong", f"{way} {done}: {why}: {ended.said[-200:]}")
            done += 1
    return found


def _add(found: Outcomes, what: str, text: str) -> None:
    found.counts[what] += 1
    if what == "wrong":
        found.failures.append(text)


def read_damaged(name: str, way: Way, first: int, count: int, record: str) -> None:
    """Read damaged files number `first` to `count`, in a child of the server; one line per file in `record`."""
    from hostile.readers import read

    kind = KINDS[name]
    path = next(one for one in sorted(Path().glob(kind.file)) if one.is_file())
    whole = path.read_bytes()
    right = read(kind.reader)
    assert "facts" in right, right
    used = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + HARD_LIMIT, used + HARD_LIMIT))
    for number in range(first, count):
        content, forged = damaged(whole, path.name, way, random.Random(f"{name} {way} {number}"))
        path.write_bytes(content)
        Path("/proc/self/clear_refs").write_text("5")  # starts the peak of the memory anew
        signal.alarm(TIMEOUT)
        began = time.monotonic()
        found = read(kind.reader)
        seconds = time.monotonic() - began
        signal.alarm(0)
        megabytes = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) // 1024
        free = kind.protected == "none" or (kind.protected == "checksum" and forged)
        what, text = judged(found, right, free)
        if megabytes > MOST_MEGABYTES:
            what, text = "wrong", f"took {megabytes} MB"
        with Path(record).open("a") as stream:
            stream.write(json.dumps([what, f"{way} {number}: {text}", megabytes, round(seconds, 2)]) + "\n")
    path.write_bytes(whole)


def judged(found: dict[str, Any], right: dict[str, Any], free: bool) -> tuple[str, str]:
    """Outcome of a reading, and what is wrong with it; `free` says whether it may give another value."""
    if "defect" in found:
        return "wrong", found["defect"]
    if "refused" in found:
        return "refused", ""
    if found["facts"] == right["facts"]:
        return "equal", ""
    if free:
        return "another value", ""
    if found["said"] and found["said"] != right["said"]:
        return "said", ""
    changed = [
        key for key in {**right["facts"], **found["facts"]} if found["facts"].get(key) != right["facts"].get(key)
    ]
    return "wrong", f"read as another value without a word: {', '.join(changed[:3])}"
