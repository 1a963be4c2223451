"""Responses of /v1/read in place of the service's."""

import base64
import json
from collections.abc import Sequence

import numpy as np
from playwright.sync_api import Page

from digit_client.images import to_png


def respond_with_lines(page: Page, *lines: str, probabilities: Sequence[float] = (0.1,) * 10) -> None:
    """Answer each picture with these lines of digits, all of the same probabilities."""
    image = base64.b64encode(to_png(np.zeros((28, 28), np.uint8))).decode()
    documents = [
        {
            "text": line,
            "digits": [
                {
                    "digit": int(digit),
                    "probabilities": probabilities,
                    "box": [20 + 24 * column, 40 + 60 * row, 16, 40],
                    "image": image,
                }
                for column, digit in enumerate(line)
            ],
        }
        for row, line in enumerate(lines)
    ]
    reading = {"text": "\n".join(lines), "lines": documents}
    model = {"version": 1, "labels": list("0123456789")}
    body = json.dumps({"model": model, "readings": [reading], "request_id": f"reading-of-{'-'.join(lines)}"})
    page.route("**/v1/read*", lambda route: route.fulfill(body=body, content_type="application/json"))


def respond_with_problem(page: Page, code: str, detail: str) -> None:
    """Refuse each picture with status 422 and these problem details."""
    body = json.dumps({"status": 422, "code": code, "detail": detail})
    page.route(
        "**/v1/read*",
        lambda route: route.fulfill(status=422, body=body, content_type="application/problem+json"),
    )
