"""The command line: one thin file per verb; errors become one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, NoReturn

import typer

from anofield import __version__
from anofield.cli import (
    baseline,
    benchmark,
    calibrate,
    check,
    demo,
    detect,
    evaluate,
    export,
    import_,
    info,
    mood,
    phantom,
    prepare,
    report,
    sample,
    train,
)
from anofield.errors import AnofieldError, Interrupted

EPILOG = (
    "Exit codes: 0 done · 1 a bug · 2 usage or configuration · 3 finished, some cases failed · 4 no usable input · "
    "5 experiment missing or incompatible · 6 machine (device, memory, disk) · 130/143 interrupted after saving."
)

app = typer.Typer(
    name="anofield",
    help="Learn healthy brain anatomy from scans, and show voxel by voxel where a new scan departs from it.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (demo, phantom, check, prepare, train, sample, calibrate, detect, evaluate, report, import_, export, mood, info)
for verb in (*VERBS, benchmark):
    app.command(name=verb.__name__.rpartition(".")[2].rstrip("_"))(verb.command)
app.add_typer(baseline.app, name="baseline")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"anofield {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["ANOFIELD_DEBUG"] = "1"


def main() -> NoReturn:
    """Run the command line; every `AnofieldError` ends with its own exit code and no traceback."""
    _on_signals()
    try:
        app()
    except Interrupted as stop:
        _tell(stop)
        sys.exit(stop.exit_code)
    except AnofieldError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except MemoryError as error:
        _tell(f"out of memory ({error}). Remedy: a smaller --res, or fewer workers.")
        sys.exit(6)
    except Exception as error:  # noqa: BLE001 - the last word of the program
        os.environ["ANOFIELD_DEBUG"] = "1"
        _tell(f"this is a defect of anofield {__version__}, please report it: {type(error).__name__}: {error}")
        sys.exit(1)
    sys.exit(0)


def _on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number, "Finished cases are kept; the same command goes on where it stopped.")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _tell(message: object) -> None:
    if os.environ.get("ANOFIELD_DEBUG"):
        traceback.print_exc()
    sys.stderr.write(f"anofield: {message}\n")
