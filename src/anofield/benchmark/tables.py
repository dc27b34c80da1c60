"""The table of a suite, as Markdown and as tab-separated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from anofield._words import counted
from anofield.benchmark.pairs import Against, compare_rows
from anofield.benchmark.rows import FEW, PUBLISHED
from anofield.benchmark.sizes import Sizes, kind_of_seed
from anofield.benchmark.suite import AGAINST, Column, Suite
from anofield.typing import Json

Compared = Mapping[str, Mapping[str, Against]]  # part → row → comparison


def sorted_rows(suite: Suite, rows: Sequence[Json]) -> list[Json]:
    """The best row first, by the mean of the suite's figure over all parts."""

    def mean(row: Json) -> float:
        """Mean of the figure, negative where more is better; rows without it come last."""
        values = [part["figures"][suite.rank]["value"] for part in row["parts"].values()]
        known = [value for value in values if value is not None]
        if not known:
            return float("inf")
        return float(np.mean(known)) * (1 if suite.lower_is_better else -1)

    return sorted(rows, key=mean)


def compared(suite: Suite, rows: Sequence[Json]) -> dict[str, dict[str, Against]]:
    """The comparison of every part that has a column for it."""
    parts = [column.part for column in suite.columns if column.figure == AGAINST]
    return {part: compare_rows(rows, part, suite.rank, lower_is_better=suite.lower_is_better) for part in parts}


def format_markdown(suite: Suite, rows: Sequence[Json], failures: Mapping[str, str], sizes: Sizes, seed: int) -> str:
    """The table in Markdown: the best row first, failed methods last, then notes."""
    headings = ["method", *(column.heading for column in suite.columns), "n", "s per case", "training, s"]
    lines = [f"| {' | '.join(headings)} |", "|" + " --- |" * len(headings)]
    found = compared(suite, rows)
    for row in sorted_rows(suite, rows):
        cells = [_cell(row, column, found) for column in suite.columns]
        times = [str(row["n_cases"]), f"{row['seconds_per_case']:.2f}", f"{row['training_seconds']:.0f}"]
        lines.append(f"| `{row['name']}` | {' | '.join([*cells, *times])} |")
    lines += [f"| `{name}` | failed |{' – |' * (len(headings) - 2)}" for name in failures]
    failed = [f"`{name}` failed: {' '.join(text.split())}" for name, text in failures.items()]
    notes = [suite.shows, f"{kind_of_seed(seed).capitalize()}. {_people(suite, sizes)}", *_few(rows, sizes)]
    return "\n\n".join([f"## {suite.name}", *notes, "\n".join(lines), *failed, *_reasons(suite, rows)])


def _reasons(suite: Suite, rows: Sequence[Json]) -> list[str]:
    """What a method said against each scan that it does not trust."""
    if not suite.judged_only:
        return []
    told = [
        f"* `{row['name']}`, {case}: {'; '.join(reasons)}"
        for row in rows
        for part in row["parts"].values()
        for case, reasons in part["reasons"].items()
    ]
    return ["\n".join(told)] if told else []


def _people(suite: Suite, sizes: Sizes) -> str:
    plan = suite.world.sizes.plan
    tiny = " **Tiny sizes: the table shows that everything works, and nothing else.**" if sizes.everything_small else ""
    return (
        f"World `{suite.world.name}`: {counted(plan.n_train, 'healthy person', 'healthy people')} for training, "
        f"lattice {plan.resolution}³. [95 % intervals over people]; «ahead» and «behind»: so says the whole interval of"
        f" the paired difference from the best other method.{tiny}"
    )


def _few(rows: Sequence[Json], sizes: Sizes) -> list[str]:
    if not any(row["name"] in (FEW, PUBLISHED) for row in rows):
        return []
    people = counted(sizes.few, "person", "people")
    return [
        f"`{PUBLISHED}`, the published procedure on the network of `anofield`, has {people} for calibration and "
        f"{sizes.few} of every group for the test: compare it with `{FEW}`, which has the same."
    ]


def _cell(row: Json, column: Column, found: Compared) -> str:
    part = row["parts"].get(column.part)
    if part is None:
        return "–"
    if column.figure == AGAINST:
        return _against(found[column.part].get(row["name"]))
    figure = part["figures"].get(column.figure)
    if figure is None or figure["value"] is None:
        return "–"
    interval = figure["ci"]
    digits = 3 if column.figure not in ("false_ml", "false_promise") else 2
    text = f"{figure['value']:.{digits}f}"
    return text + (f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else "")


def _against(found: Against | None) -> str:
    if found is None or found.ci is None:
        return ""
    numbers = f"{found.value:+.3f} [{found.ci[0]:+.3f}, {found.ci[1]:+.3f}] `{found.other}`"
    return f"**{found.verdict}** {numbers}" if found.verdict else numbers


def format_tsv(suite: Suite, rows: Sequence[Json], failures: Mapping[str, str]) -> str:
    """The table as tab-separated text: one line per row and part, one number per cell."""
    names = sorted({name for row in rows for part in row["parts"].values() for name in part["figures"]})
    ends = [cell for name in names for cell in (name, f"{name}_low", f"{name}_high")]
    others = ["n", "seconds_per_case", "training_seconds", "other", "difference", "difference_low", "difference_high"]
    lines = ["\t".join(["method", "part", *ends, *others, "verdict", "paper", "failure"])]
    found = compared(suite, rows)
    for row in sorted_rows(suite, rows):
        for name, part in row["parts"].items():
            figures = [part["figures"].get(key) or {"value": None, "ci": None} for key in names]
            cells = [_number(n) for figure in figures for n in (figure["value"], *(figure["ci"] or (None, None)))]
            times = [str(len(part["people"])), str(part["seconds_per_case"]), str(row["training_seconds"])]
            pair = _pair_cells(found.get(name, {}).get(row["name"]))
            lines.append("\t".join([row["name"], name, *cells, *times, *pair, row["paper"], ""]))
    missing = ["n/a"] * (len(ends) + len(others) + 3)
    lines += ["\t".join([name, *missing, " ".join(text.split())]) for name, text in failures.items()]
    return "\n".join(lines) + "\n"


def _pair_cells(found: Against | None) -> list[str]:
    if found is None:
        return ["", "n/a", "n/a", "n/a", ""]
    return [found.other, _number(found.value), *(_number(end) for end in found.ci or (None, None)), found.verdict]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
