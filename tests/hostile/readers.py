"""What the program reads from its files, as values that can be compared; called in children of the server."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import re
import shutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hostile.killer import run_command
from hostile.world import comparable

Facts = dict[str, Any]
NOTICES = ("the detection was stopped or still runs", "of an earlier run, with another model")  # in reports


def digest(*values: Any) -> str:
    """Hash of arrays, tensors and plain values."""
    found = hashlib.sha256()
    for value in values:
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        found.update(np.ascontiguousarray(array).tobytes() if isinstance(array, np.ndarray) else repr(array).encode())
    return found.hexdigest()[:16]


def digest_of(state: Any) -> str:
    """Hash of a nested state with tensors."""
    if isinstance(state, dict):
        return digest(sorted((str(key), digest_of(value)) for key, value in state.items()))
    return digest([digest_of(value) for value in state]) if isinstance(state, list | tuple) else digest(state)


def scan(path: str = "scans/g0.nii.gz") -> Facts:
    """A scan: its voxels and where they are."""
    from anofield.data.scan import read_scan

    found = read_scan(Path(path))
    return {"voxels": digest(found.data), "affine": digest(np.round(found.affine, 6))}


def mgz() -> Facts:
    """A scan in the format of FreeSurfer."""
    return scan("scans/g0.mgz")


def nii() -> Facts:
    """A scan that is not compressed, and so has no checksum."""
    return scan("scans/g0.nii")


def label(path: str = "scans/g0_seg.nii.gz", of: str = "scans/g0.nii.gz") -> Facts:
    """A label on the voxels of its scan."""
    from anofield.data.scan import read_scan

    homes = ("anofield.data.labels", "anofield.data.scan")
    home = next(importlib.import_module(name) for name in homes if importlib.util.find_spec(name))
    return {"label": digest(home.as_labels(Path(path), read_scan(Path(of))))}


def score_map(path: str = "run/g0/anomaly.nii.gz", of: str = "scans/g0.nii.gz") -> Facts:
    """An anomaly map as `evaluate` reads it."""
    from anofield.data.scan import read_map, read_scan

    return {"map": digest(read_map(Path(path), read_scan(Path(of))))}


def store(path: str = "train.zarr") -> Facts:
    """Every complete case of a store."""
    from anofield.data.store import Store

    opened = Store(path)
    recipe = opened.recipe.model_dump_json()
    return {opened.ids[n]: digest(opened.classes(n), opened.brain(n), recipe, opened.subjects[n]) for n in opened.done}


def whole_store(path: str = "train.zarr") -> Facts:
    """A store of which no case may be missing."""
    from anofield.data.store import Store

    opened = Store(path)
    return {**store(path), "cases": opened.ids, "done": opened.done, "content": opened.content_hash()}


def checkpoint(path: str = "exp", name: str = "latest") -> Facts:
    """A checkpoint: the state that training continues from."""
    from anofield.field.experiment import Experiment

    found = Experiment(path).load(name)
    logs = {key: value for key, value in vars(found.logs).items() if key != "timing"}
    return {f"epoch {found.epoch}": [digest_of(found.model), digest(found.codes), digest_of(found.optimizer)],
            "ids": list(found.code_ids), f"logs {found.epoch}": digest_of(logs)}  # fmt: skip


def training(path: str = "exp") -> Facts:
    """Weights and codes of every checkpoint that can be read, and of `latest`."""
    from anofield.errors import AnofieldError
    from anofield.field.experiment import Experiment

    facts: Facts = {}
    for name in ("latest", "previous", "1"):
        try:
            found = Experiment(path).load(name)
        except AnofieldError:
            continue
        value = [digest_of(found.model), digest(found.codes), digest_of(found.optimizer)]
        assert facts.setdefault(f"epoch {found.epoch}", value) == value, f"two states of epoch {found.epoch}"
    return facts


def model(path: str = "exp") -> Facts:
    """A model as `detect` opens it."""
    from anofield.detect.model import load_model

    opened = load_model(Path(path), device="cpu", precision="float32")
    return {"hash": opened.hash, "ids": list(opened.training_ids), "recipe": opened.recipe.model_dump_json()}


def calibration(path: str = "exp", preset: str = "default") -> Facts:
    """The thresholds and reference maps that `detect` uses; nothing where the model is not calibrated."""
    from anofield.detect.calibration import look_up
    from anofield.detect.model import load_model
    from anofield.detect.options import PRESETS

    found = look_up(load_model(Path(path), device="cpu", precision="float32"), PRESETS[preset])
    if found is None:
        return {}
    maps = {name: digest(*(value for value in vars(one).values())) for name, one in found.reference.items()}
    return {"thresholds": {**found.thresholds}, "fit": {**found.healthy_fit}, "maps": maps, "meaning": found.meaning}


def calibration_with_maps() -> Facts:
    """The calibration of the preset `small-lesions`, which has reference maps."""
    return calibration(preset="small-lesions")


def baseline(path: str = "atlas") -> Facts:
    """A trained baseline as `detect` opens it, with its thresholds."""
    from anofield.baselines.run import baseline_options, load_baseline
    from anofield.detect.calibration import look_up

    opened = load_baseline(Path(path), device="cpu")
    found = look_up(opened, baseline_options("zscore"))
    thresholds = {} if found is None else {"thresholds": [opened.hash, {**found.thresholds}]}
    return {"state": [digest_of(opened.method.state()), opened.info.settings, list(opened.training_ids)], **thresholds}


def run_info(path: str = "run") -> Facts:
    """`run.json`."""
    from anofield.detect.run_folder import read_run

    return {"run": read_run(Path(path)).model_dump()}


def case(path: str = "run/g0") -> Facts:
    """The `case.json` of one case.

    Raises:
        Refused: It is damaged, so the case counts as not finished.
    """
    from anofield.detect.run_folder import read_case

    found = read_case(Path(path))
    if found is None:
        raise Refused(f"{path} is not finished")
    return {"case": found.model_dump()}


def results(path: str = "results") -> Facts:
    """Figures of an evaluation."""
    from anofield.evaluation.results import read_results

    return {"results": read_results(Path(path)).model_dump()}


def result_files(path: str = "results") -> Facts:
    """The two files of an evaluation, read as a person reads them: next to each other."""
    files = (Path(path) / name for name in ("results.json", "cases.tsv"))
    return {file.name: comparable(file) for file in files if file.is_file()}


def manifest(path: str = "glioma.tsv") -> Facts:
    """Cases of a manifest."""
    from anofield.data.cohort.find import find_cases

    return {case.id: str(case) for case in find_cases(Path(path))}


def specs(path: str = "exp") -> Facts:
    """`specs.json`."""
    from anofield.field.experiment import Experiment

    return {"specs": Experiment(path).specs.dump()}


def provenance(path: str = "exp") -> Facts:
    """`provenance.json`."""
    from anofield.field.provenance import read_provenance

    return {"starts": [start.model_dump() for start in read_provenance(Path(path))]}


def training_report() -> Facts:
    """The report of a training, which reads metrics, logs and provenance."""
    return command("report --training -e exp -o read.html --people 1", "read.html")


def run_report() -> Facts:
    """The report of a run with its results."""
    return page("report -p run -r results -o read.html --max-cases 2")


def comparison_report() -> Facts:
    """The report of a comparison."""
    return command("report --compare compared/comparison.json -o read.html", "read.html")


def trained_again() -> Facts:
    """A training of the experiment that continues where it stood."""
    shutil.rmtree("read-exp", ignore_errors=True)
    shutil.copytree("exp", "read-exp")
    try:
        command("train -e read-exp --data train.zarr --continue auto")
        return training("read-exp")
    finally:
        shutil.rmtree("read-exp", ignore_errors=True)


def evaluation(run: str = "run") -> Facts:
    """An evaluation of a run: figures of each case, and, unless the program says that cases are missing, of all."""
    try:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            command(f"evaluate -p {run} -o read --bootstrap 10", keep=True)
        content = json.loads(Path("read/results.json").read_text())
        everything = {} if warnings_in(said.getvalue()) else {"all": comparable(Path("read/results.json"))}
        figures = ("lesion_ml", "detected_ml", "label_outside_ml", "dice", "ap", "auroc", "scan_score")
        return {row["id"]: [row[key] for key in figures] for row in content["cases"]} | everything
    finally:
        sys.stderr.write(said.getvalue())
        _remove(["read"])


def warnings_in(said: str) -> list[str]:
    """Lines on stderr that are not progress."""
    return [line for line in said.splitlines() if line.strip() and not re.search(r": \d+/\d+", line)]


def bids_evaluation() -> Facts:
    """An evaluation of a run with BIDS names."""
    return evaluation("bids")


def atlas_evaluation() -> Facts:
    """An evaluation of a run of a baseline, which has one score and is quicker."""
    return evaluation("atlas-run")


def atlas_report() -> Facts:
    """The report of a run of a baseline."""
    return page("report -p atlas-run -o read.html --max-cases 1")


def page(words: str) -> Facts:
    """A report of a run; nothing if the page itself says that cases are missing."""
    try:
        command(words, keep=True)
        path = Path("read.html")
        return {} if any(notice in path.read_text() for notice in NOTICES) else {"page": comparable(path)}
    finally:
        _remove(["read.html"])


def published_model() -> Facts:
    """An experiment of 2021, with its pickled row numbers."""
    return checkpoint("published", "1")


def nt_store() -> Facts:
    """A store imported from `.nt` files of 2021."""
    try:
        command("import -i nt -o read.zarr", keep=True)
        return whole_store("read.zarr")
    finally:
        _remove(["read.zarr"])


def centers() -> Facts:
    """Class centres from a text file."""
    from anofield.data.centers import read_centers
    from anofield.data.recipe import recipe_for

    return {"centers": list(read_centers("centers.txt", [], recipe_for("box", 12)).centers)}


class Refused(Exception):
    """A command that ended with the exit code of a refusal."""


def command(words: str, *files: str, keep: bool = False) -> Facts:
    """Run a command line and return the files that it wrote, which are removed unless they are to be kept.

    Raises:
        Refused: It ended with another exit code than 0 and 1.
        AssertionError: It ended with 1, which means a defect.
    """
    _remove(files)
    try:
        code = run_command(words.split())
        assert code != 1, f"exit 1: {words}"
        if code:
            raise Refused(f"exit {code}: {words}")
        return {file: comparable(Path(file)) for file in files}
    finally:
        if not keep:
            _remove(files)


def _remove(files: Iterable[str]) -> None:
    """Remove what a command wrote."""
    for top in {Path(file).parts[0] for file in files}:
        if Path(top).is_dir():
            shutil.rmtree(top)
        Path(top).unlink(missing_ok=True)


def write_often(count: int) -> list[str]:
    """Write one JSON file again and again, and read it each time; returns what went wrong."""
    from anofield._files import write_json

    wrong, path = [], Path("written/one.json")
    for number in range(count):
        try:
            write_json(path, {"number": number, "filling": "x" * 2000})
            json.loads(path.read_text())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            wrong.append(f"write {number}: {type(error).__name__}: {error}")
    return wrong


def read(name: str, *args: Any) -> dict[str, Any]:
    """Call a reader by its name: its `facts`, or why it `refused`, or the `defect` that it ended with."""
    from anofield.errors import AnofieldError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            facts = globals()[name](*args)
        texts = {key: json.dumps(value, sort_keys=True, default=str) for key, value in facts.items()}
        return {"facts": texts, "said": warnings_in(said.getvalue())}
    except (AnofieldError, Refused) as error:
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = said.getvalue()[-300:] if isinstance(error, AssertionError) else ""
        return {
            "defect": f"{type(error).__name__}: {str(error)[:120]} ({Path(place.filename).name}:{place.lineno}) {text}"
        }
