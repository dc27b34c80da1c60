"""Results of a run as a BIDS derivative dataset: `dataset_description.json`, `sub-*/[ses-*/]anat/*_desc-*`.

Source: Brain Imaging Data Structure 1.10, derivatives. The run folder is in `sourcedata/`, whose
content BIDS does not specify.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anofield._files import PARTIAL, replacing, write_json, write_text
from anofield._version import __version__
from anofield.data.cohort.bids import BIDS_DATATYPES, subject_folder
from anofield.data.cohort.case import Case, one_name, printable
from anofield.data.cohort.contrast import without_contrast
from anofield.data.cohort.loose import subject_of
from anofield.data.cohort.own import own_folder
from anofield.data.scan import stem
from anofield.detect.run_folder import RUN_FOLDER, CaseInfo, read_case
from anofield.errors import CohortError, UsageError
from anofield.typing import Json, PathLike

UNKNOWN = "MRI"  # suffix of maps of a scan whose contrast nothing states; BIDS has none for it
IGNORED = ".bidsignore"  # names the files that a validator must not judge
ENTITIES = re.compile(r"^sub-(?P<sub>[0-9A-Za-z]+)(?:_ses-(?P<ses>[0-9A-Za-z]+))?(?:_[0-9A-Za-z]+-[0-9A-Za-z]+)*$")
SUFFIXES = frozenset(  # of anatomical images in BIDS 1.10
    (*("T1w", "T2w", "PDw", "T2starw", "inplaneT1", "inplaneT2", "PDT2", "angio", "FLAIR", "FLASH", "PD", "T2star"),
     *("T1map", "T2map", "R1map", "R2map", "PDmap", "T2starmap", "R2starmap", "UNIT1"))
)  # fmt: skip
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


@dataclass(frozen=True)
class BidsName:
    """Place of a case's files in a BIDS dataset.

    Attributes:
        folder: Folder of the files, relative to the dataset.
        base: Entities that their names begin with, `sub-01_ses-1`.
        suffix: Last part of the names of maps like the scan, `T2w`.
    """

    folder: Path
    base: str
    suffix: str

    @property
    def subject(self) -> str:
        """Name of the subject's folder."""
        return self.folder.parts[0]

    def file(self, name: str) -> Path:
        """Path of a file of the case folder, relative to the dataset."""
        entities, own = FILES[name]
        return self.folder / f"{self.base}_{entities}_{own or self.suffix}.nii.gz"


def bids_names(root: PathLike, cases: Sequence[Case]) -> dict[str, BidsName]:
    """BIDS names of all cases by their ids, checked before the work.

    A scan with a BIDS name keeps its entities and suffix. Any other scan becomes `sub-<letters and digits of its id>`
    without the word for its contrast, which becomes the suffix; `MRI` if the contrast is unknown.

    Args:
        root: Folder of the dataset.
        cases: The cohort.

    Raises:
        CohortError: Two cases have one name apart from the contrast, also one of an earlier call; two subjects have
            one label; or an id holds no letter or digit for a label.
        UsageError: The folder is a BIDS dataset that another program made.
    """
    if (Path(root) / "dataset_description.json").exists() and not own_folder(Path(root)):
        raise UsageError(
            "is a BIDS dataset that anofield did not make",
            where=root,
            why="its description and files would be replaced",
            remedy="give a folder of its own with -o, for example derivatives/anofield in it",
        )
    names = {case.id: _name(case) for case in cases}
    _check_distinct(cases, lambda case: str(names[case.id].folder / names[case.id].base), None)  # a mask has no suffix
    _check_distinct(cases, lambda case: names[case.id].subject, _person)
    _check_earlier(Path(root), names)
    return names


def write_derivatives(root: PathLike, cases: Sequence[Case], names: dict[str, BidsName]) -> list[Path]:
    """Write the finished cases of a run under BIDS names, as hard links where the file system supports them.

    Args:
        root: Folder of the dataset; the run is in its `RUN_FOLDER`.
        cases: Cases of the run.
        names: Names of the cases from `bids_names`.

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
        for name in FILES:
            if (folder / name).is_file():
                path = root / names[case.id].file(name)
                _link(folder / name, path)
                write_json(path.with_name(f"{stem(path)}.json"), _sidecar(name, case, info))
                written.append(path)
    _ignore(root, {names[case.id].suffix for case in cases} - SUFFIXES)
    return written


def _name(case: Case) -> BidsName:
    """Name of a case: that of its scan if it is a BIDS name, else one made of its id.

    Raises:
        CohortError: The id holds no letter or digit that a label may have, or is too long.
    """
    base, _, suffix = stem(case.image).rpartition("_")
    match = ENTITIES.match(base)
    if match is None or suffix not in {*SUFFIXES, case.contrast}:
        label = re.sub(r"[^0-9A-Za-z]", "", without_contrast(case.id).removeprefix("sub-"))
        name = BidsName(Path(f"sub-{label}") / "anat", f"sub-{label}{_agent(case)}", _suffix(case))
    else:
        datatype = case.image.absolute().parent.name
        session = [f"ses-{match['ses']}"] if match["ses"] else []
        folder = Path(f"sub-{match['sub']}", *session, datatype if datatype in BIDS_DATATYPES else "anat")
        label, name = match["sub"], BidsName(folder, re.sub(r"_desc-[0-9A-Za-z]+", "", base), suffix)
    longest = max(len(name.file(file).name) for file in FILES)
    if not label or longest > 255 - len(PARTIAL) - 9:
        raise CohortError(
            f"the id {printable(case.id)!r} gives no BIDS label" if not label else "its BIDS name is too long",
            where=printable(str(case.image)),
            why="a label has the letters a to z and digits only" if not label else "",
            remedy="give the scan another id in a manifest, or detect with --naming plain",
        )
    return name


def _suffix(case: Case) -> str:
    """BIDS suffix of the scan's contrast."""
    contrast = re.sub("[^0-9A-Za-z]", "", case.contrast)
    return "T1w" if contrast == "T1c" else contrast if contrast[:1].isalpha() else UNKNOWN


def _agent(case: Case) -> str:
    """Entity of a scan with contrast agent, which has no suffix of its own."""
    return "_ce-gadolinium" if case.contrast == "T1c" else ""


def _person(case: Case) -> str:
    """Who was scanned: the subject, and the folder of its BIDS tree, because two trees may number alike."""
    folder, match = subject_folder(case.image), ENTITIES.match(stem(case.image).rpartition("_")[0])
    person = case.subject or (match and match["sub"]) or subject_of(case.id) or case.id
    return f"{folder.parent if folder else ''}/{person}"


def _check_distinct(cases: Sequence[Case], key: Callable[[Case], str], same: Callable[[Case], str] | None) -> None:
    """Check that no two cases have one key, also on file systems without capitals, unless they are the `same`.

    Raises:
        CohortError: Two cases have one key.
    """
    first: dict[str, Case] = {}
    for case in cases:
        other = first.setdefault(one_name(key(case)), case)
        if other is not case and (same is None or same(other) != same(case)):
            raise CohortError(
                f"{printable(other.id)!r} and {printable(case.id)!r} have the BIDS name {key(case)}",
                where=f"{printable(str(other.image))} and {printable(str(case.image))}",
                why="the results of two scans would be taken for one's" if same is None else "they are two subjects",
                remedy="give them ids that differ in letters or digits in a manifest, detect each into a folder of its "
                "own, or detect with --naming plain",
            )


def _check_earlier(root: Path, names: Mapping[str, BidsName]) -> None:
    """Check that no case takes the name of another case that an earlier call wrote into the dataset.

    Raises:
        CohortError: It does.
    """
    for case_id, name, file in ((case_id, name, file) for case_id, name in names.items() for file in FILES):
        path = root / name.file(file)
        try:
            other = json.loads(path.with_name(f"{stem(path)}.json").read_text(encoding="utf-8"))["AnofieldCase"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        if other != case_id:
            raise CohortError(
                f"{printable(case_id)!r} has the BIDS name {name.base} of {str(other)!r}",
                where=path,
                why="an earlier call wrote that case, and its files would be replaced",
                remedy="detect into another folder, or give the scan another id in a manifest",
            )


def _ignore(root: Path, suffixes: set[str]) -> None:
    """Name the maps whose suffix BIDS does not know, so that a validator accepts the dataset."""
    path = root / IGNORED
    there = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = list(dict.fromkeys([*there, *(f"**/*_{suffix}.*" for suffix in sorted(suffixes))]))
    if lines != there:
        write_text(path, "\n".join(lines) + "\n")


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
        "AnofieldCase": case.id,
        "AnofieldScore": info.score,
        "AnofieldThreshold": info.threshold,
        **mask,
    }
