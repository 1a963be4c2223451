"""Draw pictures of shapes, a folder for each class: stand-ins for pictures of your own.

python -m docs.examples.shapes.draw FOLDER
"""

import random
import sys
from math import cos, pi, sin
from pathlib import Path

from PIL import Image, ImageDraw

COUNTS = {"training": 250, "validation": 50, "sent": 200}
"""Pictures of each class. Those that users send are outlines, which the model has not seen."""
SIZES = (160, 200, 240)
"""Widths and heights of the pictures, in pixels."""


def main(folder: str) -> None:
    """Write `training`, `validation` and `sent`, each with a folder for each class."""
    rng = random.Random(0)  # noqa: S311
    for part, count in COUNTS.items():
        for name, corners in SHAPES.items():
            target = Path(folder, part, name)
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(corners, rng, is_filled=part != "sent").save(target / f"{number:03}.jpg", quality=90)


def draw(corners: list[tuple[float, float]], rng: random.Random, *, is_filled: bool) -> Image.Image:
    """Return a picture of the shape, corners in -1..1, turned, moved and coloured at random."""
    size = rng.choice(SIZES), rng.choice(SIZES)
    background, color = rng.sample(PALETTE, 2)
    # Twice the size, so that the downscaled edges are smooth.
    picture = Image.new("RGB", (2 * size[0], 2 * size[1]), background)
    radius = rng.uniform(0.5, 0.8) * min(size)
    x, y = (side + rng.uniform(-0.15, 0.15) * side for side in size)
    turn = rng.uniform(-0.4, 0.4)
    points = [
        (
            x + radius * (column * cos(turn) - row * sin(turn)),
            y + radius * (column * sin(turn) + row * cos(turn)),
        )
        for column, row in corners
    ]
    ImageDraw.Draw(picture).polygon(points, color if is_filled else None, color, width=int(radius / 24))
    return picture.resize(size)


def _regular(corners: int, depth: float = 1.0) -> list[tuple[float, float]]:
    """Return a regular polygon; every second corner has the distance `depth` from the centre."""
    return [
        (sin(2 * pi * k / corners) * radius, -cos(2 * pi * k / corners) * radius)
        for k, radius in enumerate((1.0, depth) * (corners // 2) if depth < 1 else (1.0,) * corners)
    ]


SHAPES = {
    "circle": _regular(60),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "star": _regular(10, depth=0.4),
    "triangle": _regular(3),
}
"""Outline of each class."""
PALETTE = ("#1d3557", "#e63946", "#f1faee", "#2a9d8f", "#e9c46a", "#6d597a", "#f4a261", "#264653")


if __name__ == "__main__":
    main(*sys.argv[1:])
