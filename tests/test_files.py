"""Files: JSON is read strictly and never hangs, odd paths are errors with a remedy, a lock admits one process."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from anofield import _files, _progress
from anofield._files import read_json, write_json, write_text, writing
from anofield._locks import LOCK_FILE, exclusive
from anofield.errors import CohortError, MachineError, UsageError


class Content(BaseModel):
    a: float
    b: object = None


def read(path: Path) -> Content:
    return read_json(path, Content, remedy="write it again", error=CohortError)


class TestJson:
    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"[" * 100_000, "nested too deeply"),
            (b'{"a": 1, "b": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
            (b'{"a": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
            (b'{"a": NaN}', "NaN is no JSON number"),
            (b'{"a": 1, "b": [-Infinity]}', "-Infinity is no JSON number"),
            (b'{"a": 1e999}', "1e999 is too large"),
            (b'{"a": 1, "a": 2}', "'a' occurs twice"),
            (b'{"a": 1, "b": {"c": 1, "d": 2, "c": 1}}', "'c' occurs twice"),
            ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
            (b'{"a": 1}\0', "Extra data"),
            (b'{"a": "\xff"}', "not UTF-8"),
            (b"", "Expecting value"),
            (b"[]", "damaged"),
            (b'{"a": "x"}', "'a'"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_is_not_clear_is_refused(self, content: bytes, told: str, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(CohortError) as caught:
            read(tmp_path / "x.json")
        assert told in str(caught.value) and "x.json" in str(caught.value) and "write it again" in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_a_byte_order_mark_is_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
        assert read(tmp_path / "x.json").a == 1

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
    def test_only_regular_files_are_opened(self, make: Callable[[Path], None], tmp_path: Path) -> None:
        make(tmp_path / "x.json")
        with pytest.raises(CohortError, match="no regular file"):
            read(tmp_path / "x.json")

    def test_odd_paths_are_the_given_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        for path in ("n" * 300, "file/x", "loop", "a\0b", "none"):
            with pytest.raises(CohortError):
                read(tmp_path / path)
        (tmp_path / "x.json").write_text('{"a": 1}')
        monkeypatch.setattr(_files, "LARGEST_JSON", 7)
        with pytest.raises(CohortError, match="limit"):
            read(tmp_path / "x.json")

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        write_json(tmp_path / "x.json", {"a": 0.1, "b": ["\udcff", "µ", [1, None]]})
        assert read(tmp_path / "x.json") == Content(a=0.1, b=["\udcff", "µ", [1, None]])

    def test_a_text_is_always_utf_8(self, tmp_path: Path) -> None:
        write_text(tmp_path / "x.tsv", "sub-\udcff\tµ")
        assert (tmp_path / "x.tsv").read_text(encoding="utf-8") == "sub-\\udcff\tµ"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, MachineError), (errno.EROFS, MachineError), (errno.ENAMETOOLONG, UsageError)],
)
def test_a_path_that_cannot_be_right_is_an_error_of_the_user(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="Remedy"), writing("x" * 3000):
        raise OSError(number, os.strerror(number))


HOLD = """
import sys, time
from pathlib import Path
from typing import Any
from anofield._locks import LOCK_FILE, exclusive
with exclusive(Path(sys.argv[1]), "waiting", beside=True):
    print("held", flush=True)
    time.sleep(60)
"""


class TestLock:
    @pytest.mark.parametrize("beside", [False, True])
    def test_admits_one_and_names_it(self, beside: bool, tmp_path: Path) -> None:
        with exclusive(tmp_path / "a", "writing", beside=beside):
            told = pytest.raises(UsageError, match=rf"pid {os.getpid()}\) is writing here")
            with told, exclusive(tmp_path / "a", "writing", beside=beside):
                pass
            with exclusive(tmp_path / "b", "writing", beside=beside):
                pass
        with exclusive(tmp_path / "a", "writing", beside=beside):
            assert (tmp_path / "a").exists() is not beside

    def test_beside_outlives_the_thing_that_it_guards(self, tmp_path: Path) -> None:
        with exclusive(tmp_path / "s.zarr", "preparing", beside=True):
            (tmp_path / "s.zarr").mkdir()
            (tmp_path / "s.zarr").rename(tmp_path / "old")
            with pytest.raises(UsageError), exclusive(tmp_path / "s.zarr", "preparing", beside=True):
                pass

    @pytest.mark.kill
    def test_ends_with_the_process(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "a"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            with pytest.raises(UsageError, match=f"pid {process.pid}"), exclusive(tmp_path / "a", "x", beside=True):
                pass
            process.kill()
            process.wait()
        with exclusive(tmp_path / "a", "x", beside=True):
            pass

    @pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    def test_is_kept_when_a_worker_ends(self, method: str, tmp_path: Path) -> None:
        with exclusive(tmp_path, "writing"):
            context: Any = multiprocessing.get_context(method)
            worker = context.Process(target=print)
            worker.start()
            worker.join()
            with pytest.raises(UsageError), exclusive(tmp_path, "writing"):
                pass

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
    def test_without_locks_the_work_goes_on_and_says_so_once(
        self, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
        _progress.say_once.cache_clear()
        done = []
        for _ in range(2):
            with exclusive(tmp_path, "writing"):
                done.append(1)
        assert done == [1, 1] and capsys.readouterr().err.count("no locks") == 1

    def test_of_another_user_can_be_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with exclusive(tmp_path, "writing"):
            pass
        opened = os.open

        def foreign(path: Path, flags: int, *mode: int) -> int:
            if flags & os.O_RDWR and Path(path).name == LOCK_FILE:
                raise PermissionError(errno.EACCES, "Permission denied")
            return opened(path, flags, *mode)

        monkeypatch.setattr(os, "open", foreign)
        with exclusive(tmp_path, "writing"):
            pass

    def test_in_a_folder_of_a_group_can_be_taken_by_the_group(self, tmp_path: Path) -> None:
        (tmp_path / "group").mkdir()
        (tmp_path / "group").chmod(0o775)
        with exclusive(tmp_path / "group", "writing"):
            assert (tmp_path / "group/.lock").stat().st_mode & 0o777 == 0o664

    def test_needs_a_folder_that_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(MachineError, match="cannot be written"), exclusive(tmp_path / "file", "writing"):
            pass
