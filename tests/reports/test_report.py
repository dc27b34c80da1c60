"""The report: one offline file, every case, right sides, dashes for what is not known."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import tomllib
import weakref
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from markupsafe import escape

from anofield.data.prepare import Recipe
from anofield.detect.run_folder import CaseInfo, Finding, FitInfo, RunInfo, Threshold
from anofield.errors import CohortError, UsageError
from anofield.reports import cases, charts, figures, page, paging, viewer
from anofield.reports.folder import read_report_run
from anofield.reports.numerals import decimal, duration, ml, number
from anofield.reports.planes import VIEWS, World, cut, read_world, view_case
from anofield.reports.report import write_comparison_report, write_report
from helpers import facts_of
from made import RULES, case_row, results_content

IDENTITY = "one identity"
WEIRD = 'sub-2 odd <b>&"id"'
SHAPE = (20, 24, 16)
LAS = np.array([[-2.0, 0, 0, 19], [0, 2, 0, -23], [0, 0, 3, -22], [0, 0, 0, 1]])
TURN = np.array([[0.98, -0.2, 0, 0], [0.2, 0.98, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
OBLIQUE = TURN @ LAS
BLOB_MM = (12.0, -10.0, 9.0)  # right, posterior, superior


def write(path: Path, array: Any, affine: Any = LAS, kind: type = np.float32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(array).astype(kind), affine), path)


def blob(affine: Any, at: tuple[float, float, float] = BLOB_MM) -> Any:
    index = np.rint(np.linalg.inv(affine) @ (*at, 1))[:3].astype(int)
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(i - 1, i + 2) for i in index)] = True
    return mask


def add_case(run: Path, scans: Path, name: str, place: int, affine: Any = LAS, **facts: Any) -> Path:
    folder, lesion = run / name, blob(affine)
    brain = np.zeros(SHAPE)
    brain[2:-2, 2:-2, 2:-2] = 1
    scan = scans / f"{place}.nii.gz"
    write(scan, brain * 100 + lesion * 80, affine)
    write(scans / f"{place}-label.nii.gz", lesion, affine, np.uint8)
    write(folder / "anomaly.nii.gz", brain * 0.1 + lesion * 3, affine)
    write(folder / "mask.nii.gz", lesion, affine, np.uint8)
    write(folder / "restoration.nii.gz", brain * 100, affine)
    findings = [Finding(volume_ml=1.5, peak=3.25, mean=2.5, center_mm=(12.2, -10.1, n)) for n in range(1, 11)]
    info = CaseInfo(
        id=name,
        subject=name,
        image=str(scan),
        mask=None,
        label=str(scans / f"{place}-label.nii.gz"),
        score="deviation",
        threshold=1.0,
        shape=SHAPE,
        brain_ml=40.0,
        case_score=1.5,
        lesions=10,
        volume_ml=0.324,
        findings=findings,
        fit=fit_info(),
        seconds={"prepare": 1.0, "fit": 2.5, "score": 0.4, "write": 0.1},
        source_hash="",
        identity=IDENTITY,
        key="",
        files=[],
    )
    (folder / "case.json").write_text(info.model_copy(update=facts).model_dump_json())
    return folder


def fit_info(**change: Any) -> FitInfo:
    known = {"loss": 1.25, "code_distance": 0.5, "contrast": None, "outside": None, "pose": None, "gain": None}
    return FitInfo.model_validate({**known, "trusted": None, "reasons": [], **change})


def add_run(run: Path, names: list[str]) -> None:
    threshold = Threshold(value=1.0, quantile=0.995, meaning="five in a thousand healthy voxels lie above")
    info = RunInfo(
        anofield="0.1.0",
        created="2026-01-02T03:04:05+00:00",
        command="anofield detect <x>",
        identity=IDENTITY,
        experiment="model",
        model_hash="abc",
        score="deviation",
        scores=["deviation", "cross-entropy", "intensity"],
        baselines=["intensity"],
        options={"filters": {"min_lesion_ml": 0.1}},
        recipe=Recipe(resolution=8, centers=(0.0, 0.5, 1.0)),
        threshold=threshold,
        thresholds={"deviation": 1.0},
        device="cpu",
        precision="float32",
        versions={"numpy": "2"},
        cases=names,
        seconds=4.0,
    )
    failure = {"id": "sub-99", "image": "x", "error": "no <i>brain</i> found", "trace": ""}
    (run / "run.json").write_text(info.model_dump_json())
    (run / "failures.json").write_text(json.dumps([failure]))


def add_results(folder: Path, names: list[str], **change: Any) -> Path:
    metrics = {
        "ap": 0.8,
        "auroc": 0.95,
        "dice_calibrated_mean": 0.7,
        "dice_calibrated_sd": 0.1,
        "dice_calibrated_pooled": 0.75,
        "dice_oracle": 0.81,
        "threshold_oracle": 0.9,
        "threshold": 1.0,
        "fpr95": None,
    }
    axis = np.linspace(0, 1, 50).tolist()
    line = {"recall": axis, "precision": axis[::-1], "fpr": axis, "tpr": axis}
    scores = {"deviation": metrics, "intensity": metrics | {"ap": 0.4}, "cross-entropy": metrics | {"ap": None}}
    scores = {name: {**figures, **change.get("scores", {}).get(name, {})} for name, figures in scores.items()}
    dice = {"deviation": 0.7, "cross-entropy": None, "intensity": 0.3}
    rows = [case_row(name, lesion_ml=0.324, dice=dice, ap=dice) for name in names]
    more = {"baselines": ["intensity"], "cases": rows, "curves": dict.fromkeys(scores, line)}
    folder.mkdir()
    content = results_content(scores, n_cases=len(names), **more, **{k: v for k, v in change.items() if k != "scores"})
    (folder / "results.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    names = ["sub-1", WEIRD, "sub-3"]
    for place, name in enumerate(names):
        add_case(tmp_path / "run", tmp_path / "scans", name, place, OBLIQUE if place == 2 else LAS)
    (tmp_path / "run" / "unfinished-7").mkdir()
    add_run(tmp_path / "run", names)
    return tmp_path / "run"


@pytest.fixture
def results(tmp_path: Path, run: Path) -> Path:
    return add_results(tmp_path / "results", ["sub-1", WEIRD, "sub-3"])


def text(run: Path, **options: Any) -> str:
    return write_report(run, run.parent / "report.html", **options).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_report_is_one_file_that_fetches_nothing(run: Path, results: Path) -> None:
    html = text(run, results=results)
    targets = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", html)
    assert targets and all(target.startswith(("data:image/", "#")) for target in targets)
    bare = html.replace(str(escape(viewer.licences())), "")  # there addresses are text
    assert len(bare) < len(html) and not re.search(r"<link|<script[^>]* src|<iframe|@import|url\(|https?://", bare)
    assert [path.name for path in run.parent.glob("*report*")] == ["report.html"]


@pytest.mark.slow
def test_every_reference_inside_the_page_leads_somewhere(run: Path, results: Path) -> None:
    html = text(run, results=results)
    names = re.findall(r'\bid="([^"]*)"', html)
    assert len(names) == len(set(names))
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(names)


@pytest.mark.slow
def test_text_of_the_user_is_escaped(run: Path) -> None:
    html = text(run, title="A <script>title", notes="first & foremost\n\nsecond <p>")
    assert "<b>" not in html and "odd &lt;b&gt;&amp;&#34;id&#34;" in html
    assert "A &lt;script&gt;title" in html and "first &amp; foremost" in html and "second &lt;p&gt;" in html
    assert "no &lt;i&gt;brain&lt;/i&gt; found" in html and "anofield detect &lt;x&gt;" in html


@pytest.mark.slow
def test_finished_cases_and_failures_are_listed_and_unfinished_are_not(run: Path) -> None:
    html = text(run)
    assert html.count('<article class="card"') == 3
    assert "sub-1" in html and "sub-3" in html and "sub-99" in html
    assert "unfinished-7" not in html
    assert "five in a thousand healthy voxels lie above" in html and "research use only" in html


@pytest.mark.slow
def test_the_summary_sets_the_baseline_apart_and_names_the_oracle(run: Path, results: Path) -> None:
    html = text(run, results=results)
    table = html[html.index('<table class="scores">') :]
    table = table[: table.index("</table>")]
    order = [
        table.index(mark) for mark in (">deviation<", ">cross-entropy<", "what the method must beat", ">intensity<")
    ]
    assert order == sorted(order)
    assert "oracle (threshold chosen on the test labels)" in html
    assert table.count("<td>–</td>") == 4  # fpr95 of three scores, ap of one
    assert "is ahead of the baseline intensity" in html


def test_cases_without_a_label_are_counted(tmp_path: Path, run: Path) -> None:
    found = read_report_run(run, add_results(tmp_path / "r", [], without_label=["sub-1", "sub-3"]))
    assert "2 cases without a label have no figures: sub-1, sub-3" in found.notices


@pytest.mark.slow
def test_a_method_behind_its_baseline_is_told_so(tmp_path: Path, run: Path) -> None:
    scores = {"deviation": {"ap": 0.2}, "intensity": {"ap": 0.4}}
    assert "does not beat the baseline intensity" in text(run, results=add_results(tmp_path / "r", [], scores=scores))


@pytest.mark.slow
def test_a_run_without_results_shows_no_metrics(run: Path) -> None:
    html = text(run)
    assert "<h2>Summary" not in html and "<h2>Curves" not in html and "<h2>Dice per case" not in html


@pytest.mark.parametrize("affine", [LAS, OBLIQUE, np.diag([2.0, 2, 3, 1]) + np.eye(4, k=3) * -20])
@pytest.mark.parametrize("at", [BLOB_MM, (-9.0, 11.0, -6.0)])
def test_a_blob_is_drawn_on_the_side_of_its_mark(tmp_path: Path, affine: Any, at: tuple[float, float, float]) -> None:
    middle = affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + affine[:3, 3]
    write(tmp_path / "blob.nii.gz", blob(affine, tuple(middle + at)), affine)
    world = read_world(tmp_path / "blob.nii.gz")
    centre = np.argwhere(world.data > 0).mean(axis=0).round().astype(int)
    sign = {"R": at[0], "L": -at[0], "A": at[1], "P": -at[1], "S": at[2], "I": -at[2]}
    for view, (axis, (left, right, top, bottom)) in VIEWS.items():
        plane = cut(world.data, view, centre[axis])
        row, column = np.argwhere(plane > 0).mean(axis=0)
        assert sign[left if column < (plane.shape[1] - 1) / 2 else right] > 0
        assert sign[top if row < (plane.shape[0] - 1) / 2 else bottom] > 0


def test_the_planes_go_through_the_truth_and_keep_their_aspect(run: Path) -> None:
    view = view_case(read_report_run(run).cases[0])
    assert "largest true lesion" in view.centre and view.truth_ml == pytest.approx(27 * 12 / 1000)
    for plane in view.planes:
        assert plane.images["truth"].any()
        rows, columns = plane.images["scan"].shape
        down, across = {"axial": (2, 2), "coronal": (3, 2), "sagittal": (3, 2)}[plane.name]
        assert plane.size == pytest.approx((columns * across, rows * down))


def test_the_planes_go_through_the_strongest_finding_without_truth(run: Path, tmp_path: Path) -> None:
    folder = add_case(run, tmp_path / "scans", "sub-1", 0, label=None)
    assert "strongest finding" in view_case(read_report_run(run).cases[0]).centre
    (folder / "mask.nii.gz").unlink()
    assert "centre of the brain" in view_case(read_report_run(run).cases[0]).centre


def test_the_largest_component_decides_even_if_its_centre_is_outside_it() -> None:
    from anofield.reports.planes import centre

    ring = np.zeros((15, 15, 5), np.float32)
    ring[2:13, 2:13, 2] = 1
    ring[4:11, 4:11, 2] = 0
    ring[0, 0, 0] = 1
    truth = World(ring, np.eye(4))
    index, _ = centre({"truth": truth}, truth)
    assert ring[tuple(index)] == 1 and index[2] == 2


@pytest.mark.slow
def test_missing_parts_are_told_in_the_card(run: Path, tmp_path: Path) -> None:
    (tmp_path / "scans" / "0.nii.gz").unlink()
    (tmp_path / "scans" / "0-label.nii.gz").unlink()
    (run / "sub-1" / "restoration.nii.gz").unlink()
    (run / WEIRD / "mask.nii.gz").unlink()
    (run / "sub-3" / "anomaly.nii.gz").write_bytes(b"broken")
    html = text(run)
    assert html.count('<article class="card"') == 3
    for part in ("source scan is no longer at", "truth is no longer at", "No restoration", "No mask of findings"):
        assert html.count(part) == 1
    assert "anomaly.nii.gz: is text" in html


@pytest.mark.slow
def test_a_case_without_any_image_still_has_its_card(run: Path, tmp_path: Path) -> None:
    for path in [*(run / "sub-1").glob("*.nii.gz"), *(tmp_path / "scans").glob("0*")]:
        path.unlink()
    assert "no image that can be shown" in text(run)


@pytest.mark.slow
def test_an_image_on_other_voxels_is_not_drawn(run: Path) -> None:
    write(run / "sub-1" / "restoration.nii.gz", np.ones(SHAPE), LAS + np.eye(4, k=3) * 30)
    assert "does not lie on the voxels of the other images" in text(run)


@pytest.mark.slow
def test_a_run_without_threshold(run: Path) -> None:
    info = facts_of(run / "run.json")
    (run / "run.json").write_text(json.dumps(info | {"threshold": None}))
    assert "No threshold was calibrated" in text(run)


def test_a_folder_without_run_json_is_no_run(run: Path) -> None:
    (run / "run.json").unlink()
    with pytest.raises(CohortError, match=r"(?i)it has no run\.json"):
        read_report_run(run)


def test_cases_of_an_earlier_run_are_left_out_and_counted(run: Path, tmp_path: Path) -> None:
    add_case(run, tmp_path / "scans", "sub-4", 3, identity="another")
    add_case(run, tmp_path / "scans", "sub-5", 4, identity="another")
    found = read_report_run(run)
    assert [case.id for case in found.cases] == ["sub-1", WEIRD, "sub-3"]
    notice = found.notices[0]
    assert "2 cases of an earlier run, with another model or other options, are ignored (sub-4, sub-5)" in notice
    (run / "run.json").write_text((run / "run.json").read_text().replace(IDENTITY, "a third one"))
    with pytest.raises(CohortError, match=r"no finished case.*5 cases of an earlier run"):
        read_report_run(run)


def test_a_scan_that_was_exchanged_is_not_shown(run: Path, tmp_path: Path) -> None:
    add_case(run, tmp_path / "scans", "sub-1", 0, source_hash="of another file")
    view = view_case(read_report_run(run).cases[0])
    assert any("has changed since the detection" in note for note in view.notes)
    assert all("scan" not in plane.images for plane in view.planes)


def test_results_of_an_earlier_state_of_the_run_are_refused(run: Path, tmp_path: Path) -> None:
    results = add_results(tmp_path / "old", ["sub-1"], identity="another")
    with pytest.raises(UsageError, match="detected with another model"):
        read_report_run(run, results)


@pytest.mark.slow
def test_max_cases_is_told_and_the_table_lists_all(run: Path) -> None:
    html = text(run, max_cases=1)
    assert html.count('<article class="card"') == 1
    assert "the first 1 of 3 cases" in html and "sub-3" in html
    assert text(run, max_cases=0).count("<article") == 0


def weight(rows: list[figures.Row]) -> int:
    return sum(panel.weight for row in rows for panel in row.panels)


def test_pictures_get_coarser_until_they_fit_their_share(run: Path) -> None:
    view, scale = view_case(read_report_run(run).cases[0]), figures.Scale(3.0, 1.0)
    fine = weight(figures.draw(view, scale, 10**9))
    assert 0 < weight(figures.draw(view, scale, fine - 1)) < fine
    assert figures.draw(view, scale, 10) == []


@pytest.mark.slow
def test_pictures_that_fit_in_no_detail_are_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = text(run)
    monkeypatch.setattr(cases, "PICTURES", 3000)
    assert len(text(run)) < len(full) < 15_000_000
    monkeypatch.setattr(cases, "PICTURES", 10)
    assert text(run).count("left out to keep the file small") == 3


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that hold one case or two."""
    monkeypatch.setattr(paging, "BUDGET", paging.RESERVE + 25_000)


@pytest.mark.slow
@pytest.mark.usefixtures("small_pages")
def test_cases_that_do_not_fit_into_one_file_get_files_of_their_own(run: Path, results: Path) -> None:
    index = text(run, results=results)
    found = {path.name: path.read_text(encoding="utf-8") for path in run.parent.glob("report*.html")}
    assert index.count("<article") == 0 and len(found) > 1
    assert sum(html.count('<article class="card"') for html in found.values()) == 3
    for html in found.values():
        assert len(html) <= paging.BUDGET
        for file, place in re.findall(r'href="(report[^"#]*)(#case-\d+)?"', html):
            assert file in found and f'id="{place[1:]}"' in found[file] + 'id=""'
    assert len(re.findall(r'href="report-\d\.html#case-\d"', index)) >= 3


@pytest.mark.slow
@pytest.mark.usefixtures("small_pages")
def test_a_shorter_report_leaves_nothing_of_a_longer_one_and_touches_no_other_file(run: Path) -> None:
    text(run)
    folder = run.parent
    longer = {path.name for path in folder.glob("report-*.html")}
    first = (folder / "report-2.html").read_text(encoding="utf-8")
    kept = {"report-7.html": "mine", "report-77.html": first, "report-old.html": first, "report-2.html.bak": first}
    for name, content in kept.items():
        (folder / name).write_text(content, encoding="utf-8")
    other = write_report(run, folder / "report-x.html")
    theirs = {path.name for path in folder.glob("report-x*")}
    text(run, max_cases=2)
    shorter = {path.name for path in folder.glob("report-*")} - theirs - set(kept)
    assert len(longer) == 3 and shorter == {"report-2.html", "report-3.html"}
    text(run, max_cases=0)
    assert {path.name for path in folder.glob("report-*")} == set(kept) | theirs
    assert all((folder / name).read_text(encoding="utf-8") == content for name, content in kept.items())
    assert other.is_file() and not list(folder.glob(".partial*"))


@pytest.mark.slow
@pytest.mark.usefixtures("small_pages")
def test_a_report_that_fails_half_way_leaves_the_older_one_as_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text(run)
    before = {path.name: path.read_bytes() for path in run.parent.glob("*report*")}
    monkeypatch.setattr(page, "_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        text(run, title="Another")
    assert {path.name: path.read_bytes() for path in run.parent.glob("*report*")} == before


def test_a_group_never_exceeds_the_budget_and_keeps_the_order() -> None:
    generator = np.random.default_rng(0)
    room = paging.BUDGET - paging.RESERVE
    for _ in range(5):
        texts = ["x" * int(size) for size in generator.integers(1, room, 12)]
        groups = list(paging.grouped(paging.Fragment(text, False) for text in texts))
        assert [fragment.text for group in groups for fragment in group] == texts
        assert all(sum(len(fragment.text) for fragment in group) <= room for group in groups)
    assert list(paging.grouped([])) == [[]]


@pytest.mark.slow
def test_no_more_than_two_groups_of_cases_are_held(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "BUDGET", paging.RESERVE + 1)
    alive: weakref.WeakSet[paging.Fragment] = weakref.WeakSet()
    most = []

    class Counted(paging.Fragment):
        def __init__(self, text: str, viewer: bool) -> None:
            super().__init__(text, viewer)
            alive.add(self)
            most.append(len(alive))

    monkeypatch.setattr(page, "Fragment", Counted)
    for place in range(3, 9):
        add_case(run, run.parent / "scans", f"more-{place}", place)
    text(run)
    assert len(most) == 9 and max(most) <= 4  # a page that is written, the one after it, a case that begins another


def test_counting_codes_equals_counting_scores() -> None:
    generator = np.random.default_rng(1)
    scores = generator.gamma(0.5, 0.4, (9, 8, 7)).astype(np.float32)
    threshold = float(scores[4, 4, 4])  # scores that equal the threshold are not above it
    step, mark = viewer.steps(scores, threshold)
    codes = viewer.codes(scores, step)
    assert mark is not None and step * mark == pytest.approx(threshold)
    assert (codes > mark).sum() == (scores > threshold).sum()
    for code in range(0, 255, 23):
        assert (codes > code).sum() == (scores > code * step).sum()


def test_the_volumes_of_the_view_lie_where_the_scan_lies(run: Path) -> None:
    case = read_report_run(run).cases[2]  # oblique
    view = view_case(case, 1.0)
    assert view.viewer is not None
    images = {
        name: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(image)))
        for name, image in view.viewer.images.items()
    }
    assert set(images) == {"scan", "anomaly", "truth"}
    anomaly = images["anomaly"]
    found = anomaly.affine @ (*np.argwhere(anomaly.get_fdata() > 1.0).mean(axis=0), 1)
    index = np.argwhere(blob(OBLIQUE)).mean(axis=0)
    np.testing.assert_allclose(found, OBLIQUE @ (*index, 1), atol=1e-3)
    assert np.asarray(images["scan"].dataobj).max() == 255 and view.viewer.voxel_ml == pytest.approx(0.012, rel=1e-3)


def test_volumes_that_are_too_large_are_thinned(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = view_case(read_report_run(run).cases[0], 1.0).viewer
    assert full is not None and full.stride == 1
    monkeypatch.setattr(viewer, "CASE_BUDGET", full.weight - 1)
    thin = view_case(read_report_run(run).cases[0], 1.0).viewer
    assert thin is not None and thin.stride > 1 and thin.weight < full.weight
    assert thin.voxel_ml == pytest.approx(0.012 * thin.stride**3)


def test_the_vendored_library_is_the_published_one() -> None:
    folder = resources.files("anofield.reports") / "vendor"
    digest = hashlib.sha256((folder / viewer.NIIVUE).read_bytes()).hexdigest()
    assert digest in viewer.licences() and "BSD 2-Clause License" in viewer.licences()


def test_every_part_of_the_library_has_its_licence() -> None:
    listed = re.findall(r"^  (\S.*?) +\[([\w.-]+)\]", viewer.licences(), re.MULTILINE)
    sections = re.split(r"^(\S.*)\n=+\n", viewer.licences(), flags=re.MULTILINE)
    texts = dict(zip(sections[1::2], sections[2::2], strict=True))
    packages = {re.sub(r" [\d.]+$", "", name): licence for name, licence in listed}
    direct = {
        "@lukeed/uuid",
        "@ungap/structured-clone",
        "array-equal",
        "fflate",
        "gl-matrix",
        "nifti-reader-js",
        "zarrita",
    }
    assert direct | {"@niivue/niivue", "@zarrita/storage", "numcodecs"} <= set(packages)
    assert set(packages) <= set(texts) and all(text.strip() for text in texts.values())
    words = {"MIT": "MIT|Permission is hereby granted", "ISC": "ISC|Permission to use", "Zlib": "misrepresented"}
    words |= {
        "BSD-2-Clause": "Redistributions in binary form",
        "BSD-3-Clause": "Neither the name",
        "Apache-2.0": "Apache",
    }
    for name, licence in packages.items():
        assert re.search(words[licence], texts[name]), name
    assert "TERMS AND CONDITIONS" in texts["Apache License, Version 2.0"]


def test_the_package_names_the_licences_of_its_parts() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = set(re.findall(r"^  \S.*? +\[([\w.-]+)\]", viewer.licences(), re.MULTILINE))
    assert set(project["license"].split(" AND ")) == {"MIT"} | listed
    assert f"src/anofield/reports/vendor/{viewer.LICENCES}" in project["license-files"]


def test_the_licences_are_in_the_wheel_and_in_every_page_that_has_the_library(run: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="the build backend is not installed")
    builder = wheel.WheelBuilder(str(Path(__file__).parents[2]))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    for name in (viewer.NIIVUE, viewer.LICENCES):
        assert f"anofield/reports/vendor/{name}" in packed
    with_library, without = text(run), text(run, max_cases=0)
    assert str(escape(viewer.licences())) in with_library
    assert "NiiVue" not in without


@pytest.mark.slow
def test_the_card_shows_intervals_and_labels_thresholds(tmp_path: Path, run: Path) -> None:
    figure = {"value": 0.8, "ci": [0.75, 0.85], "resamples": 10}
    worse = {"value": 0.4, "ci": None, "resamples": 0}
    size = {"size": "< 1 ml", "lesions": 2, "found": 1, "recall": 0.5, "covered": None}
    results = add_results(
        tmp_path / "card",
        ["sub-1"],
        card={
            "deviation": {"ap": figure, "dice_oracle_mean": figure, "froc_recall_at_1": figure, "scan_auroc": worse},
            "intensity": {"ap": worse, "scan_auroc": {"value": None, "ci": None}},
        },
        margins={"intensity": {"ap": {"value": 0.4, "ci": [-0.1, 0.5], "p": 0.5, "higher_is_worse": False}}},
        by_size={"threshold": "calibrated", "rows": [size]},
        froc={"deviation": [{"threshold": 1, "false_per_scan": n, "recall": r} for n, r in ((1.0, 0.5), (0.1, None))]},
        thresholds={"deviation": {"calibrated": 1.0, "oracle": 0.9}},
        rules={"subjects": 3, "resamples": 10, "min_lesion_ml": 0.1, "overlap": 0.1, "space": "brain"},
    )
    html = text(run, results=results)
    assert "[0.750, 0.850]" in html and "oracle (test labels)" in html and "healthy-calibrated" in html
    assert "unclear which is better" in html and "intervals are too narrow" in html
    assert "FROC of lesions" in html and "recall at 1: 0.80 [0.75, 0.85]" in html and "Lesions by size" in html


@pytest.mark.slow
def test_trust_and_its_reasons_are_told(run: Path, tmp_path: Path) -> None:
    fit = fit_info(trusted=False, reasons=["pose <far> off"], pose={"size": 1})
    add_case(run, tmp_path / "scans", "sub-1", 0, fit=fit, case_score=1.5)
    html = text(run)
    assert html.count("pose &lt;far&gt; off") >= 2 and html.count(">not trusted<") == 3 and "Case score" in html
    assert '<a href="#untrusted">1&nbsp;not trusted</a>' in html and 'id="untrusted"' in html


def test_an_outline_follows_the_voxels_edge_in_mm() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:5, 4:8] = True
    numbers = np.array(re.findall(r"-?[\d.]+", figures.outline(mask, (20.0, 30.0))), float).reshape(-1, 2)
    assert numbers.min(axis=0) == pytest.approx([8, 6]) and numbers.max(axis=0) == pytest.approx([16, 15])
    assert figures.outline(np.zeros((4, 4), bool), (4, 4)) == ""


def test_a_curve_leaves_undefined_points_out() -> None:
    assert charts.curve([0, None, float("nan"), 1], [1, 1, 1, 0.5]) == "M0.00 0.00L100.00 50.00"
    assert charts.curve([], []) == ""
    assert charts.curve(range(5000), range(5000)).count("L") == charts.MAX_POINTS - 1


def test_numbers_read_well() -> None:
    assert [number(x) for x in (0.12345, 12.345, 0, -2.5, None, float("nan"), "x")] == [
        "0.123",
        "12.3",
        "0",
        "−2.50",
        "–",
        "–",
        "–",
    ]
    assert number(1.5e-7) == "1.50e-07" and decimal(0.9) == "0.900" and decimal(-0.2, 0) == "0"
    assert [ml(x) for x in (0.324, 23.46, 1400.4)] == ["0.32", "23.5", "1400"]
    assert [duration(x) for x in (0.42, 12.3, 200, 7500)] == ["0.42 s", "12 s", "3 min 20 s", "2 h 05 min"]


@pytest.mark.slow
def test_a_case_with_a_far_worse_fit_is_flagged(run: Path, tmp_path: Path) -> None:
    for name in ("sub-1", WEIRD, "sub-3"):
        shutil.rmtree(run / name)
    for place in range(6):
        loss = 9.0 if place == 5 else 1.0 + 0.01 * place
        add_case(run, tmp_path / "scans", f"fit-{place}", place, fit=fit_info(loss=loss))
    assert text(run).count("unusually high") == 1


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_run_that_is_missing_or_empty_is_refused_with_a_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty" / "sub-1").mkdir(parents=True)
    with pytest.raises(CohortError, match=f"{name}.*Remedy: .*anofield detect"):
        write_report(tmp_path / name, tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_bad_arguments_are_refused_with_a_remedy(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Remedy"):
        write_report(run, tmp_path / "out.html", max_cases=-1)
    with pytest.raises(UsageError, match=r"results.json: no such file.*Remedy: .*anofield evaluate"):
        write_report(run, tmp_path / "out.html", results=tmp_path)
    (run / "run.json").write_text("{")
    with pytest.raises(CohortError, match=r"run.json: cannot be read as JSON"):
        write_report(run, tmp_path / "out.html")


@pytest.mark.slow
def test_a_folder_as_output_gets_report_html(run: Path, tmp_path: Path) -> None:
    assert write_report(run, tmp_path) == tmp_path / "report.html"


@pytest.mark.slow
def test_curves_have_bands_where_the_results_hold_them(tmp_path: Path, run: Path) -> None:
    band = {"x": [0, 0.5, 1], "low": [0.7, 0.5, 0.1], "high": [0.9, 0.8, 0.1]}
    bands = {"deviation": {"precision_recall": band, "froc": {**band, "x": [0, 4, 12]}}, "intensity": {"roc": band}}
    froc = {"deviation": [{"threshold": 1, "false_per_scan": x, "recall": x / 10} for x in (0.0, 4.0)]}
    rules = {"subjects": 3, "resamples": 10}
    html = text(run, results=add_results(tmp_path / "bands", [], bands=bands, froc=froc, rules=rules))
    drawn = re.findall(r'<path class="band ([^"]*)" d="([^"]*)"', html)
    assert drawn[0] == ("main", "M0.00 10.00L50.00 20.00L100.00 90.00L100.00 90.00L50.00 50.00L0.00 30.00Z")
    assert [style for style, _ in drawn] == ["main", "baseline baseline-1", "main"]
    assert drawn[2][1] == "M0.00 10.00L50.00 20.00L50.00 50.00L0.00 30.00Z"  # up to 8 false findings
    assert html.count('<rect class="band') == 3 and html.count("over 3 subjects; too narrow with so few") == 3
    assert 'class="band' not in text(run, results=add_results(tmp_path / "none", []))


def comparison(**change: Any) -> dict[str, Any]:
    differences = {
        "ap": {"value": 0.2, "ci": [0.1, 0.3], "p": 0.01, "higher_is_worse": False},
        "fpr95": {"value": 0.2, "ci": [0.1, 0.3], "p": 0.01, "higher_is_worse": True},
        "auroc": {"value": 0.01, "ci": [-0.1, 0.1], "p": 0.5, "higher_is_worse": False},
        "hd95_calibrated": {"value": None, "ci": None, "p": None, "higher_is_worse": True},
    }
    sides = {
        side: {"run": f"<{side}>", "score": "deviation", "thresholds": {"oracle": 1.0}, "values": {"ap": value}}
        for side, value in (("a", 0.8), ("b", 0.6))
    }
    more = {"space": "inside the brain", "n_cases": 3, "rules": RULES, "labels": {}}
    return {**more, "differences": differences, **sides, **change}


def test_a_comparison_tells_which_run_is_better_and_what_is_not_clear(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps(comparison()))
    html = write_comparison_report(tmp_path, tmp_path).read_text(encoding="utf-8")
    found = dict(re.findall(r'scope="row">([^<]*)<.*?<td class="(\w+)">', html))
    assert list(found.values()) == ["better", "unclear", "worse"] and "False-positive rate" in list(found)[2]
    assert "0.800" in html and "0.600" in html and "[0.100, 0.300]" in html and "HD95" not in html
    assert "&lt;a&gt;" in html and "oracle (test labels)" in html and "https://" not in html


def test_a_comparison_of_one_subject_says_why_nothing_is_clear(tmp_path: Path) -> None:
    lone = {"value": 0.2, "ci": None, "p": None, "higher_is_worse": False}
    changed = comparison(rules={**RULES, "subjects": 1}, differences={"ap": lone, "auroc": lone})
    (tmp_path / "comparison.json").write_text(json.dumps(changed))
    html = write_comparison_report(tmp_path, tmp_path).read_text(encoding="utf-8")
    assert "No intervals: they need two subjects or more." in html and ">unclear<" not in html
    assert re.findall(r'<td>([^<]*)</td><td class="\w+">([^<]*)<', html) == [("–", "–")] * 2


def test_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file.*Remedy: .*evaluate --compare"):
        write_comparison_report(tmp_path, tmp_path / "out.html")
    (tmp_path / "comparison.json").write_text(json.dumps(comparison(b=None)))
    with pytest.raises(UsageError, match=r"is damaged.*Remedy: .*evaluate --compare"):
        write_comparison_report(tmp_path / "comparison.json", tmp_path / "out.html")


def test_the_command_takes_a_comparison_alone(tmp_path: Path, anofield: Callable[..., Any]) -> None:
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(comparison()))
    ended = anofield("report", "--compare", file, "-o", tmp_path)
    assert ended.code == 0 and Path(ended.out.strip()) == tmp_path / "compare.html"
    ended = anofield("report", "--compare", file, "-p", tmp_path, "-o", tmp_path)
    assert ended.code == 2 and "--compare together with" in ended.err


def test_results_with_cases_that_the_run_does_not_have_are_refused(tmp_path: Path, run: Path) -> None:
    add_results(tmp_path / "others", ["stranger"])
    with pytest.raises(UsageError, match="results of another run: this one has no finished case 'stranger'"):
        write_report(run, tmp_path / "out.html", results=tmp_path / "others")


@pytest.mark.parametrize(
    "change", [{"score": "intensity"}, {"thresholds": {"deviation": {"calibrated": 4.5}}}], ids=["score", "threshold"]
)
def test_results_of_another_run_are_refused(tmp_path: Path, run: Path, change: dict[str, Any]) -> None:
    add_results(tmp_path / "others", ["sub-1"], **change)
    with pytest.raises(UsageError, match=r"results of another run.*anofield evaluate"):
        write_report(run, tmp_path / "r.html", results=tmp_path / "others")


@pytest.mark.slow
def test_results_at_the_runs_own_threshold_are_not(tmp_path: Path, run: Path) -> None:
    add_results(tmp_path / "own", ["sub-1"], thresholds={"deviation": {"calibrated": 1.0, "oracle": 4.5}})
    assert write_report(run, tmp_path / "r.html", results=tmp_path / "own").is_file()
