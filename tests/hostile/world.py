"""The small world of the hostile tests: scans, and what each verb makes of them, laid out anew for each trial."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

TEMPORARY = re.compile(r"(^|/)\.[^/]*partial[^/]*|\.partial$|(^|/)\.lock(-holder)?$")  # names that may be left over
SPARE = re.compile(r"/previous\.pth$")  # a copy of an older checkpoint, kept in case the newest is damaged
RANDOM = re.compile(r"[0-9a-f]{8,32}")  # the random part of a temporary name
# Keys that say when or how fast, and hashes of what holds such a key or depends on which texts are one object.
VOLATILE = {"created", "seconds", "command", "timing", "started", "points_per_s", "checksum", "OptimizerParameters"}
PER_START = {"epoch"}  # keys of an entry of provenance.json that differ after a kill
TIMES = re.compile(  # dates and durations in a page
    rb"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?([+-]\d{4})?|\d{1,2} [A-Z][a-z]+ \d{4}, \d{2}:\d{2}"
    rb"|(data-value=\"[\d.e-]+\">)?\d+(\.\d+)? s\b|seconds</th>\s*<td>[\d.]+"
)
SPECS: dict[str, Any] = {
    "DataSource": "../train.zarr",
    "NetworkSpecs": {"dims": [24, 24], "dim_out": 4, "norm_layers": [0, 1], "weight_norm": True, "latent_in": [1]},
    "CodeLength": 4,
    "L": 2,
    "NumEpochs": 2,
    "SamplesPerScene": 64,
    "ScenesPerBatch": 2,
    "LearningRateSchedule": [{"Type": "Constant", "Value": 5e-3}, {"Type": "Constant", "Value": 1e-2}],
    "LogFrequency": 1,
    "AdditionalSnapshots": [1],
    "BrainFraction": 0.8,
}
AFFINE = np.array([[10.0, 0, 0, -75], [0, 10.0, 0, -85], [0, 0, 10.0, -65], [0, 0, 0, 1]])
PREPARE = "prepare -i train.tsv -o train.zarr --centers fit:4 --res"
TRAIN = "train -e exp --data train.zarr --continue auto"
CALIBRATE = "calibrate -m exp -i healthy.tsv"
DETECT = "detect -m exp -i glioma.tsv -o run"
EVALUATE = "evaluate -p run -o results --bootstrap 10"
ATLAS = "baseline zscore train --data train.zarr -o atlas"
STEPS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (  # state, states that it starts from, command, product
    ("old-store", (), f"{PREPARE} 10", "train.zarr"),
    ("store", (), f"{PREPARE} 12", "train.zarr"),
    ("nt", ("store",), "export -i train.zarr -o nt", "nt"),
    ("trained", ("store", "specs"), TRAIN, "exp"),
    ("published", ("trained",), "export -i exp -o published --format ifl2021", "published"),
    ("calibrated", ("trained",), CALIBRATE, "exp"),
    ("with-maps", ("calibrated",), f"{CALIBRATE} --preset small-lesions", "exp"),
    ("half-run", ("calibrated",), "detect -m exp -i one.tsv -o run", "run"),
    ("run", ("calibrated",), DETECT, "run"),
    ("bids-run", ("calibrated",), "detect -m exp -i glioma.tsv -o bids --naming bids", "bids"),
    ("results", ("run",), EVALUATE, "results"),
    ("atlas", ("store",), f"{ATLAS} --set seed=0", "atlas"),
    ("calibrated-atlas", ("atlas",), "baseline zscore calibrate -m atlas -i healthy.tsv", "atlas"),
    ("atlas-run", ("calibrated-atlas",), "baseline zscore detect -m atlas -i glioma.tsv -o atlas-run", "atlas-run"),
    ("comparison", ("run", "atlas-run"), "evaluate --compare run atlas-run -o compared --bootstrap 10", "compared"),
    ("report", ("run", "results"), "report -p run -r results -o report.html", "report.html"),
    ("new-maps", ("calibrated",), "detect -m exp -i scans/g0.nii.gz -o read-run", "read-run"),
)


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        code: Exit code; 137 for a job that was killed.
        signal: Number of the signal that ended it, or 0.
        said: What it wrote to stdout and stderr.
        events: Changes of files, each an event and its paths.
        value: Value that a called function returned.
        megabytes: Highest memory.
    """

    code: int
    signal: int
    said: str
    events: list[list[str]]
    value: Any
    megabytes: int


class Server:
    """The server of `killer.py` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        tests = str(Path(__file__).parents[1])
        known = {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MPLCONFIGDIR": str(folder),
            "ANOFIELD_DEBUG": "1",
        }
        path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hostile.killer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            env={**os.environ, **known, "PYTHONPATH": path}, text=True,
        )  # fmt: skip

    def ask(self, *jobs: dict[str, Any]) -> list[Ended]:
        """Run jobs at the same time and wait for all."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(jobs) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the server ended: {self._log.name}"
        return [Ended(**one) for one in json.loads(answer)]

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


@dataclass
class World:
    """States made by the verbs, and the arena where trials run.

    The arena always has the same path, because results name their scans by path.

    Attributes:
        server: Server that runs the jobs.
        folder: Folder of everything.
        made: Names of the states made so far.
    """

    server: Server
    folder: Path
    made: set[str] = field(default_factory=set)

    @property
    def arena(self) -> Path:
        """Folder where the jobs run."""
        return self.folder / "arena"

    def __post_init__(self) -> None:
        write_inputs(self.folder / "states" / "inputs")
        for path, text in (("specs/exp/specs.json", json.dumps(SPECS)), ("centers/centers.txt", "0, 0.2 0.4\n0.7\n")):
            file = self.folder / "states" / path
            file.parent.mkdir(parents=True)
            file.write_text(text)
        other = self.folder / "states" / "other-scans" / "scans"
        other.mkdir(parents=True)
        image = nib.Nifti1Image(brain("g0")[0], AFFINE)
        image.to_filename(other / "g0.nii")
        nib.MGHImage(brain("g0")[0], AFFINE).to_filename(other / "g0.mgz")
        self.made |= {"inputs", "specs", "centers", "other-scans"}

    def run(self, words: str, **how: Any) -> Ended:
        """Run a command line in the arena."""
        return self.server.ask({"argv": words.split(), "cwd": str(self.arena), **how})[0]

    def call(self, name: str, *args: Any) -> Ended:
        """Call a function of the tests, `module:name`, in the arena."""
        return self.server.ask({"call": name, "args": args, "cwd": str(self.arena)})[0]

    def lay(self, *states: str) -> None:
        """Lay out the inputs and some states in the arena, and nothing else; files of later states win."""
        for state in states:
            self._make(state)
        shutil.rmtree(self.arena, ignore_errors=True)
        for state in ("inputs", *states):
            shutil.copytree(self.folder / "states" / state, self.arena, dirs_exist_ok=True)

    def _make(self, state: str) -> None:
        """Make a state, and those that it starts from, if that was not done yet."""
        if state in self.made:
            return
        _, needs, command, product = next(step for step in STEPS if step[0] == state)
        before = self.lay_out_order(needs)
        self.lay(*before)
        ended = self.run(command)
        assert ended.code == 0, f"{command}\n{ended.said}"
        target = self.folder / "states" / state / product
        target.parent.mkdir(parents=True)
        if (self.arena / product).is_dir():
            shutil.copytree(self.arena / product, target, ignore=shutil.ignore_patterns(".lock*"))
        else:
            shutil.copy(self.arena / product, target)
        self.made.add(state)

    @staticmethod
    def lay_out_order(states: tuple[str, ...]) -> list[str]:
        """The states with all that they start from, those first."""
        steps = {step[0]: step[1] for step in STEPS}
        order: list[str] = []
        for state in states:
            order += [one for one in (*World.lay_out_order(steps.get(state, ())), state) if one not in order]
        return order


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[World]:
    """A world in a folder, and its server."""
    server = Server(folder)
    try:
        yield World(server, folder)
    finally:
        server.close()


def write_inputs(folder: Path) -> None:
    """Seven brains, 16×18×14 voxels of 10 mm, and manifests: three to train on, two healthy, two with a lesion."""
    people = {"train": ("a0", "a1", "a2"), "healthy": ("h0", "h1"), "glioma": ("g0", "g1"), "one": ("g0",)}
    (folder / "scans").mkdir(parents=True)
    for name, ids in people.items():
        for person in ids:
            scan, label = brain(person)
            nib.Nifti1Image(scan, AFFINE).to_filename(folder / "scans" / f"{person}.nii.gz")
            nib.Nifti1Image(label, AFFINE).to_filename(folder / "scans" / f"{person}_seg.nii.gz")
        labelled = name in ("glioma", "one")
        rows = [f"{one}\tscans/{one}.nii.gz\t{f'scans/{one}_seg.nii.gz' if labelled else 'n/a'}" for one in ids]
        (folder / f"{name}.tsv").write_text("\n".join(["id\timage\tlabel", *rows]) + "\n")


def brain(person: str) -> tuple[np.ndarray, np.ndarray]:
    """A scan, (16, 18, 14) float32, and its lesion label, uint8; only people of the group g have a lesion."""
    random = np.random.default_rng([ord(letter) for letter in person])
    x, y, z = (np.indices((16, 18, 14)).T * 10.0 - [75.0, 85.0, 65.0]).T
    radii = random.uniform(0.92, 1.08, 3) * (62, 74, 54)
    inside = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1
    core = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 0.4
    scan = 200 + 100 * core + 0.5 * x + random.normal(0, 10, inside.shape)
    lesion = ((x - 25) ** 2 + (y - 20) ** 2 + (z - 10) ** 2 < 20**2) & inside & person.startswith("g")
    scan = np.where(lesion, 450, scan)
    return np.where(inside, np.maximum(scan, 1), 0).astype(np.float32), lesion.astype(np.uint8)


def tree(folder: Path) -> dict[str, object]:
    """Comparable content of every file below a folder and every empty folder, by path, without temporary names."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if TEMPORARY.search(name) or SPARE.search(name):
            continue
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = comparable(path)
        elif not any(path.iterdir()):
            found[name + "/"] = "folder"
    return found


def state_of(folder: Path) -> tuple[tuple[str, str], ...]:
    """Everything in a folder, temporary files as well, so that equal states need only one trial."""
    items = [(RANDOM.sub("*", str(path.relative_to(folder))), path) for path in sorted(folder.rglob("*"))]
    return tuple(sorted((name, repr(comparable(path)) if path.is_file() else "") for name, path in items))


def comparable(path: Path) -> object:
    """Content of a file without what differs between two equal runs."""
    data = path.read_bytes()
    with contextlib.suppress(ValueError):
        if path.name == "provenance.json":  # one entry per start; a kill adds a start
            return sorted(
                {json.dumps(_steady(entry, VOLATILE | PER_START), sort_keys=True) for entry in json.loads(data)}
            )
        if path.name == "checkpoints.json":  # a kill adds a save; the newest of each name counts
            saves = {entry["name"]: _steady(entry, VOLATILE) for entry in json.loads(data)["checkpoints"]}
            return json.dumps(saves, sort_keys=True)
        if path.suffix == ".json":
            return json.dumps(_steady(json.loads(data), VOLATILE))
        if path.suffix == ".jsonl":
            return [json.dumps(_steady(json.loads(line), VOLATILE)) for line in data.splitlines()]
    if path.suffix == ".pth":
        return _tensors(data)
    if path.suffix == ".html":
        data = TIMES.sub(b"", data)
    return hashlib.sha256(data).hexdigest()


def _tensors(data: bytes) -> str:
    """Content of a file of torch without times, as its bytes depend on which texts are one object.

    Where the file cannot be read, the hash of its bytes.
    """
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), value.numpy().tobytes().hex()
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value

    try:
        content = plain(_steady(torch.load(io.BytesIO(data), weights_only=True), VOLATILE))
    except Exception:  # noqa: BLE001 - a torn file may fail in any way
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _steady(value: Any, volatile: set[str]) -> Any:
    """A value without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: _steady(item, volatile) for key, item in value.items() if key not in volatile}
    return [_steady(item, volatile) for item in value] if isinstance(value, list | tuple) else value


def difference(one: dict[str, object], other: dict[str, object]) -> str:
    """What differs between two trees, in a few words; empty if they are equal."""
    lost, extra = sorted(one.keys() - other.keys()), sorted(other.keys() - one.keys())
    changed = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
    parts = {"missing": lost, "left over": extra, "different": changed}
    return "; ".join(f"{what}: {', '.join(names[:4])}" for what, names in parts.items() if names)
