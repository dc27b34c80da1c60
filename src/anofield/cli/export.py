"""`anofield export`: store → the files of another program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anofield.cli._options import Json, finish


class Format(StrEnum):
    """File formats."""

    nt = "nt"


def command(
    source: Annotated[Path, typer.Option("--input", "-i", help="Store, NAME.zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files.")],
    format_: Annotated[Format, typer.Option("--format", help="nt: files of the code published in 2021.")] = Format.nt,
    json_: Json = False,
) -> None:
    """Write the complete cases of a store as files of another program."""
    from anofield.legacy import export_nt
    from anofield.store import Store

    paths = export_nt(Store(source), output)
    result = {"folder": str(output), "format": format_.value, "files": [str(path) for path in paths]}
    finish(result, [], len(paths), as_json=json_, text=f"{output}: {len(paths)} .{format_.value} files")
