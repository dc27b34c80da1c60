"""`python -m anofield` and the program `anofield`: the command line."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C while its modules are imported ends it without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from anofield.cli import main as run

    run()


if __name__ == "__main__":
    main()
