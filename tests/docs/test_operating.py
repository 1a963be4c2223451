"""docs/operating.md tells of every metric, and of every reason to refuse an image."""

import re
from pathlib import Path

from digit_client import ImageError
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop

TEXT = (Path(__file__).parent.parent.parent / "docs" / "operating.md").read_text()


def test_every_metric_is_told() -> None:
    there = set(
        re.findall(r"^# TYPE (\w+)", greenlet_loop.client(Settings()).get("/metrics").text, re.MULTILINE)
    )
    # prometheus_client's own, which the processes of a real gateway don't tell.
    created = {name for name in there if name.endswith("_created")}
    assert set(re.findall(r"^\| `(digits_\w+)`", TEXT, re.MULTILINE)) == there - created


def test_every_reason_to_refuse_an_image_is_told() -> None:
    (row,) = re.findall(r"^\| `digits_images_refused_total`.*", TEXT, re.MULTILINE)
    assert {error.code for error in ImageError.__subclasses__()} <= set(re.findall(r"`(\w+)`", row))
