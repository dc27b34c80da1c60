"""Odd surroundings: any encoding, closed, broken and full streams, signals, odd paths. None of them is called a bug."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anofield.errors import AnofieldError, MachineError, ScanError, UsageError, known_error

Run = Callable[..., Any]
PROGRAM = f"{sys.executable} -m anofield"
PRINT = """
from anofield.cli import _options, _streams
with _streams.safe_streams():
    _options.print_result({"a": chr(0xb5) + chr(0xdcff)}, chr(0xb5) + chr(0xdcff), as_json=%s)
"""


def shell(command: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash."""
    environment = {**os.environ, **changes}
    return subprocess.run(["bash", "-c", command], capture_output=True, check=False, env=environment, timeout=60)


OPENS = """
import os
from anofield.cli._streams import safe_streams
with safe_streams():
    with open("file", "w") as stream:
        assert stream.fileno() > 2
        print("text", flush=True)
        os.system("echo more")
"""


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory, save_brain: Callable[..., Path]) -> str:
    """A quick command that prints a result."""
    return f"{PROGRAM} check -i {save_brain(tmp_path_factory.mktemp('scans') / 'sub-1_T2w.nii.gz')}"


@pytest.mark.slow
class TestStreams:
    @pytest.mark.parametrize("words", ["--version", "--help"])
    def test_a_full_disk_is_6_and_one_line(self, words: str) -> None:
        ended = shell(f"{PROGRAM} {words} > /dev/full")
        assert ended.returncode == 6 and ended.stderr.count(b"\n") == 1
        assert b"stdout cannot be written (No space left on device)" in ended.stderr and b"defect" not in ended.stderr

    def test_a_full_disk_is_6_for_a_verb(self, check: str) -> None:
        ended = shell(f"{check} > /dev/full")
        assert ended.returncode == 6 and b"Traceback" not in ended.stderr and b"ignored" not in ended.stderr

    def test_a_closed_pipe_is_141_and_silent(self, check: str) -> None:
        for command in (check, f"{PROGRAM} --help", f"{PROGRAM} --version"):
            ended = shell(f"{command} | true; exit ${{PIPESTATUS[0]}}")
            assert (ended.returncode, ended.stderr) == (141, b"")

    @pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", "2>/dev/full"])
    def test_a_closed_descriptor_is_dev_null(self, closed: str, check: str) -> None:
        ended = shell(f"{check} {closed}")
        assert ended.returncode == 0 and ended.stderr == b""

    def test_a_file_never_gets_the_number_of_a_closed_stream(self, tmp_path: Path) -> None:
        (tmp_path / "opens.py").write_text(OPENS)
        ended = shell(f"cd {tmp_path}; {sys.executable} opens.py <&- >&- 2>&-")
        assert ended.returncode == 0 and (tmp_path / "file").read_bytes() == b""

    @pytest.mark.parametrize("how", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0",
                                     "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "utf-8:strict"}])  # fmt: skip
    def test_any_encoding_will_do(self, how: dict[str, str]) -> None:
        ended = shell(f"{PROGRAM} --help", **how)
        assert ended.returncode == 0 and b"Exit codes" in ended.stdout and ended.stderr == b""
        for as_json in (True, False):
            done = subprocess.run([sys.executable, "-c", PRINT % as_json], capture_output=True, check=False,
                                  env={**os.environ, **how})  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == {"a": "µ\udcff"} if as_json else b"\\udcff" in done.stdout

    @pytest.mark.parametrize("columns", ["0", "1", "-3", "wide", "100000"])
    def test_any_width_will_do(self, columns: str) -> None:
        ended = shell(f"{PROGRAM} --help", COLUMNS=columns, TERM="dumb")
        assert ended.returncode == 0 and b"detect" in ended.stdout


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    from anofield.cli._options import print_result

    print_result({"a": [float("nan"), 1.5], "b": (float("inf"),)}, "", as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [None, 1.5], "b": [None]}


WAIT = """
import signal, sys, time
from anofield.cli import main
import anofield.cli.info as info
def wait(*_):
    print("ready", flush=True)
    time.sleep(30)
info._collect = wait
sys.argv = ["anofield", "info"]
main()
"""


@pytest.mark.kill
class TestSignals:
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_has_its_own_code_and_one_line(self, name: str) -> None:
        number = getattr(signal, name)
        code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n" + WAIT  # the tests may run under nohup
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            _, err = process.communicate(timeout=20)
        assert process.returncode == 128 + number and err.count(b"\n") == 1

    def test_nohup_is_respected(self) -> None:
        code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + WAIT.replace("30", "1")
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGHUP)
            process.communicate(timeout=20)
        assert process.returncode != 129

    def test_an_import_is_ended_without_a_traceback(self) -> None:
        for wait in (0.02, 0.06, 0.1, 0.2):
            with subprocess.Popen(
                [*PROGRAM.split(), "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                time.sleep(wait)
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=20)
            assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM) and b"Traceback" not in err


class TestErrors:
    @pytest.mark.parametrize(
        ("raised", "code", "told"),
        [
            (MemoryError("12 GiB"), 6, "out of memory (12 GiB)"),
            (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), 6, "out of memory"),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 6, "out of memory"),
            (RecursionError("maximum depth"), 2, "nested too deeply"),
            (KeyboardInterrupt(), 130, "interrupted by signal 2"),
            (EOFError("Compressed file ended"), 4, "ends too early"),
            (BrokenPipeError(errno.EPIPE, "Broken pipe"), 6, "Broken pipe"),
            (OSError(errno.EIO, "Input/output error", "scan.nii"), 6, "scan.nii: the operating system refuses"),
            (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 5000), 2, "cannot be used as a path"),
            (OSError(errno.ELOOP, "Too many levels of symbolic links", "loop"), 2, "loop: cannot be used"),
            (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "a/b"),
            (OSError("no gzip file"), 4, "no gzip file"),
            (ValueError("embedded null byte"), 2, "NUL"),
            (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), 2, "not valid UTF-8"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    def test_of_the_surroundings_are_no_bug(
        self, raised: BaseException, code: int, told: str, anofield: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise raised

        monkeypatch.setattr("anofield.cli.info._collect", fail)
        ended = anofield("info")
        assert ended.code == code and told in ended.err and len(ended.err) < 600
        assert ended.err.count("\n") == 1 and "defect" not in ended.err and ended.out == ""

    @pytest.mark.parametrize("raised", [KeyError("a"), ValueError("b"), RuntimeError("c"), AssertionError()])
    def test_of_the_program_are(self, raised: Exception) -> None:
        assert known_error(raised) is None

    def test_of_this_package_stay(self) -> None:
        for kind in (AnofieldError, UsageError, ScanError, MachineError):
            assert known_error(error := kind("what")) is error


def odd_paths(folder: Path) -> dict[str, str]:
    (folder / "file").write_text("text")
    (folder / "loop").symlink_to(folder / "loop")
    inside = {"part": f"{'n' * 300}/x", "through": "file/x", "loop": "loop/x", "nul": "a\0b"}
    return {"long": "n" * 5000, **{name: f"{folder}/{path}" for name, path in inside.items()}}


VERBS_WITH_PATHS = {
    "check": ["-i", "PATH"],
    "prepare": ["-i", "PATH", "-o", "x.zarr"],
    "prepare to": ["-i", "SCANS", "-o", "PATH"],
    "train": ["-e", "PATH"],
    "train from": ["-e", "e", "--preset", "default", "--data", "PATH"],
    "sample": ["-m", "PATH", "-o", "x"],
    "calibrate": ["-m", "PATH", "-i", "SCANS"],
    "detect": ["-m", "PATH", "-i", "SCANS", "-o", "x"],
    "evaluate": ["-p", "PATH"],
    "report": ["-p", "PATH", "-o", "x.html"],
    "import": ["-i", "PATH", "-o", "x"],
    "export": ["-m", "PATH", "-o", "x"],
    "mood": ["-m", "PATH", "-i", "SCANS", "-o", "x"],
    "info": ["PATH"],
}


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["long", "part", "through", "loop", "nul"])
@pytest.mark.parametrize("verb", VERBS_WITH_PATHS)
def test_an_odd_path_is_an_error_of_the_user(
    verb: str, odd: str, anofield: Run, tmp_path: Path, save_brain: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_brain(tmp_path / "scans/sub-1_T2w.nii.gz")
    path = odd_paths(tmp_path)[odd]
    words = [{"PATH": path, "SCANS": str(tmp_path / "scans")}.get(word, word) for word in VERBS_WITH_PATHS[verb]]
    ended = anofield(verb.split()[0], *words)
    assert ended.code in (2, 4, 5, 6), ended.err
    assert "defect" not in ended.err and "Traceback" not in ended.err and ended.err


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [
    "mkdir gone; cd gone; rmdir ../gone", "unset HOME", "export HOME=/none TMPDIR=/none", "umask 777", "ulimit -n 40",
    "export PYTHONWARNINGS=error", "ulimit -s 512", "export TERM=dumb NO_COLOR=1",
])  # fmt: skip
def test_odd_surroundings_are_no_bug(prepare: str, tmp_path: Path, save_brain: Callable[..., Path]) -> None:
    save_brain(tmp_path / "sub-1_T2w.nii.gz")
    gone = "gone" in prepare
    ended = shell(f"cd {tmp_path}; {prepare}; {PROGRAM} check -i {'sub-1_T2w.nii.gz' if gone else tmp_path}")
    assert b"defect" not in ended.stderr + ended.stdout
    assert ended.returncode in ((4, 6) if gone else (0,)), ended.stderr
