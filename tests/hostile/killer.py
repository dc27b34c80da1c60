"""A server that forks: it imports the program once, and then runs each job in a child of its own.

A job is a command line (`argv`) or a function (`call`, as `module:name`, with `args`), one list of jobs per line of
JSON on stdin; the jobs of a list run at the same time. An audit hook counts the events with which a child changes files
below `root`. It can end the child at event number `at`: before it happens (`how` is `before`), or in the middle of the
write that the event begins (`torn`: the file may grow by `TORN` bytes, then the system ends the process).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

TORN = 40  # bytes that the file of a torn write may grow by
KILLED = 137  # as a shell reports SIGKILL
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = {  # audit event → numbers of the arguments that are paths, and of those that are folders of relative paths
    "os.rename": ((0, 1), (2, 3)),
    "os.remove": ((0,), (1,)),
    "os.mkdir": ((0,), (2,)),
    "os.rmdir": ((0,), (1,)),
    "os.link": ((0, 1), (2, 3)),
    "os.symlink": ((0, 1), (2, 2)),
    "os.truncate": ((0,), ()),
}


class Killer:
    """Audit hook that records the changes of files below a folder, and ends the process at one of them."""

    def __init__(self, root: str, at: int | None, how: str) -> None:
        self.root, self.at, self.how = os.path.realpath(root) + os.sep, at, how
        self.seen: list[list[str]] = []
        self._busy = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Count one event; the hook's own calls do not count."""
        if self._busy or not (event in EVENTS or event == "open"):
            return
        self._busy = True
        try:
            paths = self._paths(event, args)
            if any(path.startswith(self.root) for path in paths):
                self.seen.append([event, *(path.removeprefix(self.root) for path in paths)])
                if len(self.seen) == self.at:
                    self._end(event, args, paths[0])
        finally:
            self._busy = False

    def _paths(self, event: str, args: tuple[Any, ...]) -> list[str]:
        """Absolute paths that an event changes."""
        if event == "open":
            path, mode, flags = args
            changes = bool(flags & WRITES) if isinstance(flags, int) else any(sign in mode for sign in "wax+")
            return [_absolute(path, -1)] if changes and not isinstance(path, int) else []
        paths, folders = EVENTS[event]
        where = [args[n] if n < len(args) else -1 for n in folders] or [-1]
        return [
            _absolute(args[n], folder) for n, folder in zip(paths, where, strict=False) if not isinstance(args[n], int)
        ]

    def _end(self, event: str, args: tuple[Any, ...], path: str) -> None:
        if self.how == "before" or event != "open":
            os._exit(KILLED)
        keeps = (isinstance(args[1], str) and ("a" in args[1] or "+" in args[1])) or bool(args[2] & os.O_APPEND)
        size = Path(path).stat().st_size if keeps and Path(path).exists() else 0
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + TORN, resource.RLIM_INFINITY))


def _absolute(path: Any, folder: Any) -> str:
    """Absolute path of an argument of an event; `folder` is the descriptor that a relative one starts at, or −1."""
    place = Path(os.fsdecode(path))
    if isinstance(folder, int) and folder >= 0:
        with contextlib.suppress(OSError):
            place = Path(f"/proc/self/fd/{folder}").readlink() / place
    place = place.absolute()
    return str(place.parent.resolve() / place.name)  # a link is changed itself, not what it points to


def run(job: dict[str, Any], report: int) -> None:
    """Run a job in this process, a child of the server, and write how it ended to the descriptor `report`."""
    os.chdir(job["cwd"])
    time.sleep(job.get("wait", 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if job.get("pid"):
        os.getpid = lambda: int(job["pid"])
    killer = Killer(job.get("root", job["cwd"]), job.get("at"), job.get("how", "before"))
    sys.addaudithook(killer)
    value: Any = None
    try:
        if "call" in job:
            module, name = job["call"].split(":")
            value, code = getattr(importlib.import_module(module), name)(*job.get("args", ())), 0
        else:
            code = run_command(job["argv"])
    except BaseException:  # noqa: BLE001 - the child tells how it ended
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    for number in (1, 2):  # the server reads the output to its end before the report
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    os.write(report, json.dumps({"code": code, "events": killer.seen, "value": value}).encode())


def run_command(argv: list[str]) -> int:
    """Run the command line in this process, and return its exit code."""
    from anofield.cli import main

    sys.argv = ["anofield", *argv]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)


def _start(job: dict[str, Any]) -> tuple[int, int, int]:
    """Fork a child for a job: its pid, and the descriptors of its output and of its report."""
    (out, to_out), (report, to_report) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(to_out, 1)
        os.dup2(to_out, 2)
        os.close(to_out)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            run(job, to_report)
        finally:
            os._exit(0)
    os.close(to_out)
    os.close(to_report)
    return pid, out, report


def _ended(pid: int, out: int, report: int) -> dict[str, Any]:
    """Wait for a child: exit code, output, events, and its highest memory in MB."""
    with os.fdopen(out, "rb") as stream:
        said = stream.read().decode(errors="replace")
    with os.fdopen(report, "rb") as stream:
        told = json.loads(stream.read() or b"{}")
    _, status, used = os.wait4(pid, 0)
    code = KILLED if os.WIFSIGNALED(status) or not told else told["code"]
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    told = told or {"events": [], "value": None}
    return {**told, "code": code, "signal": number, "said": said, "megabytes": used.ru_maxrss // 1024}


def import_everything() -> None:
    """Import every module of the program and the slow ones that it imports late, so that children find them."""
    import anofield

    for module in pkgutil.walk_packages(anofield.__path__, "anofield."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in ("torch._dynamo", "matplotlib.pyplot"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def serve() -> None:
    """Answer jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import_everything()
    for line in sys.stdin:
        jobs = json.loads(line)
        started = [_start(job) for job in jobs]
        answers.write(json.dumps([_ended(*one) for one in started]) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    serve()
