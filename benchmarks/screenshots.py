"""The README's two pictures of a report: a map and a channel.

    PYTHONPATH=. python benchmarks/screenshots.py RUN --layer features.12 --channel 5

The report of the run must be written (cnnvis report RUN). Needs Debian's chromium and
chromium-driver.
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from tests.report.browsers import Chromium, chromium, settle

SIZE = (1440, 900)
PAGES = {"explorer-map": "#/map/{layer}", "explorer-channel": "#/channel/{layer}/{channel}"}
QUIET_SECONDS = 1.5  # sheets are decoded after the page is there


def take(browser: Chromium, route: str, path: Path) -> None:
    """Open a page and save what is seen, with a palette: half the bytes of full colour."""
    browser.run("document.body.dataset.shown = ''; location.hash = arguments[0]", route)
    settle(browser, "document.body.dataset.shown === location.hash")
    settle(browser, "document.getElementById('bar').hidden")
    wait = f"return new Promise(done => setTimeout(() => done(1), {1000 * QUIET_SECONDS:g}))"
    browser.run(wait)
    browser.screenshot(path)
    with Image.open(io.BytesIO(path.read_bytes())) as opened:
        opened.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--layer", required=True)
    parser.add_argument("--channel", type=int, default=0)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    page = (options.run / "report" / "index.html").absolute().as_uri()
    with chromium(options.dark) as browser:
        browser.resize(*SIZE)
        browser.open(page)
        settle(browser, "document.body.dataset.shown")
        for name, route in PAGES.items():
            address = route.format(layer=options.layer, channel=options.channel)
            take(browser, address, options.out / f"{name}.png")


if __name__ == "__main__":
    main()
