"""Detection options from the command line."""

from __future__ import annotations

from pydantic import ValidationError

from anofield.detect import DetectOptions
from anofield.errors import UsageError


def options_from(
    score: str,
    also: str,
    tail: str,
    minimum_mm: float | None,
    mean_mm: float | None,
    gaussian_mm: float | None,
    seed: int,
) -> DetectOptions:
    """Options of a run; filters that are not given are the defaults.

    Raises:
        UsageError: An unknown score, or a filter width below 0.
    """
    extra = tuple(name.strip() for name in also.split(",") if name.strip() not in ("", "none"))
    filters = {"tail": tail, "minimum_mm": minimum_mm, "mean_mm": mean_mm, "gaussian_mm": gaussian_mm}
    chosen = {"score": score, "also": extra, "fit": {"seed": seed},
              "filters": {key: value for key, value in filters.items() if value is not None}}  # fmt: skip
    try:
        return DetectOptions.model_validate(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {first['msg']}", remedy="anofield detect --help lists the options") from error
