"""How far a lesion shifts the normalised intensity of the healthy rest of a brain, for each normalisation.

The same phantom person is prepared with and without a lesion; only voxels far from the lesion are compared, whose scan
intensities are the same up to noise. Usage: python benchmarks/normalisation.py [--people 12] [--seed 7]
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anofield.data.prepare import normalise_robust
from anofield.data.published import normalise_clip_minmax
from anofield.data.tissue import normalise_tissue
from anofield.phantom.layouts import grid_of
from anofield.phantom.person import Look, make_person


def anchored(values: NDArray[np.float32]) -> tuple[float, float]:
    """Shift and scale of `tissue`."""
    return normalise_tissue(values) or normalise_robust(values)


METHODS = {"robust": normalise_robust, "tissue": anchored, "clip-minmax": normalise_clip_minmax}
FAR_MM = 25.0  # beyond the reach of the mass effect


def shift_of(seed: int, number: int, kind: str, modality: str, size: int) -> tuple[dict[str, float], float]:
    """Median change of the normalised intensity far from the lesion, in units of the healthy brain's SD; lesion ml."""
    grid, look = grid_of("brats", size), Look(modality=modality, noise=0.0)
    healthy = make_person(seed, number, grid, look=look)
    ill = make_person(seed, number, grid, lesion=kind, look=look)
    step = float(np.linalg.norm(grid.affine[:3, 0]))
    far = ndimage.distance_transform_edt(ill.label == 0) * step > FAR_MM
    far &= healthy.brain & ill.brain
    changes = {}
    for name, method in METHODS.items():
        values = []
        for person in (healthy, ill):
            shift, scale = method(person.image[person.brain])
            values.append((person.image - shift) / scale)
        moved = float(np.median(np.abs(values[1][far] - values[0][far])))
        changes[name] = moved / float(values[0][healthy.brain].std())
    return changes, float((ill.label > 0).sum()) * step**3 / 1000


def main() -> None:
    """Print a table of shifts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", type=int, default=80)
    options = parser.parse_args()
    print("median shift of far healthy voxels, in SD of the healthy brain: mean (max) over people")
    print(f"{'modality':9}{'lesion':8}{'ml':>6}" + "".join(f"{name:>18}" for name in METHODS))
    for modality in ("T2w", "FLAIR", "T1w"):
        for kind in ("glioma", "dark"):
            rows = [shift_of(options.seed, n, kind, modality, options.size) for n in range(options.people)]
            cells = [[row[0][name] for row in rows] for name in METHODS]
            text = "".join(f"{np.mean(c):>10.3f} ({np.max(c):.3f})" for c in cells)
            print(f"{modality:9}{kind:8}{np.mean([row[1] for row in rows]):6.0f}{text}")


if __name__ == "__main__":
    main()
