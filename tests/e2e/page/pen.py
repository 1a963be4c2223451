"""Handwritten digits as pen strokes, and a mouse that draws them."""

from playwright.sync_api import Page

Stroke = list[tuple[float, float]]
"""Points of a stroke: x and y as fractions of the canvas's width."""

# Polylines of each digit: "x,y" pairs in hundredths of the canvas's width.
POLYLINES = {
    0: ["54,20 42,23 34,36 31,53 35,70 46,80 57,78 66,66 69,48 65,31 55,20"],
    1: ["51,18 51,33 50,50 50,66 49,83"],
    2: ["34,32 40,21 52,18 63,25 64,38 55,53 43,67 32,80 47,80 70,79"],
    3: ["34,23 46,18 59,22 62,34 54,44 46,47 57,50 66,60 64,74 52,82 35,79"],
    4: ["40,19 36,36 31,53 45,54 58,54 70,53", "61,30 60,48 59,66 59,84"],
    5: ["41,21 39,34 38,46 50,44 62,50 66,63 60,76 48,81 34,78", "41,21 67,19"],
    6: ["58,18 47,31 38,46 34,62 39,76 51,81 62,74 63,62 54,55 43,58 36,67"],
    7: ["32,22 45,21 58,20 68,20 61,36 54,52 48,67 43,83"],
    8: ["60,26 50,19 40,24 41,35 50,44 61,54 64,68 55,79 43,78 36,67", "36,67 41,55 51,45 60,35 60,26"],
    9: ["63,27 53,19 41,24 38,36 45,44 56,42 63,32 64,25 63,47 61,65 57,83"],
}


def _parse(polyline: str) -> Stroke:
    pairs = (pair.split(",") for pair in polyline.split())
    return [(int(x) / 100, int(y) / 100) for x, y in pairs]


STROKES = {digit: [_parse(polyline) for polyline in polylines] for digit, polylines in POLYLINES.items()}


def draw(page: Page, digit: int) -> None:
    """Draw the digit with the mouse."""
    for stroke in STROKES[digit]:
        draw_without_release(page, stroke)
        page.mouse.up()


def write(page: Page, number: str) -> None:
    """Write the digits of the number side by side with the mouse, each at half the size of `draw`."""
    for place, digit in enumerate(number):
        for stroke in STROKES[int(digit)]:
            draw_without_release(page, [(x / 2 + 0.4 * place, y / 2 + 0.25) for x, y in stroke])
            page.mouse.up()


def draw_without_release(page: Page, stroke: Stroke) -> None:
    """Draw the stroke and keep the mouse button down."""
    for index, (x, y) in enumerate(to_viewport(page, stroke)):
        page.mouse.move(x, y, steps=3)
        if index == 0:
            page.mouse.down()


def to_viewport(page: Page, stroke: Stroke) -> Stroke:
    """Return the stroke in pixels of the viewport."""
    box = page.locator("#drawing").bounding_box()
    assert box
    return [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in stroke]
