"""Pictures of docs, drawn anew from a running service and the newest report: python -m docs.pictures."""

import io
import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from digit_client import Client

DOCS = Path(__file__).parent
MARK = DOCS.parent / "serving/digit_serving/gateway/static/icon.svg"
URL = os.environ.get("DIGITS_URL", "http://localhost:8080")


def draw_page(browser: Browser) -> None:
    """Show the gateway's page after it has read a photo."""
    page = browser.new_page(viewport={"width": 1100, "height": 820}, device_scale_factor=1.5)
    page.goto(URL)
    page.get_by_label("Example: photo").click()
    page.get_by_label("Compare with version").select_option("none")
    page.locator(".reading label").nth(1).click()
    page.wait_for_timeout(1000)
    page.screenshot(path=DOCS / "page.jpg", type="jpeg", quality=85)


def draw_report(browser: Browser) -> None:
    """Show the saliency maps and the confusion matrix of the newest report in `runs`."""
    report = max(Path("runs").glob("*/report.html"), key=os.path.getmtime)
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.goto(report.absolute().as_uri())
    page.add_style_tag(content="body > :not(#saliency, #confusion) { display: none }")
    page.locator("body").screenshot(path=DOCS / "report.png")


def draw_card(browser: Browser) -> None:
    """Show the mark and the name, for links to the site in messages and on other sites (`og:image`)."""
    page = browser.new_page(viewport={"width": 1200, "height": 630})
    page.set_content(
        "<style>body { display: grid; grid: 100vh / auto auto; place-content: center; align-items: center;"
        " gap: 56px; margin: 0; background: #f6f4ef; color: #1a2130; font: 600 160px system-ui }"
        " svg { width: 260px }</style>"
        f"{MARK.read_text()}Digits"
    )
    page.screenshot(path=DOCS / "card.png")


def draw_reading() -> None:
    """Plot a photo, what the network gets of it, and its answer."""
    with Client(URL) as client:
        prediction = client.predict(DOCS / "five.jpg", include="image")
    assert prediction.image
    figure, (photo, pixels, answer) = plt.subplots(
        1, 3, figsize=(11.5, 3.2), layout="constrained", width_ratios=(4, 3, 4)
    )
    photo.imshow(Image.open(DOCS / "five.jpg"))
    photo.set_title("the photo")
    pixels.imshow(Image.open(io.BytesIO(prediction.image)), cmap="gray")
    pixels.set_title("what the network sees: 28×28")
    for axes in (photo, pixels):
        axes.set(xticks=[], yticks=[])
    answer.barh(np.arange(10), prediction.probabilities, color="#2457c5")
    answer.set(yticks=np.arange(10), xlim=(0, 1), xlabel="probability")
    answer.set_title(f"the answer: {prediction.digit} ({prediction.confidence:.1%})")
    answer.invert_yaxis()
    answer.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "reading.png", dpi=100)


if __name__ == "__main__":
    draw_reading()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome")
        )
        for draw in (draw_page, draw_report, draw_card):
            draw(chromium)
        chromium.close()
