"""The command line: one thin file per verb; errors become one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from anofield._signals import handled
from anofield._version import __version__
from anofield.cli._streams import Unread, safe_streams
from anofield.cli._verbs import VERBS, Verbs, load
from anofield.errors import AnofieldError, Interrupted, known_error

EPILOG = (
    "Exit codes: 0 done · 1 a bug · 2 usage or configuration · 3 finished, some cases failed · 4 no usable input · "
    "5 experiment missing or incompatible · 6 machine (device, memory, disk) · 129/130/143 interrupted after saving · "
    "141 nobody reads the output."
)
NARROWEST = 40  # columns

app = typer.Typer(
    cls=Verbs,
    name="anofield",
    help="Learn healthy brain anatomy from scans, and show voxel by voxel where a new scan differs from it.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """Run the command line; every error ends with the exit code of its kind, and only a bug shows a traceback."""
    with safe_streams():
        sys.exit(_run())


def _run() -> int:
    """Run the command line and return the exit code."""
    try:
        _on_signals()
        _usable_width()
        return _ended()
    except (AnofieldError, Interrupted) as error:
        _tell(error)
        return error.exit_code
    except Unread as error:
        return error.exit_code
    except KeyboardInterrupt:  # a second Ctrl-C
        _tell(Interrupted(signal.SIGINT))
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001 - the last handler of the program
        if (known := known_error(error)) is not None:
            _tell(known)
            return known.exit_code
        os.environ["ANOFIELD_DEBUG"] = "1"
        _tell(f"this is a defect of anofield {__version__}, please report it: {type(error).__name__}: {error}")
        return 1


def _ended() -> int:
    """Run the verb, write what is left of its output, and return the exit code."""
    try:
        app()
    except SystemExit as ended:
        sys.stdout.flush()
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    sys.stdout.flush()
    return 0


def loaded() -> Any:
    """The whole command line with every verb imported, for code that reads its options."""
    root: Any = get_command(app)
    root.commands = {name: load(name) for name in VERBS}
    return root


def _on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        """Turn a signal into the interruption that every verb handles."""
        raise Interrupted(number, "Finished cases are kept; the same command resumes where it stopped.")

    for number in handled():
        signal.signal(number, stop)


def _usable_width() -> None:
    """Ignore a width of the terminal in which nothing can be shown."""
    width = os.environ.get("COLUMNS", "")
    if width.isdecimal() and int(width) < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def _tell(message: object) -> None:
    if os.environ.get("ANOFIELD_DEBUG"):
        traceback.print_exc()
    sys.stderr.write(f"anofield: {message}\n")
