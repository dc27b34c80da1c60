"""What a store consists of: its attributes and arrays, and their metadata, written once and compared when it is opened.

The metadata of a store must be exactly those that this package writes for its attributes. So no file in a store can
name a codec, a shape, a type or a place that this package would not have written itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anofield._files import PARTIAL, explain, writing
from anofield._version import __version__
from anofield.data.chunks import METADATA, CaseArray, read_metadata
from anofield.data.cohort.case import Case
from anofield.data.origin import Origin, origin_of
from anofield.data.recipe import Recipe, missing_keys
from anofield.errors import CohortError
from anofield.typing import Json, PathLike

FORMAT = 2
VOLUMES = ("classes", "brain", "label")
HASHES = ("source_hash", "content_hash")
HASH_BYTES = 32  # of SHA-256
ARRAYS = (*VOLUMES, "to_native", "native_affine", "native_shape", *HASHES, "done")
NO_STORE = "is not a store of prepared scans"
AGAIN = "prepare the cohort again with --force"


class PosedBy(BaseModel):
    """What put the scans of a store on the posed lattice: a trained field, whose frame is that of the store.

    Attributes:
        experiment: Directory of the experiment, an absolute path.
        epoch: Epoch of the checkpoint.
        hash: Hash of the checkpoint's weights and codes.
        fit: Options of the fit of a pose (`anofield.detect.options.FitOptions`).
    """

    model_config = ConfigDict(frozen=True)

    experiment: str
    epoch: int
    hash: str
    fit: dict[str, Any]

    @property
    def identity(self) -> str:
        """Everything that decides on the pose of a scan, wherever the experiment lies now."""
        return f"{self.hash} {json.dumps(self.fit, sort_keys=True)}"


class StoreInfo(BaseModel):
    """Attributes of a store, written once.

    Attributes:
        anofield: Version of the package that created the store; its key marks what this package made.
        format: Version of the store's layout.
        recipe: Recipe of the cases.
        cases: Case ids, in the order of the arrays.
        subjects: Subject of each case.
        labels: Whether the store keeps lesion labels.
        side: R, lattice voxels per axis.
        pose: What found the poses of the scans; None if they lie as in their scanner.
        origin: Where the scans come from; stores of older versions do not say it.
    """

    model_config = ConfigDict(frozen=True)

    anofield: str = __version__
    format: int = FORMAT
    recipe: Recipe
    cases: list[str]
    subjects: list[str]
    labels: bool
    side: int = Field(ge=1, le=512)
    pose: PosedBy | None = None
    origin: Origin = Origin()

    @model_validator(mode="after")
    def _one_subject_each(self) -> StoreInfo:
        if len(self.cases) != len(self.subjects):
            raise ValueError(f"{len(self.subjects)} subjects for {len(self.cases)} cases")
        return self

    @classmethod
    def of(
        cls, cases: Sequence[Case], recipe: Recipe, *, labels: bool, side: int, pose: PosedBy | None = None
    ) -> StoreInfo:
        """The attributes of a new store of some cases; the other arguments are attributes."""
        subjects = [case.subject or case.id for case in cases]
        ids, origin = [case.id for case in cases], origin_of(cases)
        return cls(recipe=recipe, cases=ids, subjects=subjects, labels=labels, side=side, pose=pose, origin=origin)

    @property
    def arrays(self) -> dict[str, CaseArray]:
        """The arrays of the store by name, in the order in which a case is written: `done` is the last."""
        names = VOLUMES if self.labels else VOLUMES[:2]
        arrays = [CaseArray(name, "uint8", ("i", "j", "k"), (self.side,) * 3, packed=True) for name in names]
        arrays += [CaseArray(name, "float64", ("row", "column"), (4, 4)) for name in ("to_native", "native_affine")]
        arrays += [CaseArray("native_shape", "int64", ("axis",), (3,))]
        arrays += [CaseArray(name, "uint8", ("byte",), (HASH_BYTES,)) for name in HASHES]
        arrays += [CaseArray("done", "uint8", (), ())]
        return {array.name: array for array in arrays}

    def differs(self, wanted: StoreInfo) -> str:
        """Why this store cannot be resumed as the wanted one, for example `with other cases`; empty if it can."""
        differences = {
            "with another recipe": self.recipe != wanted.recipe,
            "with other cases": self.cases != wanted.cases,
            "with other poses": pose_identity(self.pose) != pose_identity(wanted.pose),
            "without labels": wanted.labels and not self.labels,
        }
        return next((what for what, differs in differences.items() if differs), "")

    def is_begun_in(self, folder: Path) -> bool:
        """Whether a folder holds this store, complete or not."""
        try:
            return not read_info(folder).differs(self)
        except CohortError:
            return False


def pose_identity(pose: PosedBy | None) -> str:
    """Everything that decides on the poses of scans; empty where they lie as in their scanner."""
    return "" if pose is None else pose.identity


def hash_values(digest: str) -> NDArray[np.uint8]:
    """The bytes of a SHA-256 in hexadecimal, as the arrays keep them; zeros for an empty one."""
    return np.frombuffer(bytes.fromhex(digest) or bytes(HASH_BYTES), dtype=np.uint8)


def write_empty(path: PathLike, info: StoreInfo) -> None:
    """Write a store without cases; it appears under its name when it is complete.

    Raises:
        MachineError: The folder cannot be written.
    """
    final = Path(os.path.realpath(path))
    beside = final.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{final.name}")
    attributes = info.model_dump(mode="json", exclude=None if info.pose else {"pose"})
    attributes["checksum"] = _checksum(attributes)
    with writing(path):
        try:
            beside.mkdir(parents=True)
            for name, array in info.arrays.items():
                (beside / name).mkdir()
                _write(beside / name, array.metadata(len(info.cases)))
            _write(beside, {"zarr_format": 3, "node_type": "group", "attributes": attributes})
            beside.rename(final)  # the name is free, or an empty folder
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def read_info(path: Path) -> StoreInfo:
    """The attributes of a store, its metadata checked.

    Raises:
        CohortError: There is no store of this format, it lacks arrays or keys, or its metadata are not those that this
            package writes.
    """
    content = _metadata(path)
    attributes = content.get("attributes")
    if content.get("zarr_format") != 3 or content.get("node_type") != "group" or not isinstance(attributes, dict):
        raise CohortError(f"{NO_STORE} (no Zarr 3 group)", where=path, remedy="make one with `anofield prepare`")
    if (found := attributes.get("format", FORMAT)) != FORMAT:
        what = f"has store format {found}, this version reads {FORMAT}"
        raise CohortError(what, where=path, remedy="prepare the cohort again, in another folder")
    try:
        info = StoreInfo.model_validate(attributes)
    except ValidationError as error:
        what = f"{NO_STORE} ({explain(error)})"
        raise CohortError(what, where=path, remedy="make one with `anofield prepare`") from error
    missing = [name for name in info.arrays if not (path / name / METADATA).exists()]
    missing += [f"recipe.{key}" for key in missing_keys(info.recipe.model_fields_set)]
    if missing:
        raise CohortError(f"lacks {', '.join(missing)}", where=path, remedy=AGAIN)
    if attributes.pop("checksum", "") != _checksum(attributes):
        raise CohortError("is damaged (its attributes do not have their checksum)", where=path, remedy=AGAIN)
    _check_arrays(path, info)
    return info


def _check_arrays(path: Path, info: StoreInfo) -> None:
    for name, array in info.arrays.items():
        inside(path, path / name / METADATA)
        if _metadata(path / name) != array.metadata(len(info.cases)):
            raise CohortError(
                "has other metadata than this package writes",
                where=path / name / METADATA,
                why="shapes and codecs in them could make its cases something else",
                remedy=AGAIN,
            )


def inside(store: Path, path: Path) -> None:
    """Check that a path in a store does not lead out of it through a link.

    Raises:
        CohortError: It does.
    """
    root, real = os.path.realpath(store), os.path.realpath(path)
    if os.path.commonpath((root, real)) != root:
        raise CohortError(
            f"leads out of the store, to {real}",
            where=path,
            why="a store that is moved or copied would lose what lies there",
            remedy="replace the link by the files (`cp -rL STORE COPY` copies a store without links)",
        )


def _metadata(folder: Path) -> Json:
    """The content of the `zarr.json` of the store or of an array in it."""
    try:
        return read_metadata(folder / METADATA)
    except (OSError, ValueError) as error:
        raise CohortError(
            f"{NO_STORE} ({_reason(folder, error)})", where=folder, remedy="make one with `anofield prepare`"
        ) from error


def _reason(folder: Path, error: OSError | ValueError) -> str:
    """Why the metadata of a folder cannot be read."""
    if folder.is_symlink() and not folder.exists():
        return f"a link to {os.path.realpath(folder)}, which is missing"
    if (folder / ".zgroup").exists() or (folder / ".zarray").exists():
        return "Zarr 2; stores are Zarr 3"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"no {METADATA}"
    return error.strerror or "unreadable" if isinstance(error, OSError) else str(error)


def _write(folder: Path, content: Json) -> None:
    (folder / METADATA).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _checksum(attributes: Json) -> str:
    """SHA-256 of attributes, whatever the order and the layout of their JSON."""
    plain = json.dumps(attributes, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
