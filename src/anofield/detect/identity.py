"""What a result depends on, as hashes: the files of the scan, and the identity of the run for everything else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from anofield._version import __version__
from anofield.data.cohort.case import Case
from anofield.data.scan import Scan
from anofield.data.volume import volume_hash
from anofield.detect.calibration import Calibrated
from anofield.detect.method import Method
from anofield.detect.options import RunOptions
from anofield.detect.scores import makers_of


@dataclass(frozen=True)
class Sources:
    """SHA-256 of what a scan was read from.

    Attributes:
        scan: Hash of the scan's file, or of its content if it has none.
        mask: Hash of the file of the brain mask; empty without one.
    """

    scan: str
    mask: str

    @classmethod
    def of(cls, case: Case, scan: Scan | None = None) -> Sources:
        """Hashes of the files of a case.

        Args:
            case: The case.
            scan: Scan whose content is hashed if the case has no file.
        """
        image, mask = (volume_hash(path) if path and path.is_file() else "" for path in (case.image, case.mask))
        return cls(image or (scan.content_hash if scan is not None else ""), mask)

    def key(self, identity: str) -> str:
        """Hash of everything that the result depends on.

        Args:
            identity: Identity of the run, see `identity_of`.
        """
        return hashlib.sha256("\n".join([self.scan, self.mask, identity]).encode()).hexdigest()


def identity_of(method: Method, options: RunOptions, calibrated: Calibrated | None) -> str:
    """Identity of a run: hash of everything that results depend on besides the scans."""
    promise: list[Any] = []
    if calibrated is not None:
        thresholds = {name: calibrated.thresholds.get(name) for name in options.names}
        promise = [thresholds, calibrated.healthy_fit, _digest(calibrated), sorted(calibrated.contents)]
    parts = [
        json.dumps(promise),
        json.dumps(makers_of(options.names)),
        method.name,
        method.hash,
        method.precision,
        __version__,
    ]
    parts += [method.recipe.model_dump_json(), options.model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(calibrated: Calibrated) -> str:
    """Hash of the reference maps."""
    digest = hashlib.sha256()
    for name, standard in sorted(calibrated.reference.items()):
        digest.update(name.encode() + standard.mean.tobytes() + standard.sd.tobytes())
    return digest.hexdigest()
