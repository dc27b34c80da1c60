"""The report in a browser: opens offline without console errors, the slider moves the mask, the table sorts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anofield.detect.run import detect_cases
from anofield.evaluation.evaluate import evaluate
from anofield.evaluation.options import Options
from anofield.reports.report import write_report
from helpers import QUICK, small_world
from images import load_image

selenium = pytest.importorskip("selenium", reason="the browser tests need the package selenium")
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
]
FLAGS = ("--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
OFFLINE = ("file:", "data:", "blob:")


def start(*flags: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, "--disable-dev-shm-usage", "--window-size=700,700", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = start()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its results."""
    small, root = small_world(tmp_path_factory.getbasetemp() / "world"), tmp_path_factory.mktemp("browser")
    detect_cases(small.glioma, small.model, QUICK, root / "run")
    evaluate(root / "run", None, root / "results", Options(resamples=20))
    return root / "run", root / "results"


@pytest.fixture(scope="module")
def report(world: tuple[Path, Path]) -> Path:
    return write_report(world[0], world[0].parent / "report.html", results=world[1])


def visit(driver: Any, path: Path) -> None:
    driver.get_log("browser"), driver.get_log("performance")
    driver.get(path.as_uri())


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def open_first(driver: Any) -> None:
    driver.execute_script("document.querySelector('.viewer .open').click()")
    wait_until_ready(driver)


def wait_until_ready(driver: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(driver, 30, 0.05)
    wait.until(lambda d: d.execute_script("return document.querySelector('.viewer').dataset.ready"))
    assert find(driver, ".viewer .unable").text == ""


def move(driver: Any, code: int) -> tuple[float, int]:
    """Set the slider; the volume in ml that is told, and how many pixels of the view have a colour."""
    return tuple(
        driver.execute_async_script(
            """
            const [code, done] = arguments, box = document.querySelector(".viewer");
            const slider = box.querySelector(".threshold"), truth = box.querySelector(".truth-on");
            if (truth?.checked) truth.click();
            slider.value = code;
            slider.dispatchEvent(new Event("input"));
            requestAnimationFrame(() => requestAnimationFrame(() => {
              box.nv.drawScene();
              const { gl } = box.nv, [w, h] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
              const pixels = new Uint8Array(4 * w * h);
              gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
              let coloured = 0;
              for (let i = 0; i < pixels.length; i += 4) coloured += Math.abs(pixels[i] - pixels[i + 2]) > 20;
              done([Number(box.querySelector(".volume").textContent), coloured]);
            }));
            """,
            code,
        )
    )


def complaints(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def fetched(driver: Any) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def test_the_view_opens_offline_and_the_slider_moves_mask_and_volume(browser: Any, report: Path) -> None:
    visit(browser, report)
    open_first(browser)
    box = find(browser, ".viewer")
    step, mark = float(box.get_attribute("data-step")), int(find(browser, ".threshold").get_attribute("value"))
    case = sorted((report.parent / "run").glob("*/case.json"))[0]
    facts, map_ = json.loads(case.read_text()), load_image(case.parent / "anomaly.nii.gz")
    voxel_ml = abs(np.linalg.det(map_.affine[:3, :3])) / 1000
    assert step * mark == pytest.approx(facts["threshold"])
    told = {}
    for code in (0, mark, 2 * mark, 254):
        volume, _ = told[code] = move(browser, code)
        exact = float((map_.get_fdata() > code * step * (1 + 1e-9)).sum() * voxel_ml)
        assert volume == pytest.approx(exact, abs=0.51 if exact > 100 else 0.051)
    volumes, coloured = zip(*(told[code] for code in (0, mark, 2 * mark)), strict=True)
    assert volumes[0] > volumes[1] > volumes[2] and coloured[0] > coloured[1] > coloured[2]
    assert told[254][1] <= coloured[2] < coloured[0] / 5  # what is not above the threshold has no colour at all
    assert complaints(browser) == []
    assert all(url.startswith(OFFLINE) for url in fetched(browser))


def test_the_view_can_be_used_with_the_keyboard_alone(browser: Any, report: Path) -> None:
    visit(browser, report)
    browser.execute_script("document.querySelector('.viewer .open').focus()")
    active = browser.switch_to.active_element
    active.send_keys(Keys.ENTER)
    wait_until_ready(browser)
    reached = []
    for _ in range(4):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(browser.switch_to.active_element)
    assert [one.tag_name for one in reached[:3]] == ["canvas", "input", "button"]
    assert [one.get_attribute("class") for one in reached[1:]] == ["threshold", "reset", "truth-on"]
    canvas, slider, reset, _ = reached

    def told() -> tuple[float, float, int]:
        value, volume = (float(find(browser, f".viewer .{name}").text) for name in ("value", "volume"))
        return value, volume, int(slider.get_attribute("value"))

    before = told()
    slider.send_keys(Keys.ARROW_RIGHT * 3)
    after = told()
    assert after[2] == before[2] + 3 and after[0] > before[0] and after[1] <= before[1]
    assert f"{after[0]:g}" in slider.get_attribute("aria-valuetext")
    reset.send_keys(Keys.SPACE)
    assert told() == before

    def place() -> list[int]:
        words = find(browser, ".viewer .place").text.replace("\u2212", "-")
        return [int(mm) for mm in re.findall(r"[xyz] (-?\d+)", words)]

    start = place()
    for key, axis, sign in ((Keys.ARROW_LEFT, 0, 1), (Keys.ARROW_DOWN, 1, -1), (Keys.PAGE_UP, 2, 1)):
        at = place()
        canvas.send_keys(key)
        moved = np.subtract(place(), at)
        assert np.sign(moved[axis]) == sign and np.argmax(abs(moved)) == axis
    assert place() != start and complaints(browser) == []


def test_every_picture_says_what_it_is(browser: Any, report: Path) -> None:
    visit(browser, report)
    pictures = "[...document.querySelectorAll('svg, img, canvas')]"
    unnamed = f"return {pictures}.filter(e => !e.closest('[aria-hidden]') && !e.ariaLabel && !e.alt).length"
    assert browser.execute_script(unnamed) == 0


def test_one_view_at_a_time_keeps_its_drawing_context(browser: Any, report: Path) -> None:
    visit(browser, report)
    open_first(browser)
    second = browser.find_elements("css selector", ".viewer .open")[1]
    browser.execute_script("arguments[0].click()", second)
    canvases = browser.find_elements("css selector", "canvas")
    assert len(canvases) <= 1
    first = find(browser, ".viewer .open")
    assert first.get_attribute("aria-expanded") == "false"


def test_the_case_table_sorts_by_key_and_says_how(browser: Any, report: Path) -> None:
    visit(browser, report)
    head = browser.find_elements("css selector", "#cases thead th")[1]

    def column() -> list[float]:
        cells = browser.find_elements("css selector", "#cases tbody tr td:nth-child(2)")
        return [float(cell.get_attribute("data-value")) for cell in cells]

    button = head.find_element("css selector", "button")
    button.send_keys("\ue007")  # Enter
    assert head.get_attribute("aria-sort") == "ascending" and column() == sorted(column())
    button.send_keys(" ")
    assert head.get_attribute("aria-sort") == "descending" and column() == sorted(column(), reverse=True)
    assert len(column()) == 2 and len(set(column())) == 2
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser: Any, report: Path, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    visit(browser, report)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_no_table_is_cut_on_paper(browser: Any, report: Path) -> None:
    paper = {"width": 718, "height": 1040, "deviceScaleFactor": 1, "mobile": False}  # A4 within its margins
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    visit(browser, report)
    right = "getBoundingClientRect().right"
    tables = "[...document.querySelectorAll('table')]"
    cut = f"return {tables}.filter(e => e.{right} > e.closest('.box, details, .card').{right}).length"
    assert browser.execute_script(cut) == 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_webgl_the_page_says_so_and_keeps_its_pictures(report: Path) -> None:
    driver = start("--disable-webgl", "--disable-webgl2", "--disable-3d-apis")
    try:
        visit(driver, report)
        assert "needs WebGL 2" in find(driver, ".viewer .unable").text
        assert not find(driver, ".viewer .open").is_displayed() and find(driver, ".planes").is_displayed()
        assert complaints(driver) == []
    finally:
        driver.quit()


def test_pages_of_a_split_report_lead_to_each_other(
    browser: Any, world: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from anofield.reports import paging

    monkeypatch.setattr(paging, "BUDGET", paging.RESERVE + 1000)
    folder = world[0].parent / "split of#it"
    folder.mkdir()
    visit(browser, write_report(*world[:1], folder, results=world[1]))
    assert not browser.find_elements("css selector", "article")
    find(browser, "#cases tbody a").click()
    assert "report-2.html#case-0" in browser.current_url and len(browser.find_elements("css selector", "article")) == 1
    browser.find_element("link text", "Next cases").click()
    open_first(browser)
    browser.find_element("link text", "Summary and all cases").click()
    assert browser.current_url.endswith("/report.html") and complaints(browser) == []
