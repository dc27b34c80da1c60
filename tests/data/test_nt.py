"""The files of 2021: read by an allow-list that runs nothing, written for the published code, carried to a store."""

from __future__ import annotations

import collections
import copyreg
import functools
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from anofield.cli import export, import_
from anofield.data import nt as legacy
from anofield.data.classes import PAPER_CENTERS
from anofield.data.nt import (
    LegacyCase,
    export_nt,
    import_store,
    read_centers_pickle,
    read_nt,
    read_rows,
    write_centers_pickle,
    write_nt,
    write_rows,
)
from anofield.data.recipe import Recipe, recipe_for
from anofield.data.store import Store
from anofield.errors import AnofieldError, CohortError, ExperimentError, MachineError, ScanError, UsageError

SIDE = 8
HCP, BRATS = recipe_for("ifl2021-hcp", None), recipe_for("ifl2021-brats", None)
Published = Callable[..., Any]


def make_case(seed: int = 0, seg: bool = True, side: int = SIDE) -> LegacyCase:
    generator = np.random.default_rng(seed)
    img, label = generator.integers(0, (10, 5), (side, side, side, 2), dtype=np.uint8).transpose(3, 0, 1, 2)
    return LegacyCase(img, label if seg else None, f"case-{seed}")


def assert_same(one: LegacyCase, two: Any) -> None:
    for a, b in ((one.img, two.img), (one.seg, two.seg)):
        np.testing.assert_array_equal(a, b)
        assert a is None or (a.dtype == b.dtype == np.uint8)
    assert one.cid == two.cid


@pytest.fixture(params=["preprocessing", "__main__"])
def published(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The namedtuple of the published code, as its two scripts define it."""
    img_extended = collections.namedtuple("img_extended", "img seg cid", module=request.param)
    if request.param == "preprocessing":
        monkeypatch.setitem(sys.modules, "preprocessing", types.ModuleType("preprocessing"))
    monkeypatch.setattr(sys.modules[request.param], "img_extended", img_extended, raising=False)
    return img_extended


@pytest.fixture
def preprocessing(monkeypatch: pytest.MonkeyPatch) -> Published:
    img_extended = collections.namedtuple("img_extended", "img seg cid", module="preprocessing")
    module = types.ModuleType("preprocessing")
    monkeypatch.setattr(module, "img_extended", img_extended, raising=False)
    monkeypatch.setitem(sys.modules, "preprocessing", module)
    return img_extended


def as_numpy_1(data: bytes) -> bytes:
    """The same pickle with the module names that numpy 1 writes; protocol 4 loses its (optional) frame."""
    data = data[:2] + data[11:] if data[2:3] == pickle.FRAME else data
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = name.replace(b"_core", b"core")
        data = data.replace(bytes([len(name)]) + name, bytes([len(old)]) + old).replace(name, old)
    assert b"numpy._core" not in data
    return data


# --- what the published code wrote is read


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("seg", [False, True])
def test_published_files_are_read(
    published: Published, tmp_path: Path, protocol: int, numpy_1: bool, listed: bool, seg: bool
) -> None:
    case = make_case(seg=seg)
    content = [published(*case)] if listed else published(*case)
    data = pickle.dumps(content, protocol)
    (tmp_path / "a.nt").write_bytes(as_numpy_1(data) if numpy_1 else data)
    read = read_nt(tmp_path / "a.nt")
    assert_same(case, read)
    assert type(read) is LegacyCase and read.img.flags.writeable


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fortran": np.asfortranarray,
    "axes swapped": lambda a: a.transpose(1, 0, 2),
    "every other": lambda a: a[:, ::-1],
    "int64": lambda a: a.astype(np.int64),
    "big-endian": lambda a: a.astype(">u2"),
    "float32": lambda a: a.astype(np.float32),
    "bool": lambda a: a > 3,
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_and_number_type_is_read(
    preprocessing: Published, tmp_path: Path, layout: str, protocol: int
) -> None:
    array = LAYOUTS[layout](np.random.default_rng(0).integers(0, 200, (8, 9, 7), dtype=np.uint8))
    (tmp_path / "a.nt").write_bytes(pickle.dumps([preprocessing(array, None, "a")], protocol))
    np.testing.assert_array_equal(read_nt(tmp_path / "a.nt").img, array)


@pytest.mark.parametrize(("cid", "read"), [(None, "stem"), ("", "stem"), (100307, "100307"), ("Größe 1", "Größe 1")])
def test_the_case_id_falls_back_to_the_files_stem(
    preprocessing: Published, tmp_path: Path, cid: Any, read: str
) -> None:
    (tmp_path / "stem.nt").write_bytes(pickle.dumps([preprocessing(make_case().img, None, cid)]))
    assert read_nt(tmp_path / "stem.nt").cid == read


@pytest.mark.parametrize("cid", ["../../etc/passwd", "/tmp/x", "a\\b", "..", "a\0b", ["a"], ("a",), 1.5])
def test_a_case_id_that_is_no_file_name_is_refused(preprocessing: Published, tmp_path: Path, cid: Any) -> None:
    (tmp_path / "a.nt").write_bytes(pickle.dumps([preprocessing(make_case().img, None, cid)]))
    with pytest.raises(ScanError, match="not a file name"):
        read_nt(tmp_path / "a.nt")


IMG = make_case().img
WRONG = {
    "two dimensions": ((IMG[0], None, "a"), "3-D"),
    "empty": ((IMG[:0], None, "a"), r"3-D|builtin__\.bytes"),  # protocol 2 has no empty bytes
    "above 255": ((IMG.astype(int) + 300, None, "a"), "0 to 255"),
    "negative": ((IMG.astype(int) - 300, None, "a"), "0 to 255"),
    "fractions": ((IMG + 0.5, None, "a"), "0 to 255"),
    "not a number": ((np.full((8, 8, 8), np.nan), None, "a"), "0 to 255"),
    "seg of another shape": ((IMG, IMG[:4], "a"), "seg"),
    "no array": (("img", None, "a"), "array"),
    "text array": ((np.full((2, 2, 2), "x"), None, "a"), "plain numbers"),
    "dates": ((np.zeros((2, 2, 2), "M8[s]"), None, "a"), "plain numbers"),
    "structured": ((np.zeros((2, 2, 2), [("x", "u1")]), None, "a"), "plain numbers"),
    "objects": ((np.full((2, 2, 2), 1, object), None, "a"), "plain numbers"),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_volumes_are_refused_by_name(preprocessing: Published, tmp_path: Path, name: str, protocol: int) -> None:
    content, words = WRONG[name]
    (tmp_path / "a.nt").write_bytes(pickle.dumps([preprocessing(*content)], protocol))
    with pytest.raises(ScanError, match=words) as caught:
        read_nt(tmp_path / "a.nt")
    assert "a.nt" in str(caught.value) and "Remedy" in str(caught.value)


def test_a_file_cut_at_any_byte_is_a_scan_error(tmp_path: Path) -> None:
    case = LegacyCase(np.ones((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8), "a")
    write_nt(tmp_path / "a.nt", case)
    data = (tmp_path / "a.nt").read_bytes()
    for end in range(len(data)):
        (tmp_path / "cut.nt").write_bytes(data[:end])
        with pytest.raises(ScanError, match=r"cut\.nt"):
            read_nt(tmp_path / "cut.nt")


def test_a_changed_byte_gives_a_case_or_a_clear_error_and_nothing_else(tmp_path: Path) -> None:
    write_nt(tmp_path / "a.nt", LegacyCase(np.ones((2, 2, 2), np.uint8), None, "a"))
    data = (tmp_path / "a.nt").read_bytes()
    generator = np.random.default_rng(0)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] = generator.integers(256)
        (tmp_path / "b.nt").write_bytes(changed)
        try:
            assert isinstance(read_nt(tmp_path / "b.nt"), LegacyCase)
        except ScanError as error:
            assert "b.nt" in str(error)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08\x00", b"NIfTI", b"\x80\x04.", b"."])
def test_what_is_no_pickle_is_a_scan_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nt").write_bytes(content)
    with pytest.raises(ScanError, match=r"a\.nt"):
        read_nt(tmp_path / "a.nt")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for read, kind in ((read_nt, ScanError), (read_centers_pickle, UsageError), (read_rows, UsageError)):
        with pytest.raises(kind, match="no such file"):
            read(tmp_path / "none")
        with pytest.raises(kind, match=tmp_path.name):
            read(tmp_path)


# --- hostile pickles are refused, and nothing of them runs


class Runs:
    """Pickles as the call `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def touching(sentinel: Path) -> dict[str, Any]:
    """Objects whose unpickling makes the file."""
    shell, code = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w').close()"
    return {
        "os.system": Runs(os.system, shell),
        "eval": Runs(eval, code),
        "exec": Runs(exec, code),
        "subprocess": Runs(subprocess.call, ["touch", str(sentinel)]),
        "partial": Runs(functools.partial(os.system, shell)),
        "import": Runs(eval, f"__import__('os').system({shell!r})"),
    }


def runs_when_loaded_plainly(data: bytes, sentinel: Path) -> bool:
    pickle.loads(data)
    ran = sentinel.exists()
    sentinel.unlink(missing_ok=True)
    return ran


PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "bare": lambda record, evil: evil,
    "in the list": lambda record, evil: [evil],
    "beside the record": lambda record, evil: [record(IMG, None, "a"), evil],
    "as img": lambda record, evil: [record(evil, None, "a")],
    "as seg": lambda record, evil: [record(IMG, evil, "a")],
    "as cid": lambda record, evil: [record(IMG, None, evil)],
    "in an object array": lambda record, evil: [record(np.full((2, 2, 2), evil, object), None, "a")],
    "as a key": lambda record, evil: {evil: 1},
    "deep": lambda record, evil: [[[((evil,),)]]],
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("place", PLACES)
def test_code_in_a_pickle_is_refused_and_does_not_run(
    preprocessing: Published, tmp_path: Path, place: str, protocol: int
) -> None:
    sentinel = tmp_path / "ran"
    for name, evil in touching(sentinel).items():
        data = pickle.dumps(PLACES[place](preprocessing, evil), protocol)
        (tmp_path / "a.nt").write_bytes(data)
        for read in (read_nt, read_centers_pickle, read_rows):
            with pytest.raises(AnofieldError, match="refused: the pickle asks for") as caught:
                read(tmp_path / "a.nt")
            assert not sentinel.exists(), (name, place)
            assert all(word in str(caught.value) for word in ("a.nt", "can run any code", "Remedy"))


def test_those_pickles_do_run_under_plain_pickle(preprocessing: Published, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    for name in ("os.system", "eval"):
        for place in ("bare", "as seg", "in an object array"):
            evil = touching(sentinel)[name]
            assert runs_when_loaded_plainly(pickle.dumps(PLACES[place](preprocessing, evil)), sentinel), (name, place)


RECORD = b"cpreprocessing\nimg_extended\n"
HANDMADE = {
    "INST": b"(S'touch SENTINEL'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch SENTINEL'\no.",
    "getattr": b"cbuiltins\ngetattr\ncos\nS'system'\n\x86R.",
    "getattr of an allowed name": b"cbuiltins\ngetattr\n" + RECORD + b"S'__class__'\n\x86R.",
    "Python 2 builtins": b"c__builtin__\neval\nS'1'\n\x85R.",
    "dotted name": b"\x80\x04\x8c\x0dpreprocessing\x8c\x16img_extended.__class__\x93.",
    "dotted module": b"\x80\x04\x8c\x05numpy\x8c\x0cf2py.os.eval\x93.",
    "other name of the module": b"cpreprocessing\nos\n.",
    "other main": b"c__mp_main__\nimg_extended\n.",
    "other numpy": b"cnumpy\nload\nS'x'\n\x85R.",
    "numpy testing": b"cnumpy.testing._private.utils\nruncstring\nS'1'\n\x85R.",
    "numpy fromfile": b"cnumpy.core.multiarray\nfromfile\nS'x'\n\x85R.",
    "_reconstructor": b"ccopy_reg\n_reconstructor\n" + RECORD + b"c__builtin__\nobject\nN\x87R.",
    "decode": b"c_codecs\ndecode\nS'x'\n\x85R.",
    "line break in the name": b"\x80\x04\x8c\x0bos\n\x1b[31mred\x8c\x06system\x93.",
    "persistent id": b"Pos.system\n.",
    "binary persistent id": b"\x80\x03X\x01\x00\x00\x00aQ.",
}


@pytest.mark.parametrize("name", HANDMADE)
def test_every_way_to_another_name_is_refused(tmp_path: Path, name: str) -> None:
    sentinel = tmp_path / "ran"
    (tmp_path / "a.nt").write_bytes(HANDMADE[name].replace(b"SENTINEL", str(sentinel).encode()))
    with pytest.raises(ScanError, match="refused: the pickle asks for") as caught:
        read_nt(tmp_path / "a.nt")
    assert not sentinel.exists() and str(caught.value).isprintable()


def test_an_extension_that_is_registered_and_cached_is_refused(tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    argument = f"S'touch {sentinel}'\n".encode()
    copyreg.add_extension(os.system.__module__, "system", 0xAB)
    try:
        data = b"\x80\x02\x82\xab" + argument + b"\x85R."
        assert runs_when_loaded_plainly(data, sentinel)
        (tmp_path / "a.nt").write_bytes(data)
        with pytest.raises(ScanError, match="extension 171"):
            read_nt(tmp_path / "a.nt")
        assert not sentinel.exists()
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 0xAB)


def test_persistent_ids_of_a_pickler_are_refused(tmp_path: Path) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return "elsewhere" if isinstance(obj, np.ndarray) else None

    stream = io.BytesIO()
    Pickler(stream).dump([IMG])
    (tmp_path / "a.nt").write_bytes(stream.getvalue())
    with pytest.raises(ScanError, match="persistent id"):
        read_nt(tmp_path / "a.nt")


@pytest.mark.parametrize(
    "content", [collections.OrderedDict(a=1), collections.defaultdict(int, a=1), {"a", 1}, {1: 2.5}]
)
def test_rows_are_a_dictionary_itself(tmp_path: Path, content: Any) -> None:
    (tmp_path / "dict_cid.k").write_bytes(pickle.dumps(content))
    with pytest.raises(UsageError, match=r"refused|dictionary|rows"):
        read_rows(tmp_path / "dict_cid.k")


def array_pickle(raw: bytes, dtype: bytes | None = None, shape: bytes = b"K\x02K\x02K\x02\x87") -> bytes:
    """An `img_extended` whose img has the given opcodes for its bytes, dtype and shape."""
    dtype = dtype or b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"
    return b"\x80\x03" + RECORD + b"(" + array + b"NX\x01\x00\x00\x00at\x81."


ENCODE = b"c_codecs\nencode\n"
ABUSED = {
    "another codec": array_pickle(ENCODE + b"X\x08\x00\x00\x00aaaaaaaaX\x05\x00\x00\x00rot13\x86R"),
    "utf-8": array_pickle(ENCODE + b"X\x08\x00\x00\x00aaaaaaaaX\x05\x00\x00\x00utf-8\x86R"),
    "no codec": array_pickle(ENCODE + b"X\x08\x00\x00\x00aaaaaaaa\x85R"),
    "three arguments": array_pickle(ENCODE + b"(X\x08\x00\x00\x00aaaaaaaaX\x06\x00\x00\x00latin1X\x01\x00\x00\x00etR"),
    "bytes encoded": array_pickle(ENCODE + b"C\x08aaaaaaaaX\x06\x00\x00\x00latin1\x86R"),
    "not latin1": array_pickle(ENCODE + b"X\x09\x00\x00\x00aaaaaa\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R"),
    "encode itself": array_pickle(ENCODE),
    "too few bytes": array_pickle(b"C\x07aaaaaaa"),
    "too many bytes": array_pickle(b"C\x09aaaaaaaaa"),
    "a list of objects": array_pickle(b"]"),
    "negative shape": array_pickle(b"C\x08aaaaaaaa", shape=b"J\xfe\xff\xff\xffJ\xfc\xff\xff\xffK\x01\x87"),
    "huge shape": array_pickle(b"C\x08aaaaaaaa", shape=b"\x8a\x09\0\0\0\0\0\0\0\0\1" * 3 + b"\x87"),
    "shape of records": array_pickle(b"C\x08aaaaaaaa", shape=RECORD * 3 + b"\x87"),
    "dtype of a file": array_pickle(b"C\x08aaaaaaaa", dtype=b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R"),
    "byte order": array_pickle(
        b"C\x08aaaaaaaa", dtype=b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R(K\x03X\x01\x00\x00\x00?tb"
    ),
    "dtype is no dtype": array_pickle(b"C\x08aaaaaaaa", dtype=b"X\x02\x00\x00\x00u1"),
    "attribute on the class": b"\x80\x03" + RECORD + b"(N}X\x07\x00\x00\x00__new__K\x01stb.",
    "attribute on the class, dictionary": b"\x80\x03" + RECORD + b"}X\x07\x00\x00\x00__new__K\x01sb.",
    "attribute on encode": b"\x80\x03" + ENCODE + b"(N}X\x0c\x00\x00\x00__defaults__K\x01stb.",
    "keywords": b"\x80\x04" + RECORD + b")}X\x03\x00\x00\x00imgK\x01s\x92.",
    "too few fields": b"\x80\x03" + RECORD + b"NN\x86\x81.",
    "memo of 4 billion": b"\x80\x02Nr\xff\xff\xff\xff.",
    "string of 4 billion": b"\x80\x04\x8d\xff\xff\xff\xff\0\0\0\0a.",
    "frame of 4 billion": b"\x80\x04\x95\xff\xff\xff\xff\0\0\0\0N.",
}


@pytest.mark.parametrize("name", ABUSED)
def test_allowed_names_cannot_be_abused(tmp_path: Path, name: str) -> None:
    (tmp_path / "good.nt").write_bytes(array_pickle(ENCODE + b"X\x08\x00\x00\x00aaaaaaaaX\x06\x00\x00\x00latin1\x86R"))
    (tmp_path / "a.nt").write_bytes(ABUSED[name])
    with pytest.raises(ScanError, match=r"a\.nt"):
        read_nt(tmp_path / "a.nt")
    assert (read_nt(tmp_path / "good.nt").img == ord("a")).all()


@pytest.mark.parametrize(("name", "count"), [("too few bytes", 7), ("too many bytes", 9), ("huge shape", 8)])
def test_shape_and_type_must_give_the_number_of_bytes(tmp_path: Path, name: str, count: int) -> None:
    (tmp_path / "a.nt").write_bytes(ABUSED[name])
    with pytest.raises(ScanError, match=f"type uint8 has {count} bytes"):
        read_nt(tmp_path / "a.nt")


def test_an_error_does_not_spell_out_tuples_without_end(tmp_path: Path) -> None:
    bomb = b"K\x01" + b"".join(b"\x85q\x00h\x00\x86" for _ in range(64))  # 2**64 numbers if it were written out
    (tmp_path / "a.nt").write_bytes(array_pickle(b"C\x08aaaaaaaa", shape=bomb))
    with pytest.raises(ScanError, match="shape tuple"):
        read_nt(tmp_path / "a.nt")


# --- what is written is read by the published code


@pytest.mark.parametrize("seg", [False, True])
def test_a_written_case_is_read_again(tmp_path: Path, seg: bool) -> None:
    case = make_case(seg=seg)
    write_nt(tmp_path / "deep/er/a.nt", case)
    assert_same(case, read_nt(tmp_path / "deep/er/a.nt"))
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["a.nt"]


def test_the_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    img, seg, cid = make_case()
    assert seg is not None
    write_nt(tmp_path / "a.nt", LegacyCase(img, seg, cid))
    write_nt(tmp_path / "b.nt", LegacyCase(np.asfortranarray(img), seg[::-1][::-1], "".join(cid)))
    write_nt(tmp_path / "c.nt", LegacyCase(img, img, cid))
    write_nt(tmp_path / "d.nt", LegacyCase(img, img.copy(), cid))
    one, two, three, four = ((tmp_path / f"{name}.nt").read_bytes() for name in "abcd")
    assert one == two and three == four


def names_of(path: Path) -> set[str]:
    """Global names of a pickle, and the check that it is well formed."""
    pickletools.dis(path.read_bytes(), io.StringIO())
    return {str(argument) for opcode, argument, _ in pickletools.genops(path.read_bytes()) if opcode.name == "GLOBAL"}


def test_written_files_use_the_names_of_numpy_1_and_protocol_3(tmp_path: Path) -> None:
    write_nt(tmp_path / "a.nt", make_case())
    write_centers_pickle(tmp_path / "a.cp", PAPER_CENTERS)
    write_rows(tmp_path / "dict_cid.k", {"a": 0})
    arrays = {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert names_of(tmp_path / "a.nt") == {*arrays, "preprocessing img_extended"}
    assert names_of(tmp_path / "a.cp") == arrays and names_of(tmp_path / "dict_cid.k") == set()
    for path in tmp_path.iterdir():
        assert max(opcode.proto for opcode, *_ in pickletools.genops(path.read_bytes())) <= 3


PLAIN = """
import hashlib, pickle, sys
import numpy as np
from preprocessing import img_extended
(case,) = pickle.load(open("a.nt", "rb"))
assert type(case) is img_extended and case._fields == ("img", "seg", "cid")
assert case.img.dtype == case.seg.dtype == np.uint8 and case.img.flags.writeable
case.img[0, 0, 0] += 0
centers, rows = pickle.load(open("a.cp", "rb")), pickle.load(open("dict_cid.k", "rb"))
assert centers.dtype == np.float64 and "anofield" not in sys.modules
print(hashlib.sha256(case.img.tobytes() + case.seg.tobytes()).hexdigest(), case.cid, *centers.tolist(), rows)
"""


@pytest.mark.slow
def test_plain_pickle_reads_what_is_written(tmp_path: Path) -> None:
    import hashlib

    case, rows = make_case(3), {"b": 1, "a": 0}
    write_nt(tmp_path / "a.nt", case)
    write_centers_pickle(tmp_path / "a.cp", PAPER_CENTERS)
    write_rows(tmp_path / "dict_cid.k", rows)
    definition = "from collections import namedtuple\nimg_extended = namedtuple('img_extended', 'img seg cid')\n"
    (tmp_path / "preprocessing.py").write_text(definition)
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", PLAIN]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert case.seg is not None
    digest = hashlib.sha256(case.img.tobytes() + case.seg.tobytes()).hexdigest()
    assert ended.stdout.split("\n")[0] == " ".join([digest, case.cid, *map(repr, PAPER_CENTERS), str(rows)])
    assert "preprocessing" not in sys.modules


def test_a_folder_that_cannot_be_written_is_a_machine_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError):
        write_nt(tmp_path / "file" / "a.nt", make_case())


# --- class centres and rows


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8"])
@pytest.mark.parametrize("shape", [(10,), (10, 1), (1, 10)])
def test_centers_of_any_float_array_are_read(tmp_path: Path, protocol: int, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.array(PAPER_CENTERS, dtype).reshape(shape)
    (tmp_path / "a.cp").write_bytes(as_numpy_1(pickle.dumps(array, protocol)))
    assert read_centers_pickle(tmp_path / "a.cp") == tuple(float(value) for value in array.ravel())


def test_written_centers_are_read_exactly(tmp_path: Path) -> None:
    write_centers_pickle(tmp_path / "a.cp", PAPER_CENTERS)
    assert read_centers_pickle(tmp_path / "a.cp") == PAPER_CENTERS


def test_centers_of_scalars_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.cp").write_bytes(pickle.dumps([np.float32(0.25), np.float64(0.5), 1], 2))
    assert read_centers_pickle(tmp_path / "a.cp") == (0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    "centers", [[0.1, 0.1, 0.2], [0.3, 0.2, 0.1], [0.1, np.nan, 0.2], [0.1, 0.2], np.arange(65), "abc", {}]
)
def test_centers_that_do_not_increase_are_refused(tmp_path: Path, centers: Any) -> None:
    content = centers if isinstance(centers, str | dict) else np.asarray(centers)
    (tmp_path / "a.cp").write_bytes(pickle.dumps(content))
    with pytest.raises(UsageError, match=r"a\.cp"):
        read_centers_pickle(tmp_path / "a.cp")


def test_rows_are_read_in_their_order(tmp_path: Path) -> None:
    rows = {"b": 0, "a": 2, "100307": 1}
    write_rows(tmp_path / "dict_cid.k", rows)
    assert list(read_rows(tmp_path / "dict_cid.k").items()) == list(rows.items())
    (tmp_path / "2.k").write_bytes(pickle.dumps({"a": np.int64(1), "b": 0}, 2))
    assert read_rows(tmp_path / "2.k") == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    "rows", [{"a": 0, "b": 0}, {"a": -1}, {"a": 0.5}, {"a": True}, {"a": "0"}, {("a",): 0}, {"../a": 0}, [1]]
)
def test_rows_that_are_no_rows_are_refused(tmp_path: Path, rows: Any) -> None:
    (tmp_path / "dict_cid.k").write_bytes(pickle.dumps(rows))
    with pytest.raises(UsageError, match="dict_cid"):
        read_rows(tmp_path / "dict_cid.k")


# --- to a store and back


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cases whose file names sort against their ids."""
    for seed in range(3):
        write_nt(tmp_path / f"nt/{9 - seed}.nt", make_case(seed))
    write_rows(tmp_path / "nt/dict_cid.k", {"case-0": 0})
    (tmp_path / "nt/._9.nt").write_bytes(b"macOS")
    return tmp_path / "nt"


@pytest.mark.parametrize("recipe", [HCP, BRATS])
@pytest.mark.parametrize("seg", [False, True])
def test_import_and_export_give_the_same_files(tmp_path: Path, recipe: Recipe, seg: bool) -> None:
    for seed in range(2):
        write_nt(tmp_path / f"nt/case-{seed}.nt", make_case(seed, seg))
    write_rows(tmp_path / "nt/dict_cid.k", {"case-0": 0, "case-1": 1})
    export_nt(import_store(tmp_path / "nt", tmp_path / "s.zarr", recipe), tmp_path / "back")
    for path in sorted((tmp_path / "nt").iterdir()):
        assert path.read_bytes() == (tmp_path / "back" / path.name).read_bytes()
    assert len(list((tmp_path / "back").iterdir())) == 3


def test_a_store_from_files_says_what_is_known_of_them(folder: Path, tmp_path: Path) -> None:
    store = import_store(folder, tmp_path / "s.zarr", BRATS)
    assert store.ids == ["case-0", "case-1", "case-2"] and store.done == [0, 1, 2]
    assert store.recipe == recipe_for("ifl2021-brats", SIDE)
    for row in range(3):
        np.testing.assert_array_equal(store.classes(row), make_case(row).img)
        np.testing.assert_array_equal(store.label(row), make_case(row).seg)
        np.testing.assert_array_equal(store.brain(row), make_case(row).img > 0)
    group: Any = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")
    assert group["native_shape"][1].tolist() == [240, 240, 155]
    np.testing.assert_array_equal(group["native_affine"][1], np.eye(4))
    step = 239 / (SIDE - 1)  # the published zoom keeps the end points; axes are turned, 42 slices lie in front
    np.testing.assert_allclose(group["to_native"][1] @ [1, 2, 3, 1], [3 * step, 2 * step, step - 42, 1])


def test_cases_of_a_store_come_in_the_order_of_the_code_rows(folder: Path, tmp_path: Path) -> None:
    write_rows(folder / "dict_cid.k", {"case-1": 1, "case-2": 0})
    store = import_store(folder, tmp_path / "s.zarr", HCP)
    assert store.ids == ["case-2", "case-1", "case-0"]  # the last one has no row
    np.testing.assert_array_equal(store.classes(0), make_case(2).img)
    (folder / "7.nt").unlink()
    with pytest.raises(CohortError, match=r"dict_cid\.k: has rows for 1 case .*case-2"):
        import_store(folder, tmp_path / "other.zarr", HCP)


def test_the_full_resolution_is_the_recipes_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    monkeypatch.setattr(legacy, "lattice_side", lambda recipe: SIDE)
    assert import_store(folder, tmp_path / "s.zarr", HCP).recipe.resolution is None


@pytest.mark.slow
def test_a_killed_import_goes_on_and_a_changed_file_is_read_again(folder: Path, tmp_path: Path) -> None:
    store = import_store(folder, tmp_path / "s.zarr", HCP)
    group: Any = zarr.open_group(str(tmp_path / "s.zarr"), mode="r+")
    group["done"][1] = 0
    group["classes"][0] = 9  # done: is left alone
    changed = make_case(2)._replace(img=np.zeros((SIDE,) * 3, np.uint8))
    write_nt(folder / "7.nt", changed)
    store = import_store(folder, tmp_path / "s.zarr", HCP)
    assert store.done == [0, 1, 2] and not store.classes(2).any()
    np.testing.assert_array_equal(store.classes(1), make_case(1).img)
    assert (store.classes(0) == 9).all()
    assert (import_store(folder, tmp_path / "s.zarr", HCP, force=True).classes(0) != 9).any()


def test_cases_without_labels_in_a_labelled_store_have_empty_ones(folder: Path, tmp_path: Path) -> None:
    write_nt(folder / "x.nt", make_case(4, seg=False))
    export_nt(import_store(folder, tmp_path / "s.zarr", HCP), tmp_path / "back")
    seg = read_nt(tmp_path / "back/case-4.nt").seg
    assert seg is not None and not seg.any()


def test_files_that_do_not_belong_together_are_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    odd: dict[str, tuple[LegacyCase, type[AnofieldError], str]] = {
        "same id": (make_case(1), CohortError, "'case-1': 8.nt and x.nt"),
        "resolution": (make_case(5, side=9), CohortError, "x.nt 9"),
        "no cube": (make_case(5)._replace(img=IMG[:4], seg=None), ScanError, "a cube"),
        "too small": (make_case(5, side=4), ScanError, "8 to 512"),
        "class": (make_case(5)._replace(img=IMG + np.uint8(1)), ScanError, "class 10.*10 centres.*--centers"),
    }
    for case, kind, words in odd.values():
        write_nt(folder / "x.nt", case)
        with pytest.raises(kind, match=words):
            import_store(folder, tmp_path / "s.zarr", HCP)
    (folder / "x.nt").write_bytes(pickle.dumps(Runs(os.system, f"touch {tmp_path / 'ran'}")))
    with pytest.raises(ScanError, match=r"x\.nt: refused"):
        import_store(folder, tmp_path / "s.zarr", HCP)
    assert not (tmp_path / "s.zarr").exists() and not (tmp_path / "ran").exists()


def test_a_folder_without_files_and_the_box_recipe_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no \.nt files"):
        import_store(tmp_path / "none", tmp_path / "s.zarr", HCP)
    with pytest.raises(UsageError, match="box"):
        import_store(folder, tmp_path / "s.zarr", Recipe())


def test_only_complete_cases_are_exported(folder: Path, tmp_path: Path) -> None:
    store = import_store(folder, tmp_path / "s.zarr", HCP)
    group: Any = zarr.open_group(str(tmp_path / "s.zarr"), mode="r+")
    group["done"][1] = 0
    assert [path.name for path in export_nt(store, tmp_path / "back")] == ["case-0.nt", "case-2.nt"]
    assert read_rows(tmp_path / "back/dict_cid.k") == {"case-0": 0, "case-2": 1}
    group["done"][:] = 0
    with pytest.raises(ExperimentError, match="0 complete"):
        export_nt(store, tmp_path / "back")


def test_a_store_whose_ids_leave_the_folder_is_not_exported(folder: Path, tmp_path: Path) -> None:
    store = import_store(folder, tmp_path / "s.zarr", HCP)
    store.ids[0] = "../out"
    with pytest.raises(CohortError, match="not a file name"):
        export_nt(store, tmp_path / "back")
    assert not (tmp_path / "back").exists() and not (tmp_path / "out.nt").exists()


# --- the two verbs


def test_import_and_export_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_.command(folder, tmp_path / "s.zarr", recipe="ifl2021-brats", mode_pool=2, json_=True)
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["done"] == 3 and result["resolution"] == SIDE and result["recipe"]["mode_pool"] == 2
    assert "no affine" in captured.err
    export.command(tmp_path / "s.zarr", tmp_path / "back", json_=True)
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(file).name for file in files] == ["case-0.nt", "case-1.nt", "case-2.nt"]
    export.command(tmp_path / "s.zarr", tmp_path / "back")
    assert "3 .nt files" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["cp", "txt"])
def test_centers_of_an_import_come_from_a_file(folder: Path, tmp_path: Path, suffix: str) -> None:
    centers = tuple(float(value) for value in np.linspace(0, 1, 11))
    write_centers_pickle(tmp_path / "c.cp", centers)
    (tmp_path / "c.txt").write_text(" ".join(map(repr, centers)))
    import_.command(folder, tmp_path / "s.zarr", centers=str(tmp_path / f"c.{suffix}"))
    assert Store(tmp_path / "s.zarr").recipe.centers == centers


@pytest.mark.parametrize("centers", ["fit", "fit:8", "none.txt", "none.cp"])
def test_centers_cannot_be_fitted_on_files_without_intensities(folder: Path, tmp_path: Path, centers: str) -> None:
    with pytest.raises(UsageError, match=r"fit|none"):
        import_.command(folder, tmp_path / "s.zarr", centers=centers)
    assert not (tmp_path / "s.zarr").exists()
