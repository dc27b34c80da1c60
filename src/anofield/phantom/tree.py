"""The files that make a folder of synthetic scans, and the truth in it, two BIDS datasets."""

from __future__ import annotations

import json
from pathlib import Path

from anofield._files import write_bytes, write_json
from anofield.errors import UsageError
from anofield.typing import Json, PathLike

BIDS_VERSION = "1.10.0"
TRUTH = Path("derivatives") / "phantom"
DESCRIPTION = "dataset_description.json"
LABELS = """Lesion and brain masks are in derivatives/phantom. Labels of lesion masks:
1 necrosis, cavity or dark scar; 2 oedema, infarct or small lesion; 3 infiltrated or malformed tissue;
4 solid tumour or blood.
"""


def check_tree(out: PathLike, name: str) -> None:
    """Check that a folder is no other dataset, whose README and list of participants would be replaced.

    Raises:
        UsageError: It is.
    """
    path = Path(out) / DESCRIPTION
    if path.exists() and _name_of(path) != name:
        raise UsageError(
            "is another dataset",
            where=out,
            why="its README and its list of participants would be replaced",
            remedy="name a folder of its own with -o",
        )


def describe_tree(out: PathLike, name: str, readme: str) -> None:
    """Write the descriptions of a dataset and of its truth, and the README; the same for every case.

    Raises:
        UsageError: The folder is another dataset.
    """
    check_tree(out, name)
    raw: Json = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "anofield phantom"}],
    }
    write_json(Path(out) / DESCRIPTION, raw)
    write_json(Path(out) / TRUTH / DESCRIPTION, {**raw, "Name": f"{name}: truth", "DatasetType": "derivative"})
    write_bytes(Path(out) / "README", readme.encode())


def _name_of(path: Path) -> str | None:
    """The name in a description of a dataset; None if it has none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content.get("Name") if isinstance(content, dict) else None
