"""NIfTI files as the tests read them, with the types of nibabel's NIfTI images."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib


def load_image(path: Path | None) -> nib.Nifti1Image:
    """The NIfTI image of a path that a case has."""
    assert path is not None
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image
