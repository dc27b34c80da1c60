"""Shape aliases used in signatures: `Volume` is one 3-D array, `Affine` a 4 × 4 map between frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Volume: TypeAlias = NDArray[Any]  # (i, j, k)
FloatVolume: TypeAlias = NDArray[np.float32]  # (i, j, k)
Mask: TypeAlias = NDArray[np.bool_]  # (i, j, k)
Classes: TypeAlias = NDArray[np.uint8]  # (i, j, k), intensity class of every voxel
Affine: TypeAlias = NDArray[np.float64]  # (4, 4), homogeneous
Shape3: TypeAlias = tuple[int, int, int]
PathLike: TypeAlias = str | Path
Json: TypeAlias = dict[str, Any]
