"""Results of a run as a BIDS derivative dataset: `dataset_description.json`, `sub-*/[ses-*/]anat/*_desc-*`.

Source: Brain Imaging Data Structure 1.10, derivatives. The run folder is in `sourcedata/`, whose
content BIDS does not specify.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from anofield._files import replacing, write_json
from anofield._version import __version__
from anofield.data.cohort.case import Case
from anofield.data.scan import stem
from anofield.detect.run_folder import RUN_FOLDER, CaseInfo, read_case
from anofield.typing import Json, PathLike

ENTITIES = re.compile(r"^sub-(?P<sub>[0-9A-Za-z]+)(?:_ses-(?P<ses>[0-9A-Za-z]+))?(?:_[0-9A-Za-z]+-[0-9A-Za-z]+)*$")
FILES = {  # file of a case folder → entities and suffix; None stands for the scan's own suffix
    "anomaly.nii.gz": ("desc-anomaly", None),
    "restoration.nii.gz": ("desc-restoration", None),
    "mask.nii.gz": ("label-lesion_desc-anofield", "mask"),
}
MEANING = {
    "anomaly.nii.gz": "Anomaly map: larger is further from healthy anatomy",
    "restoration.nii.gz": "Healthy version of the scan, in its intensity units",
    "mask.nii.gz": "Voxels of the findings: the anomaly map is above the threshold",
}


def write_derivatives(root: PathLike, cases: Sequence[Case]) -> list[Path]:
    """Write the finished cases of a run under BIDS names, as hard links where the file system supports them.

    Args:
        root: Folder of the dataset; the run is in its `RUN_FOLDER`.
        cases: Cases of the run.

    Returns:
        Paths of the images.

    Raises:
        MachineError: The folder cannot be written.
    """
    root, written = Path(root), []
    write_json(root / "dataset_description.json", _description())
    for case in cases:
        folder = root / RUN_FOLDER / case.id
        info = read_case(folder)
        if info is None:
            continue
        target, base, suffix = _place(root, case)
        for name, (entities, own) in FILES.items():
            if (folder / name).is_file():
                path = target / f"{base}_{entities}_{own or suffix}.nii.gz"
                _link(folder / name, path)
                write_json(path.with_name(f"{stem(path)}.json"), _sidecar(name, case, info))
                written.append(path)
    return written


def _place(root: Path, case: Case) -> tuple[Path, str, str]:
    """Folder, name without suffix, and suffix of a case's files; a scan without a BIDS name becomes `sub-<id>`."""
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


def _sidecar(name: str, case: Case, info: CaseInfo) -> Json:
    """Metadata of an image: description, source scan, score and threshold."""
    mask = {"Type": "Lesion"} if name == "mask.nii.gz" else {}
    return {
        "Description": MEANING[name],
        "RawSources": [str(case.image.name)],
        "SkullStripped": True,
        "AnofieldScore": info.score,
        "AnofieldThreshold": info.threshold,
        **mask,
    }
