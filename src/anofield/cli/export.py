"""`anofield export`: store or experiment → the files of another program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield._progress import say
from anofield.cli._options import Json, finish


class Format(StrEnum):
    """File formats."""

    nt = "nt"
    ifl2021 = "ifl2021"


def command(
    source: Annotated[Path, typer.Option("--input", "-i", help="Store, NAME.zarr (nt); experiment (ifl2021).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files.")],
    format_: Annotated[
        Format, typer.Option("--format", help="For the code of 2021: nt, cases; ifl2021, an experiment directory.")
    ] = Format.nt,
    json_: Json = False,
) -> None:
    """Write a store or an experiment as the files that the code published in 2021 reads."""
    paths, notes = _nt(source, output) if format_ is Format.nt else _ifl2021(source, output)
    for note in notes:
        say(note)
    result = {"folder": str(output), "format": format_.value, "files": [str(path) for path in paths], "notes": notes}
    kind = ".nt files" if format_ is Format.nt else "files of an experiment"
    finish(result, [], len(paths), as_json=json_, text=f"{output}: {len(paths)} {kind}")


def _nt(source: Path, output: Path) -> tuple[list[Path], list[str]]:
    from anofield.data.nt import export_nt
    from anofield.data.store import Store

    return export_nt(Store(source), output), []


def _ifl2021(source: Path, output: Path) -> tuple[list[Path], list[str]]:
    from anofield.field.experiment import Experiment
    from anofield.field.export import export_experiment

    return export_experiment(Experiment(source), output)
