"""Make docs/report-desktop.png, the picture of the README, from the report of a finished run.

Usage: python scripts/picture.py RUN_FOLDER     needs a Chromium on the path and the extra ``browser``

Left the top of the page, right its charts, as a window of 900 pixels shows them. The picture carries the verdict and the
command line of its run; the README names both, and a test compares them.
"""

import io
import json
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import sync_playwright

TARGET = Path(__file__).resolve().parents[1] / "docs" / "report-desktop.png"
WIDTH, HEIGHT = 900, 1240
COLOURS = 200  # fewer mix up the lines of the charts
LIMIT = 300_000  # bytes


def main(run: Path) -> None:
    """Write the picture."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto((run / "report" / "report.html").absolute().as_uri())
        halves = []
        for anchor in ("body", "#charts"):
            tab.evaluate("anchor => document.querySelector(anchor).scrollIntoView()", anchor)
            halves.append(Image.open(io.BytesIO(tab.screenshot())).convert("RGB"))
        browser.close()
    picture = Image.new("RGB", (2 * WIDTH, HEIGHT), "white")
    for place, half in enumerate(halves):
        picture.paste(half, (place * WIDTH, 0))
    picture.quantize(COLOURS).save(TARGET, optimize=True, pnginfo=origin(run))
    if TARGET.stat().st_size > LIMIT:
        raise SystemExit(f"{TARGET}: {TARGET.stat().st_size:,} bytes, at most {LIMIT:,}. Lower COLOURS.")


def origin(run: Path) -> PngInfo:
    """Return what the picture says of its run."""
    found = json.loads((run / "report" / "metrics.json").read_text(encoding="utf-8"))
    info = PngInfo()
    info.add_text("verdict", found["verdict"])
    info.add_text("command", dict(found["versions"])["command line"])
    return info


if __name__ == "__main__":
    main(Path(sys.argv[1]))
