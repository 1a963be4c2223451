"""Accessibility of a view: axe-core's rules in both colour schemes, and no overflow at any width."""

from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

VIEWS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((320, "dark"), (768, "light"), (1440, "dark"))
"""Widths of the viewport in pixels, and colour schemes."""

# True if the focused element, or its parent in place of a hidden input, has an outline.
HAS_FOCUS_OUTLINE = """[document.activeElement, document.activeElement.parentElement]
  .some((element) => getComputedStyle(element).outlineStyle === "solid")"""


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """Return axe-core's serious and critical violations: the rule and the elements that break it."""
    results = Axe().run(page).response["violations"]
    return [
        (result["id"], [node["html"] for node in result["nodes"]])
        for result in results
        if result["impact"] in ("serious", "critical")
    ]


def assert_accessible(page: Page) -> None:
    """Assert that the view breaks no rule and has no overflow at any width and colour scheme."""
    for width, scheme in VIEWS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert violations(page) == [], (width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
