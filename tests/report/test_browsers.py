"""The report in real browsers, from disk and over HTTP: pages, ways between them, no way out."""

import contextlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from cnnvis_ray.report import Options, write_report
from tests.report.browsers import BROWSERS, Browser, chromium, settle
from tests.report.made_runs import HOSTILE, MadeRun, whole_run

NEEDED = {"chromium": ["chromium", "chromedriver"], "firefox": ["firefox-esr"]}
AXE = Path(__file__).parent / "axe" / "axe.min.js"

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ROUTES = [
    "#/",
    "#/map/block2",
    "#/layer/block2",
    "#/layer/block1?sort=sparsity&show=silent",
    "#/channel/block2/2",
    "#/channel/block1/0",
    "#/images",
    "#/images?q=img",
    "#/image//0",
    "#/image//17",
    "#/compare/block1/block2",
    "#/mosaic/block2-scatter",
    "#/compare/block1/block2 in run",
    "#/nights",
    "#/night/n%201",
    "#/audit",
    "#/rejects",
    *[f"#/class/{quote(name, safe='')}" for name in HOSTILE],
    "#/nowhere",
    "#/map/none",
    "#/channel/block2/900",
    "#/image/none",
]


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """One of the browsers, 1440 pixels wide."""
    kind = request.param
    for program in NEEDED[kind]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with BROWSERS[kind](False) as found:
        found.resize(1440, 900)
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that has everything, moved to where its run is not."""
    place = tmp_path_factory.mktemp("run")
    whole_run(place / "run")
    write_report(str(place / "run"), Options(compare=str(place / "run")))
    return Path(shutil.move(place / "run" / "report", place / "moved here"))


@pytest.fixture(scope="module", params=["file", "http"])
def site(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The report's address, on disk and over a server of the standard library."""
    if request.param == "file":
        yield (folder / "index.html").as_uri()
        return
    with served(folder) as address:
        yield address


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine alone."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *values: object) -> None:
            super().__init__(*values, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *values: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def show(browser: Browser, site: str, route: str) -> None:
    """Open a page and wait until it is shown."""
    if str(browser.run("return location.href")).split("#")[0] != site:
        browser.open(site)
        settle(browser, "document.body.dataset.shown")
    browser.run(
        "document.body.dataset.shown = ''; "
        "if (location.hash === arguments[0]) route(); else location.hash = arguments[0]",
        route,
    )
    shown(browser)


def shown(browser: Browser) -> None:
    """Wait until the page of the present address is shown, and its pieces are loaded."""
    settle(
        browser,
        "document.body.dataset.shown === (location.hash || '#/')",
    )
    settle(browser, "document.getElementById('bar').hidden")


def test_every_page_is_shown_without_an_error_or_a_request_outside(
    browser: Browser, site: str
) -> None:
    show(browser, site, "#/")
    browser.complaints()
    browser.requests()
    for route in ROUTES:
        show(browser, site, route)
        text = str(browser.run("return document.querySelector('main').innerText"))
        assert len(text) > 20, route
        assert "could not be shown" not in text, route
        assert ("Not in this report" in text) == (route in ROUTES[-4:]), route
        assert browser.complaints() == [], route
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert browser.run(f"return {wide}"), route
    start = site.rsplit("/", 1)[0]
    outside = [
        address for address in browser.requests() if not address.startswith((start, "data:"))
    ]
    assert outside == []


def test_hostile_names_are_text(browser: Browser, site: str) -> None:
    for number, name in enumerate(HOSTILE):
        show(browser, site, f"#/class/{quote(name, safe='')}")
        heading = str(browser.run("return document.querySelector('h1').textContent"))
        assert heading[:5] == name[:5] or "\0" in name[:5]
        show(browser, site, f"#/image//{number}")
        assert (
            browser.run("return document.querySelectorAll('img[onerror], main script').length")
            == 0
        )
    assert browser.complaints() == []


def test_from_the_map_to_an_image_a_channel_a_class_and_back(browser: Browser, site: str) -> None:
    show(browser, site, "#/map/block2")
    spot = browser.run(
        "const v = app.view; v.drawNow(); const f = v.frame(), b = v.box.getBoundingClientRect();"
        "return [b.left + (v.data.xy[0] - f.left) * f.scale / v.ratio, "
        "b.top + (v.data.xy[1] - f.top) * f.scale / v.ratio]"
    )
    assert isinstance(spot, list)
    click = (
        "for (const kind of ['pointerdown', 'pointerup']) app.view.box.dispatchEvent(new "
        "PointerEvent(kind, {clientX: arguments[0], clientY: arguments[1], pointerId: 1, "
        "bubbles: true}))"
    )
    browser.run("app.view.box.setPointerCapture = () => {}")
    browser.run(click, *spot)
    settle(browser, "location.hash.startsWith('#/image/')")
    shown(browser)
    browser.run("document.querySelector('a[href^=\"#/channel/\"]').click()")
    settle(browser, "location.hash.startsWith('#/channel/')")
    shown(browser)
    browser.run("document.querySelector('.ranks a[href^=\"#/class/\"]').click()")
    settle(browser, "location.hash.startsWith('#/class/')")
    shown(browser)
    for page in ("#/channel/", "#/image/", "#/map/"):
        browser.run("history.back()")
        settle(browser, f"location.hash.startsWith('{page}')")
        shown(browser)
    assert browser.complaints() == []


def test_lasso_selects_and_another_layer_keeps_the_selection(browser: Browser, site: str) -> None:
    show(browser, site, "#/map/block2")
    browser.run("app.view.box.setPointerCapture = () => {}")
    corners = "[[5, 5], [700, 5], [700, 700], [5, 700], [5, 5]]"
    browser.run(
        f"const b = app.view.box.getBoundingClientRect(); const corners = {corners};"
        "const send = (kind, [x, y]) => app.view.box.dispatchEvent(new PointerEvent(kind, "
        "{clientX: b.left + x, clientY: b.top + y, pointerId: 1, shiftKey: true}));"
        "send('pointerdown', corners[0]); corners.slice(1).forEach(c => send('pointermove', c));"
        "send('pointerup', corners[4])"
    )
    chosen = settle(browser, "selectedImages().length")
    assert isinstance(chosen, int)
    assert 0 < chosen <= 40
    assert "selected" in str(browser.run("return document.querySelector('.picked').innerText"))
    show(browser, site, "#/map/block1")
    assert browser.run("return selectedImages().length") == chosen
    assert browser.run("return app.view.data.selected.reduce((a, b) => a + b, 0)") == chosen
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    browser.run("app.view.reselect(null)")
    assert browser.run("return selectedImages().length") == 0


def test_search_finds_keys_classes_and_channels(browser: Browser, site: str) -> None:
    show(browser, site, "#/")
    browser.run(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true}))"
    )
    assert browser.run("return document.activeElement.id") == "query"
    browser.run(
        "document.getElementById('query').value = 'ONERROR';"
        "document.getElementById('find').requestSubmit()"
    )
    settle(browser, "/keys/.test(document.querySelector('main').innerText)")
    shown(browser)
    assert browser.run("return document.querySelectorAll('.gallery a').length") == 5
    assert browser.run("return document.querySelectorAll('.words a').length") == 1
    show(browser, site, "#/images?q=block2%2F3")
    assert browser.run("return document.querySelector('main a').hash") == "#/channel/block2/3"


def test_each_zoom_shows_more_pictures(browser: Browser, site: str) -> None:
    show(browser, site, "#/map/block2")
    settle(browser, "app.view.data.boxes && app.view.data.boxes.length")
    shown_at = []
    for zoom in (0.8, 1, 3, 12):
        browser.run(
            "const d = app.view.data; app.view.move(d.xy[0], d.xy[1], arguments[0]);"
            "app.view.drawNow()",
            zoom,
        )
        side = browser.run("return app.view.data.boxes[0][3]")
        assert isinstance(side, int | float)
        shown_at.append(side)
        assert browser.run("return app.view.data.boxes.length > 0")
    assert shown_at[-1] > shown_at[0]


def test_a_view_is_saved_as_png_with_pictures_over_http_only(browser: Browser, site: str) -> None:
    show(browser, site, "#/map/block2")
    settle(browser, "app.view.data.boxes && app.view.data.boxes.length")
    browser.run(
        "window.saved = []; HTMLAnchorElement.prototype.click = function () "
        "{ window.saved.push(this.href) };"
        "[...document.querySelectorAll('.tools button')].at(-1).click()"
    )
    sizes = browser.run("return window.saved.map((href) => [href.slice(0, 22), href.length])")
    assert isinstance(sizes, list)
    assert len(sizes) == 1
    assert sizes[0][0] == "data:image/png;base64,"
    assert sizes[0][1] > 10_000
    told = str(browser.run("return document.querySelector('.side').innerText"))
    assert ("Saved without pictures" in told) == site.startswith("file:")
    assert browser.complaints() == []
    browser.open("about:blank")


def test_two_runs_share_one_selection(browser: Browser, site: str) -> None:
    show(browser, site, "#/compare/block1/block2 in run")
    browser.run("app.view.reselect([3, 4, 5])")
    chosen = browser.run(
        "return app.view.linked.map((v) => v.data.selected.reduce((a, b) => a + b, 0))"
    )
    assert chosen == [3, 3]
    browser.run("app.view.reselect(null)")


def test_a_piece_that_does_not_load_is_named(browser: Browser, tmp_path: Path) -> None:
    run = MadeRun(tmp_path, ["a", "b"])
    run.add_images(1)
    write_report(str(tmp_path))
    (tmp_path / "report" / "data" / "images" / "000000.js").unlink()
    show(browser, (tmp_path / "report" / "index.html").as_uri(), "#/image//0")
    failed = browser.run("return document.getElementById('failed').innerText")
    assert "data/images/000000.js" in str(failed)
    browser.complaints()


def test_a_run_with_features_and_nothing_else_has_no_dead_link(
    browser: Browser, tmp_path: Path
) -> None:
    run = MadeRun(tmp_path, [None])
    run.add_images(2, predictions=False, rejects=False)
    run.add_features("block1")
    write_report(str(tmp_path))
    site = (tmp_path / "report" / "index.html").as_uri()
    waiting, seen = ["#/"], set[str]()
    while waiting and len(seen) < 60:
        route = waiting.pop()
        seen.add(route)
        show(browser, site, route)
        text = str(browser.run("return document.querySelector('main').innerText"))
        assert "Not in this report" not in text, route
        assert "could not be shown" not in text, route
        empty = (
            "[...document.querySelectorAll('section')].filter(s => s.children.length < 2).length"
        )
        assert browser.run(f"return {empty}") == 0, route
        found = browser.run("return [...document.querySelectorAll('a')].map(a => a.hash)")
        assert isinstance(found, list)
        waiting += [str(to) for to in set(found) - seen - {"#main"} if str(to) not in waiting]
    assert len(seen) == 18  # the overview, all images, and each of sixteen
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_serious(folder: Path, width: int, dark: bool) -> None:
    if shutil.which("chromedriver") is None:
        pytest.skip("chromedriver is not installed")
    site = (folder / "index.html").as_uri()
    with chromium(dark) as browser:
        browser.resize(width, 860)
        for route in [route for route in ROUTES if "/class/a" not in route]:
            show(browser, site, route)
            assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") == dark
            if browser.run("return typeof axe") == "undefined":
                browser.run(AXE.read_text() + "\nwindow.axe = axe;")
            found = browser.run(
                "return axe.run().then(r => r.violations.filter(v => /serious|critical/"
                ".test(v.impact)).map(v => v.id + ': ' + v.nodes[0].html + ' ' + "
                "v.nodes[0].failureSummary))"
            )
            assert found == [], route
            wide = "document.documentElement.scrollWidth <= innerWidth"
            assert browser.run(f"return {wide}"), route
