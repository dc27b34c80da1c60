"""The suites on real brains, here on a folder of synthetic ones that is laid out like the real one."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anofield.benchmark import real
from anofield.benchmark.run import run_benchmark
from anofield.benchmark.scans import Implants, Scans
from anofield.benchmark.sizes import QUICK
from anofield.benchmark.suite import Setting
from anofield.benchmark.suites import SUITES, chosen_suites
from anofield.data.cohort.find import find_cases
from anofield.data.labels import as_labels
from anofield.data.scan import read_scan
from anofield.phantom.layouts import grid_of
from anofield.phantom.person import Look, make_person

GRID = grid_of("bids", 48)
GROUPS = ("train",) * 4 + ("calibration",) * 2 + ("test",) * 2


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, GRID.affine), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight healthy scans, the last two of which are a second scan of a calibration person and an old person."""
    made = tmp_path_factory.mktemp("real")
    rows = ["id\timage\tsubject\tgroup\tage\tsex\tscan"]
    for number, group in enumerate(GROUPS):
        who = 4 if number == 6 else number
        person = make_person(31, who, GRID, look=Look(modality="T1w", noise=1.0 + 0.2 * (number == 6)))
        write(made / "oasis" / "brains" / f"p{number}_T1w.nii.gz", person.image)
        rows.append(f"p{number}\tbrains/p{number}_T1w.nii.gz\ts{who}\t{group}\t{20 + 8 * number}\tF\t1")
    (made / "oasis" / "participants.tsv").write_text("\n".join(rows) + "\n")
    for contrast in real.MS_CONTRASTS:
        person = make_person(31, 90, GRID, lesion="small", look=Look(modality=contrast))
        write(made / "ms26" / f"{contrast}.nii.gz", person.image)
        write(made / "ms26" / "lesion.nii.gz", person.label)
    return made


def setting(out: Path) -> Setting:
    return Setting(out=out, sizes=QUICK, seed=0, device="cpu")


def test_without_the_folder_every_suite_says_why_it_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(real.VARIABLE, raising=False)
    names = chosen_suites(["real"])
    assert names == ["real-healthy", "real-implants", "real-ms", "real-heads"]
    for name in names:
        assert "ANOFIELD_REAL names no folder" in SUITES[name](setting(tmp_path)).missing
    monkeypatch.setenv(real.VARIABLE, str(tmp_path))
    assert "has no oasis/participants.tsv" in SUITES["real-ms"](setting(tmp_path)).missing
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_all_figures_of_the_real_suites(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(real.VARIABLE, str(folder))
    contents, _ = run_benchmark(tmp_path, QUICK, ["real-healthy", "real-implants"], ["zscore", "random"], device="cpu")
    assert "World `real`: 4 healthy people for training" in (tmp_path / "real-healthy.md").read_text()
    (random, zscore) = sorted(contents["real-healthy"]["rows"], key=lambda row: str(row["name"]))
    for row in (random, zscore):
        figures = {name: figure["value"] for name, figure in row["parts"]["healthy"]["figures"].items()}
        by_age = [figures["ml at 68"], figures["ml at 76"]]
        assert np.mean(by_age) == pytest.approx(figures["false_ml"], rel=0.5, abs=2.0)
    again = {row["name"]: row["parts"]["rescan"]["figures"]["rescan_r"]["value"] for row in (random, zscore)}
    assert again["zscore"] > again["random"] + 0.3  # one person twice: what depends on the person agrees
    found = {row["name"]: row["parts"] for row in contents["real-implants"]["rows"]}
    assert found["zscore"]["large"]["people"] == ["p6-glioma", "p7-dark"]
    ap = {name: parts["large"]["figures"]["ap dark"]["value"] for name, parts in found.items()}
    assert ap["zscore"] > 3 * ap["random"]
    assert {f"ap {kind}" for kind in real.OTHER_KINDS[:2]} <= set(found["random"]["other"]["figures"])


def test_an_implanted_lesion_is_where_its_label_says_and_nowhere_else(folder: Path, tmp_path: Path) -> None:
    people = Scans(name="test", manifest=folder / "oasis" / "participants.tsv", groups=("test",))
    cases = Implants(name="dark", people=people, kinds=("dark", "ms")).cases(tmp_path, 3)
    assert [case.id for case in cases] == ["p6-dark", "p7-ms"]
    before = {case.id: read_scan(case.image) for case in find_cases(folder / "oasis" / "participants.tsv")}
    for case in cases[:1]:
        after, healthy = read_scan(case.image), before[case.id[:2]]
        assert case.label is not None
        label = np.asarray(as_labels(case.label, after)) > 0
        change = np.abs(after.data - healthy.data)
        assert label.any()
        assert change[label].mean() > 20 * change[~label].mean()
    stamps = [case.image.stat().st_mtime_ns for case in cases]
    again = Implants(name="dark", people=people, kinds=("dark", "ms")).cases(tmp_path, 3)
    assert stamps == [case.image.stat().st_mtime_ns for case in again]
