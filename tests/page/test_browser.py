"""Pages in a real browser: drawn, calm, alone, and as wide as the screen."""

import pytest

from tests.support.chromium import Browser, chromium
from tests.support.run_folders import write_run, write_study, write_video
from wamrl.page import RunFolder, compare_page, comparison, run_page, study_page, write_page

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no Chromium here: apt-get install chromium (or Chrome)"
)
EVIL = "</script><img src=x onerror=\"document.title='owned'\"><b>bold</b>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    run = write_run(root / "a-run-with-a-name-that-is-far-too-long-for-a-phone-20261127-085652")
    (run / "config.json").write_text((run / "config.json").read_text().replace("point", "p" * 90))
    write_video(run / "videos" / "after" / "start0001-failure.mp4")
    other = write_run(root / EVIL.replace("/", "_"), seed=1)
    folders = [RunFolder(run), RunFolder(other)]
    made = {
        "run": run_page(folders[0]),
        "study": study_page(RunFolder(write_study(root / "study"))),
        "compare": compare_page(comparison(folders)),
    }
    for name, page in made.items():
        write_page(page, root / f"{name}.html")
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("name", ["run", "study", "compare"])
def test_a_page_is_drawn_alone_and_fits(browser, pages, name: str):
    page = pages / f"{name}.html"
    browser.open(page, width=390)
    looks_right(browser, width=390, dark=False)
    for width, dark in ((390, True), (1280, True), (1280, False)):
        browser.look(width=width, dark=dark)
        looks_right(browser, width=width, dark=dark)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("blob:")] == [page.as_uri()]
    assert browser.value("document.title").endswith("wamrl")
    assert browser.value("document.querySelectorAll('img, b').length") == 0


def looks_right(browser, *, width: int, dark: bool) -> None:
    """Every figure is drawn, in the scheme's colours, and nothing is wider than the screen."""
    figures = browser.value("document.querySelectorAll('.figure').length")
    drawn = browser.value(
        "[...document.querySelectorAll('.figure')].filter(f => {"
        "const b = f.querySelector('.main-svg')?.getBoundingClientRect();"
        "return b && b.width > 200 && b.height > 100 &&"
        "f.querySelector('.scatterlayer .trace, .barlayer .trace') &&"
        f"b.right <= {width};}}).length"
    )
    assert figures >= 2 and drawn == figures
    assert browser.value("document.documentElement.scrollWidth") == width
    ink = browser.value("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert (int(ink.split("(")[1].split(",")[0]) > 128) == dark  # light letters on slate


def test_the_slider_goes_picture_by_picture(browser, pages):
    browser.open(pages / "run.html", width=1280)
    shown = browser.value("""(async () => {
        const figure = document.querySelector('figure.video');
        figure.scrollIntoView();
        const video = figure.querySelector('video');
        while (video.readyState < 2) await new Promise((r) => setTimeout(r, 20));
        const slider = figure.querySelector('input');
        slider.value = 4;
        slider.dispatchEvent(new Event('input'));
        while (video.seeking) await new Promise((r) => setTimeout(r, 20));
        return [video.currentTime * 4, figure.querySelector('output').textContent];
    })()""")
    assert shown[0] == pytest.approx(4.5, abs=0.01) and shown[1] == "5 / 6"
    assert browser.errors == []
