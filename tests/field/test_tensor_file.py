"""Files of tensors: damage is refused or changes nothing, a file cannot ask for more memory than it has bytes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anofield.errors import ExperimentError, MachineError
from anofield.field.tensor_file import UNREADABLE, checked_tensors, read_tensors, write_tensors

CONTENT: dict[str, Any] = {
    "epoch": 3,
    "weights": {"lin0.weight": torch.arange(40.0).reshape(8, 5), "lin0.bias": torch.linspace(-1, 1, 8)},
    "case_ids": ["a", "ü"],
    "seen": torch.tensor([True, False]),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return bool(one == other)


def flipped(data: bytes, generator: np.random.Generator) -> bytes:
    """The bytes with one bit turned over."""
    place = int(generator.integers(len(data)))
    return data[:place] + bytes([data[place] ^ (1 << int(generator.integers(8)))]) + data[place + 1 :]


def of_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def saved(path: Path, **how: Any) -> Path:
    torch.save(CONTENT, path, **how)
    return path


def test_what_is_written_is_read_with_the_hash_of_its_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.pth", CONTENT)
    found = read_tensors(tmp_path / "a.pth", ("epoch", "weights"))
    assert same(found.content, CONTENT)
    assert len(found.hash) == 64
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    data, generator = saved(tmp_path / "a.pth").read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        path = of_bytes(tmp_path / "b.pth", flipped(data, generator))
        try:
            assert same(read_tensors(path).content, CONTENT)
        except ExperimentError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100  # the rest are bits of dates, padding and the like


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pth").read_bytes()
    for length in range(0, len(data), 37):
        with pytest.raises(ExperimentError, match=r"b\.pth: cannot be read"):
            read_tensors(of_bytes(tmp_path / "b.pth", data[:length]))


def test_files_older_than_2020_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert not path.read_bytes().startswith(b"PK")
    assert same(read_tensors(path).content, CONTENT)


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive written again with right checksums, as by somebody who means to."""
    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, change(record.filename, old.read(record)))
    path.write_bytes(made.getvalue())
    return path


def test_a_compressed_record_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    big = b"\0" * 2**24
    path = rewritten(
        saved(tmp_path / "a.pth"), lambda name, data: big if "/data/" in name else data, zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 2**18
    with pytest.raises(ExperimentError, match="compressed"):
        read_tensors(path)


def test_records_on_top_of_each_other_are_refused(tmp_path: Path) -> None:
    """Every entry of the directory points to one large record."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000)
        for number in range(20):
            record = zipfile.ZipInfo(f"archive/data/{number}")
            first = archive.filelist[0]
            record.file_size = record.compress_size = first.file_size
            record.CRC, record.header_offset = first.CRC, first.header_offset
            archive.filelist.append(record)
            archive.NameToInfo[record.filename] = record
    with pytest.raises(ExperimentError, match="larger than the file"):
        read_tensors(path)


def test_a_tensor_that_claims_more_numbers_than_are_stored_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "a.pth")
    found = read_tensors(tmp_path / "a.pth")
    with pytest.raises(ExperimentError, match="'weight' is no tensor"):
        checked_tensors(found.content, found.path)


@pytest.mark.parametrize(
    "odd", [None, 1.0, [torch.zeros(2)], torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")]
)
def test_other_values_than_plain_tensors_are_refused(odd: object) -> None:
    with pytest.raises(ExperimentError, match="'weight' is no tensor"):
        checked_tensors({"weight": odd}, Path("a.pth"))
    with pytest.raises(ExperimentError, match="no tensors by name"):
        checked_tensors(odd, Path("a.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused_with_the_name_of_its_tensor(value: float) -> None:
    tensors = {"lin0.bias": torch.zeros(3), "lin1.weight_v": torch.tensor([[1.0, value]])}
    with pytest.raises(ExperimentError, match=r"a\.pth: lin1\.weight_v has 1 of 2 values that are not finite"):
        checked_tensors(tensors, Path("a.pth"))
    whole = {"inside": torch.tensor([True]), "count": torch.tensor(3), "mean": torch.zeros(2)}
    assert checked_tensors(whole, Path("a.pth")).keys() == whole.keys()


@pytest.mark.parametrize("content", [[1, 2], {"loss": []}, 3])
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ExperimentError, match=r"does not hold epoch|no values by name"):
        read_tensors(tmp_path / "a.pth", ("epoch",))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"a\.pth: no such file"):
        read_tensors(tmp_path / "a.pth")
    (tmp_path / "b.pth").mkdir()
    with pytest.raises(ExperimentError, match=r"b\.pth: cannot be read"):
        read_tensors(tmp_path / "b.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_no_mutation_escapes_as_another_error(tmp_path: Path, zipped: bool) -> None:
    """Also where the checksums are right: every record is written again around changed bytes."""
    original = saved(tmp_path / "a.pth", _use_new_zipfile_serialization=zipped).read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(250):
        path = of_bytes(tmp_path / "b.pth", original)
        if zipped:
            rewritten(path, lambda name, data: flipped(data, generator) if name.endswith(".pkl") else data)
        else:
            path.write_bytes(flipped(original, generator))
        try:
            read_tensors(path)
        except ExperimentError:
            continue


def test_pickles_that_call_are_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    for data in (pickle.dumps({"epoch": Trap()}, protocol=2), pickle.dumps({"epoch": 1}, protocol=2)):
        with pytest.raises(ExperimentError):
            read_tensors(of_bytes(tmp_path / "a.pth", data))
    assert not (tmp_path / "sprung").exists()
    assert RuntimeError in UNREADABLE


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: no space\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError, match="no space"):
        write_tensors(tmp_path / "a.pth", CONTENT)
    assert not list(tmp_path.iterdir())
