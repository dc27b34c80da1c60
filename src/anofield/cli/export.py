"""`anofield export`: store or experiment → the files of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from anofield._progress import say
from anofield.cli._options import Json, finish


def command(
    source: Annotated[
        Path, typer.Option("--input", "-i", help="For nt: a store, NAME.zarr; for ifl2021: an experiment directory.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files.")],
    format_: Annotated[
        Literal["nt", "ifl2021"],
        typer.Option("--format", help="nt: the cases of a store; ifl2021: an experiment; both for the code of 2021."),
    ] = "nt",
    json_: Json = False,
) -> None:
    """Write a store or an experiment as the files that the code published in 2021 reads."""
    write, kind = FORMATS[format_]
    paths, notes = write(source, output)
    for note in notes:
        say(note)
    result = {"folder": str(output), "format": format_, "files": [str(path) for path in paths], "notes": notes}
    finish(result, [], len(paths), as_json=json_, text=f"{output}: {len(paths)} {kind}")


def _nt(source: Path, output: Path) -> tuple[list[Path], list[str]]:
    from anofield.data.nt import export_nt
    from anofield.data.store import Store

    return export_nt(Store(source), output), []


def _ifl2021(source: Path, output: Path) -> tuple[list[Path], list[str]]:
    from anofield.field.experiment import Experiment
    from anofield.field.export import export_experiment

    return export_experiment(Experiment(source), output)


FORMATS = {"nt": (_nt, ".nt files"), "ifl2021": (_ifl2021, "files of an experiment")}
