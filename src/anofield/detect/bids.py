"""Results of a run as a BIDS derivative dataset: `dataset_description.json`, `sub-*/[ses-*/]anat/*_desc-*`.

Source: Brain Imaging Data Structure 1.10, derivatives. BIDS leaves `sourcedata/`, where the run lies, alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from anofield import __version__
from anofield._files import replacing, write_json
from anofield.data.cohort.case import Case
from anofield.data.scan import stem
from anofield.detect.run_folder import read_case
from anofield.typing import Json, PathLike

RUN_FOLDER = Path("sourcedata") / "anofield"  # of the dataset: what `evaluate` and `report` read
ENTITIES = re.compile(r"^sub-(?P<sub>[0-9A-Za-z]+)(?:_ses-(?P<ses>[0-9A-Za-z]+))?(?:_[0-9A-Za-z]+-[0-9A-Za-z]+)*$")
FILES = {  # file of a case folder → entities and suffix; None stands for the scan's own suffix
    "anomaly.nii.gz": ("desc-anomaly", None),
    "restoration.nii.gz": ("desc-restoration", None),
    "mask.nii.gz": ("label-lesion_desc-anofield", "mask"),
}
MEANING = {
    "anomaly.nii.gz": "Anomaly map: larger is further from healthy anatomy",
    "restoration.nii.gz": "The fitted healthy person, in the scan's intensity units",
    "mask.nii.gz": "Where the anomaly map lies above the threshold",
}


def write_derivatives(root: PathLike, cases: Sequence[Case]) -> list[Path]:
    """Give the finished cases of a run their BIDS names (hard links where the file system has them).

    Args:
        root: Dataset; the run lies in its `RUN_FOLDER`.
        cases: Of the run.

    Returns:
        The images written.

    Raises:
        MachineError: The folder cannot be written.
    """
    root, written = Path(root), []
    write_json(root / "dataset_description.json", _description())
    for case in cases:
        folder = root / RUN_FOLDER / case.id
        content = read_case(folder)
        if content is None:
            continue
        target, base, suffix = _place(root, case)
        for name, (entities, own) in FILES.items():
            if (folder / name).is_file():
                path = target / f"{base}_{entities}_{own or suffix}.nii.gz"
                _link(folder / name, path)
                write_json(path.with_name(f"{stem(path)}.json"), _sidecar(name, case, content))
                written.append(path)
    return written


def _place(root: Path, case: Case) -> tuple[Path, str, str]:
    """Folder, name without suffix, and suffix of a case's files; scans outside BIDS become `sub-<id>`."""
    base, _, suffix = stem(case.image).rpartition("_")
    match = ENTITIES.match(base)
    if match is None or not re.fullmatch(r"T1w|T2w|FLAIR|PDw|T2starw|inplaneT2", suffix):
        label = re.sub(r"[^0-9A-Za-z]", "", case.id.removeprefix("sub-")) or "unnamed"
        return root / f"sub-{label}" / "anat", f"sub-{label}", "T2w"
    session = [f"ses-{match['ses']}"] if match["ses"] else []
    return root.joinpath(f"sub-{match['sub']}", *session, "anat"), base, suffix


def _link(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        try:
            partial.hardlink_to(source)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, partial)


def _description() -> Json:
    return {
        "Name": "anofield: departures from healthy anatomy",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "anofield", "Version": __version__}],
        "License": "n/a",
    }


def _sidecar(name: str, case: Case, content: Json) -> Json:
    """What the file is, and what it was made from."""
    mask = {"Type": "Lesion"} if name == "mask.nii.gz" else {}
    return {
        "Description": MEANING[name],
        "RawSources": [str(case.image.name)],
        "SkullStripped": True,
        "AnofieldScore": content["score"],
        "AnofieldThreshold": content["threshold"],
        **mask,
    }
