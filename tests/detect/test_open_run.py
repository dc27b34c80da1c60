"""One run, one identity: whatever is stopped, repeated or divided, no reader mixes results of two runs."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anofield.data.cohort.case import Case
from anofield.detect.bids import bids_names, write_derivatives
from anofield.detect.calibrate import calibrate
from anofield.detect.open_run import open_run
from anofield.detect.plans import alone, held, planned
from anofield.detect.run import Run, detect_cases
from anofield.detect.run_folder import RUN_FOLDER
from anofield.errors import CohortError, MachineError, UsageError
from anofield.evaluation.compare import compare
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.options import Options
from anofield.reports.folder import read_report_run
from anofield.reports.report import write_report
from helpers import facts_of
from stub import OPTIONS, Stub, cohort

FEW = Options(resamples=10)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def killer(after: int) -> Callable[[Any], None]:
    """Kill when more than this number of scans is scored."""
    left = [after]

    def started(_: Any) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1

    return started


@pytest.fixture
def cases(tmp_path: Path, save_brain: Callable[..., Path]) -> list[Case]:
    return cohort(tmp_path / "scans", save_brain)


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(path=tmp_path / "method")


@pytest.fixture
def run(cases: list[Case], stub: Stub, tmp_path: Path) -> Run:
    """A finished run of the first model."""
    return detect_cases(cases, stub, OPTIONS, tmp_path / "run")


def content(folder: Path) -> dict[str, Any]:
    """What a run says, without times."""
    found: dict[str, Any] = {}
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"):
        found[str(path.relative_to(folder))] = path.read_bytes()
        if path.name in ("run.json", "case.json"):
            plain = facts_of(path)
            found[str(path.relative_to(folder))] = {
                key: value for key, value in plain.items() if key not in ("created", "seconds", "command", "experiment")
            }
    return found


def kill(cases: list[Case], method: Stub, out: Path, after: int) -> None:
    with pytest.raises(Killed):
        detect_cases(cases, replace(method, started=killer(after)), OPTIONS, out)


class TestARunThatIsDetectedAgainWithAnotherModelAndKilled:
    @pytest.fixture
    def mixed(self, run: Run, cases: list[Case], stub: Stub) -> Path:
        kill(cases, replace(stub, hash="second", factor=2.0), run.path, after=2)
        return run.path

    def test_has_the_new_identity_and_the_cases_of_the_new_model_alone(self, mixed: Path, run: Run) -> None:
        opened = open_run(mixed)
        assert opened.info.model_hash == "second" and opened.info.identity != run.info.identity
        assert opened.ids == ["p0", "p1"] and opened.strangers == opened.pending == ["p2", "p3"]

    def test_is_evaluated_and_reported_without_the_others(
        self, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        results = evaluate(mixed, None, tmp_path / "results", FEW)
        assert {row.id for row in results.rows} == {"p0", "p1"}
        assert [failure.id for failure in results.failures] == ["p2", "p3"]
        told = capsys.readouterr().err
        assert "of an earlier run, with another model or other options" in told and "detect again to finish" in told
        assert any("earlier run" in notice for notice in results.notices)
        page = write_report(mixed, tmp_path / "report.html", max_cases=0).read_text()
        assert "of an earlier run, with another model or other options" in page

    def test_resumes_to_the_undisturbed_run(self, mixed: Path, cases: list[Case], stub: Stub, tmp_path: Path) -> None:
        second = replace(stub, hash="second", factor=2.0)
        detect_cases(cases, second, OPTIONS, mixed)
        detect_cases(cases, second, OPTIONS, tmp_path / "undisturbed")
        assert content(mixed) == content(tmp_path / "undisturbed")
        assert open_run(mixed).notices() == []


def test_a_case_that_was_half_replaced_is_not_finished(
    run: Run, cases: list[Case], stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anofield.detect import detection

    def killed(*_: Any) -> str:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(detection, "write_json", killed)  # every map of the case was written
        detect_cases(cases, replace(stub, hash="second"), OPTIONS, run.path)
    opened = open_run(run.path)
    assert not opened.ids and opened.pending == ["p0", "p1", "p2", "p3"] and opened.strangers == ["p1", "p2", "p3"]
    assert detect_cases(cases, stub, OPTIONS, run.path).info.cases == ["p0", "p1", "p2", "p3"]


def test_a_killed_first_run_says_that_it_is_not_complete(
    cases: list[Case], stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill(cases, stub, tmp_path / "run", after=1)
    results = evaluate(tmp_path / "run", None, tmp_path / "results", FEW)
    assert results.n_cases == 1 and [failure.id for failure in results.failures] == ["p1", "p2", "p3"]
    assert "3 cases are not finished" in capsys.readouterr().err


def test_a_run_without_a_case_of_its_own_is_refused(run: Run, cases: list[Case], stub: Stub, tmp_path: Path) -> None:
    kill(cases, replace(stub, hash="second"), run.path, after=0)
    for read in (lambda: evaluate(run.path, None, tmp_path / "results"), lambda: read_report_run(run.path)):
        with pytest.raises(CohortError, match=r"no finished case.*of an earlier run"):
            read()


def test_failures_of_an_earlier_run_are_forgotten(cases: list[Case], stub: Stub, tmp_path: Path) -> None:
    bad = Case("bad", tmp_path / "bad.nii.gz")
    detect_cases([*cases, bad], stub, OPTIONS, tmp_path / "run", part="1/2")
    assert [failure.id for failure in open_run(tmp_path / "run").failures] == ["bad"]
    detect_cases(cases, replace(stub, hash="second"), OPTIONS, tmp_path / "run")
    assert open_run(tmp_path / "run").failures == []


def test_one_more_scan_keeps_the_others(
    run: Run, cases: list[Case], stub: Stub, tmp_path: Path, save_brain: Callable[..., Path]
) -> None:
    (more,) = cohort(tmp_path / "scans", save_brain, 1, first=9)
    again = detect_cases([more], stub, OPTIONS, run.path)
    assert [case.id for case in again.cases] == ["p9"]
    assert again.info.cases == ["p0", "p1", "p2", "p3", "p9"]
    assert evaluate(run.path, None, tmp_path / "results", FEW).n_cases == 5
    assert len((run.path / "cases.tsv").read_text().splitlines()) == 6


def test_a_failed_case_is_named_with_the_file_that_says_why(cases: list[Case], stub: Stub, tmp_path: Path) -> None:
    cases[1].image.write_bytes(b"<html>")
    detect_cases(cases, stub, OPTIONS, tmp_path / "run")
    (notice,) = open_run(tmp_path / "run").notices()
    assert notice.endswith("1 case failed in the detection and is left out (p1); failures.json has the reasons")


class TestParts:
    def test_at_the_same_time_lose_no_case(self, cases: list[Case], stub: Stub, tmp_path: Path) -> None:
        barrier = threading.Barrier(2)  # both have begun before either ends
        meeting = replace(stub, started=lambda _: barrier.wait(timeout=20))
        parts = [
            threading.Thread(
                target=detect_cases, args=(cases, meeting, OPTIONS, tmp_path / "run"), kwargs={"part": part}
            )
            for part in ("1/2", "2/2")
        ]
        for part in parts:
            part.start()
        for part in parts:
            part.join()
        opened = open_run(tmp_path / "run")
        assert opened.ids == opened.info.cases == ["p0", "p1", "p2", "p3"] and opened.notices() == []
        assert len((tmp_path / "run" / "cases.tsv").read_text().splitlines()) == 5
        assert {path.name for path in (tmp_path / "run").glob("failures*")} == {
            "failures-1-of-2.json",
            "failures-2-of-2.json",
        }

    def test_with_other_options_are_refused_while_one_runs(self, cases: list[Case], stub: Stub, tmp_path: Path) -> None:
        out, refused = tmp_path / "run", []

        def started(_: Any) -> None:
            with pytest.raises(UsageError, match=r"another detection .* is running here") as caught:
                detect_cases(cases, replace(stub, hash="second"), OPTIONS, out, part="2/2")
            refused.append(caught.value)

        detect_cases(cases, replace(stub, started=started), OPTIONS, out, part="1/2")
        assert len(refused) == 2 and open_run(out).info.model_hash == "first"
        detect_cases(cases, replace(stub, hash="second"), OPTIONS, out, part="2/2")  # nothing runs any more
        assert open_run(out).info.model_hash == "second"

    def test_that_were_replaced_by_force_say_so(self, cases: list[Case], stub: Stub, tmp_path: Path) -> None:
        out = tmp_path / "run"
        forced: list[Run] = []

        def started(_: Any) -> None:
            if not forced:
                forced.append(detect_cases(cases, replace(stub, hash="second"), OPTIONS, out, force=True))

        with pytest.raises(UsageError, match="another detection replaced this run meanwhile"):
            detect_cases(cases[:1], replace(stub, started=started), OPTIONS, out)
        opened = open_run(out)
        assert opened.info.model_hash == "second" and opened.ids == ["p1", "p2", "p3"] and opened.strangers == ["p0"]

    def test_a_plan_of_a_killed_part_stays_until_its_cases_are_done(
        self, cases: list[Case], stub: Stub, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        with alone(out.parent):
            out.mkdir()
        first = detect_cases(cases, stub, OPTIONS, out, part="1/2")
        with held(out, first.info.identity, ["p1", "p3"]):
            plan = next(out.glob(".plan-*.json")).read_bytes()
        (out / ".plan-0.json").write_bytes(plan)
        assert open_run(out).pending == ["p1", "p3"]
        detect_cases(cases[1:2], stub, OPTIONS, out)
        assert open_run(out).pending == ["p3"]
        detect_cases(cases, stub, OPTIONS, out, part="2/2")
        assert open_run(out).pending == [] and not planned(out, first.info.identity)
        assert not list(out.glob(".plan-*"))


class TestSources:
    def test_a_scan_exchanged_since_is_named_and_left_out(
        self, run: Run, cases: list[Case], tmp_path: Path, save_brain: Callable[..., Path]
    ) -> None:
        save_brain(cases[1].image, seed=77)
        results = evaluate(run.path, None, tmp_path / "results", FEW)
        (failure,) = results.failures
        assert failure.id == "p1" and "the scan has changed since the detection" in failure.error
        assert results.n_cases == 3
        notes = write_report(run.path, tmp_path / "report.html", max_cases=4).read_text()
        assert notes.count("has changed since the detection") == 1

    def test_a_scan_that_is_gone_is_named_with_what_it_is_needed_for(
        self, run: Run, cases: list[Case], tmp_path: Path
    ) -> None:
        cases[2].image.unlink()
        (failure,) = evaluate(run.path, None, tmp_path / "results", FEW).failures
        assert failure.id == "p2" and "not there any more" in failure.error and "metrics are computed" in failure.error

    def test_a_mask_exchanged_since_is_noticed(
        self, cases: list[Case], stub: Stub, tmp_path: Path, brain_data: Any, save_brain: Callable[..., Path]
    ) -> None:
        mask = save_brain(tmp_path / "masks" / "p0.nii.gz", (brain_data > 0).astype("float32"))
        masked = [replace(cases[0], mask=mask), *cases[1:]]
        detect_cases(masked, stub, OPTIONS, tmp_path / "run")
        save_brain(mask, (brain_data > 200).astype("float32"))
        (failure,) = evaluate(tmp_path / "run", None, tmp_path / "results", FEW).failures
        assert "the brain mask has changed since the detection" in failure.error

    def test_a_label_changed_between_the_passes_stops_the_evaluation(
        self, run: Run, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from anofield.evaluation import gather

        second_pass = gather._second_pass

        def changed(*given: Any) -> Any:
            assert cases[0].label is not None and cases[1].label is not None
            shutil.copy(cases[0].image, cases[1].label)
            return second_pass(*given)

        monkeypatch.setattr(gather, "_second_pass", changed)
        with pytest.raises(CohortError, match="changed while it was evaluated"):
            evaluate(run.path, None, tmp_path / "results", FEW)

    def test_a_scan_exchanged_during_its_detection_fails(
        self, cases: list[Case], stub: Stub, tmp_path: Path, save_brain: Callable[..., Path]
    ) -> None:
        exchange = replace(stub, started=lambda _: save_brain(cases[0].image, seed=78))
        (failure,) = detect_cases(cases[:1], exchange, OPTIONS, tmp_path / "run").failures
        assert "changed during the detection" in failure.error


class TestReadOnly:
    @pytest.fixture
    def sealed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A run folder in which nothing can be created, also by an administrator."""
        real = os.open

        def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(run.path)):
                raise OSError(30, "Read-only file system", str(path))
            return real(path, flags, *more, **named)

        monkeypatch.setattr(os, "open", refuse)
        return run.path

    def test_a_finished_run_is_detected_again(
        self, sealed: Path, cases: list[Case], stub: Stub, run: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = content(sealed)
        again = detect_cases(cases, stub, OPTIONS, sealed)
        assert again.read_only and again.cases == run.cases and not again.failures
        assert "read-only; every case is finished, and run.json was not updated" in capsys.readouterr().err
        assert content(sealed) == before

    @pytest.mark.parametrize("model", ["first", "second"])
    def test_anything_else_is_a_machine_error(self, sealed: Path, cases: list[Case], stub: Stub, model: str) -> None:
        more = [replace(cases[0], id="new")] if model == "first" else []
        with pytest.raises(MachineError, match=r"cannot be written.*not finished"):
            detect_cases([*cases, *more], replace(stub, hash=model), OPTIONS, sealed)

    def test_it_is_evaluated_and_reported_elsewhere(self, sealed: Path, tmp_path: Path) -> None:
        assert evaluate(sealed, None, tmp_path / "results", FEW).n_cases == 4
        assert write_report(sealed, tmp_path / "report.html", results=tmp_path / "results", max_cases=0).is_file()


def test_a_bids_dataset_is_taken_for_the_run_inside(
    cases: list[Case], stub: Stub, tmp_path: Path, save_brain: Callable[..., Path]
) -> None:
    root = tmp_path / "dataset"
    healthy = cohort(tmp_path / "healthy", save_brain, 2, first=20)
    for folder, some in ((root, cases), (tmp_path / "other", cases), (tmp_path / "beside", healthy)):
        detect_cases(some, stub, OPTIONS, folder / RUN_FOLDER)
        write_derivatives(folder, some, bids_names(folder, some))
    options = replace_options(healthy=tmp_path / "beside")
    results = evaluate(root, None, tmp_path / "results", options)
    assert results.n_cases == 4 and results.run == str(root / RUN_FOLDER)
    assert compare(root, tmp_path / "other", None, tmp_path / "compared", FEW).n_cases == 4
    assert write_report(root, tmp_path / "report.html", results=results, max_cases=0).is_file()


def replace_options(**change: Any) -> Options:
    return Options(**{**vars(FEW), **change})


def test_results_do_not_go_into_the_run(run: Run) -> None:
    with pytest.raises(UsageError, match="folder of the run"):
        evaluate(run.path, None, run.path, FEW)


def test_the_table_holds_every_case_whatever_its_id(stub: Stub, tmp_path: Path, cases: list[Case]) -> None:
    pandas = pytest.importorskip("pandas")
    odd = ['quoted "id"', "a,b", "it's"]
    detect_cases(
        [replace(case, id=name) for case, name in zip(cases, odd, strict=False)], stub, OPTIONS, tmp_path / "r"
    )
    table = pandas.read_csv(tmp_path / "r" / "cases.tsv", sep="\t")
    assert sorted(table["id"]) == sorted(odd) and set(table["trusted"]) == {"not judged"}
    assert table["volume_ml"].isna().all() and (table["case_score"] > 0).all()


def test_maps_that_are_not_finite_are_never_written(stub: Stub, cases: list[Case], tmp_path: Path) -> None:
    broken = replace(stub, factor=float("nan"))
    run = detect_cases(cases[:2], broken, OPTIONS, tmp_path / "run")
    assert not run.cases and all("bright is not finite" in failure.error for failure in run.failures)
    assert not list((tmp_path / "run").glob("*/*"))
    with pytest.raises(CohortError, match="bright is not finite"):
        calibrate([replace(case, label=None) for case in cases], broken, OPTIONS)
