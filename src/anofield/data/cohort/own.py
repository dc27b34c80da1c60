"""What this package wrote itself, which is never a scan or a label: images of results, and folders of results."""

from __future__ import annotations

import json
from pathlib import Path

from anofield.data.content import open_content
from anofield.data.header import HEAD_BYTES
from anofield.data.volume import header_file
from anofield.errors import ScanError

RESULT = "anofield "  # start of the NIfTI description of every result image; phantom scans and labels do not have it
PHANTOM = "anofield phantom"
SYNTHETIC = f"synthetic: {PHANTOM}"  # NIfTI description of every phantom scan, label and mask
DESCRIPTION = {348: 148, 540: 240}  # size of the header of NIfTI-1 and NIfTI-2, and the byte of its description
MARKS = {  # a folder that holds one of these files, and what the folder is
    "run.json": "a run of anofield",
    "results.json": "results of anofield",
    "specs.json": "an experiment of anofield",
    "baseline.json": "a baseline of anofield",
    "zarr.json": "a store",
}


def is_result(path: Path) -> bool:
    """Whether an image was written by a detection, as its NIfTI description says; False if it cannot be read."""
    return _described(path, RESULT)


def maker_of(path: Path) -> str:
    """The program that made a synthetic scan, as its NIfTI description says; empty for any other scan."""
    return PHANTOM if _described(path, SYNTHETIC) else ""


def own_folder(folder: Path) -> str:
    """What a folder of this package is, for example `a run of anofield`; empty for any other folder.

    A BIDS dataset whose `GeneratedBy` names only this package is one as well.
    """
    for name, what in MARKS.items():
        if (folder / name).is_file():
            return what
    return "a BIDS derivative of anofield" if _generated_by(folder / "dataset_description.json") == {"anofield"} else ""


def _described(path: Path, begin: str) -> bool:
    """Whether the NIfTI description of an image begins with a text; False if it cannot be read."""
    try:
        with open_content(header_file(path)) as content:
            head = content.peek(HEAD_BYTES)  # no more is read: what follows may be unpacked without end
    except ScanError:
        return False
    return any(
        head[:4] in (size.to_bytes(4, "little"), size.to_bytes(4, "big")) and head[at:].startswith(begin.encode())
        for size, at in DESCRIPTION.items()
    )


def _generated_by(description: Path) -> set[str]:
    """Names of the programs that made a BIDS dataset, in lower case."""
    try:
        made_by = json.loads(description.read_text(encoding="utf-8")).get("GeneratedBy", [])
        return {str(one["Name"]).lower() for one in made_by}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return set()
