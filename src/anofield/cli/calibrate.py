"""`anofield calibrate`: healthy scans → thresholds stored with the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anofield._words import counted
from anofield.cli._detection import Filters, Fit, PresetOption, RecipeOption, options_from
from anofield.cli._options import Computing, HealthyInput, Json, Quantile, Trained, finish
from anofield.cli._parameters import expanded
from anofield.cli._tables import table

if TYPE_CHECKING:
    from anofield.detect.calibration import CalibrationInfo


@expanded
def command(
    *,
    trained: Trained,
    scans: HealthyInput,
    recipe: RecipeOption = None,
    preset: PresetOption = "default",
    quantile: Quantile = 0.999,
    filters: Filters,
    fit: Fit,
    work: Computing,
    json_: Json = False,
) -> None:
    """Set each score's threshold so that a known share of healthy brain lies above it."""
    from anofield.data.parallel import failures_of
    from anofield.detect.calibrate import calibrate
    from anofield.detect.calibration import settings_of

    spread = work.begin(trained.device)
    options, model = options_from(preset, fit=fit, filters=filters), trained.load(recipe=recipe)
    info, outcomes = calibrate(scans.cases(), model, options, quantile=quantile, spread=spread)
    text = f"{_text(info)}\nWritten to {settings_of(model, options).path(model.path)}."
    finish(info.model_dump(mode="json"), failures_of(outcomes), len(info.cases), as_json=json_, text=text)


def _text(info: CalibrationInfo) -> str:
    count = len(info.cases)
    thresholds = table([(name, f"{value:.4f}") for name, value in info.thresholds.items()], indent=2)
    spread = _spread(info.kept.interval, count)
    return f"Thresholds from {counted(count, 'healthy scan')}:\n{thresholds}\nMeaning: {info.meaning}{spread}"


def _spread(interval: Sequence[float] | None, subjects: int) -> str:
    """How well the threshold holds for new subjects, in words."""
    if interval is None:
        return ".\nOne subject says nothing about others: calibrate on more."
    low, high = (100 * share for share in interval)
    return (
        f";\nin new subjects, estimated from these {subjects}, {low:.2g} to {high:.2g} % (95 % interval of the mean)."
    )
