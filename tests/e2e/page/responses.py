"""Responses of the service in place of its own."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from playwright.sync_api import Page

from digit_core.images import to_png

DOUBTFUL = (0.0, 0.2, 0.0, 0.45, 0.0, 0.0, 0.0, 0.0, 0.35, 0.0)
"""Probabilities of each digit, of which 3 is the most probable."""
IMAGE = base64.b64encode(to_png(np.zeros((28, 28), np.uint8))).decode()
MODEL = {"name": "digits", "version": 1, "labels": list("0123456789")}


def respond_with_lines(
    page: Page, *lines: str, probabilities: Sequence[float] = (0.1,) * 10, is_digit: float = 0.95
) -> None:
    """Answer each picture with these lines of digits, all of the same probabilities."""
    document = reading_of(*lines, probabilities=probabilities, is_digit=is_digit)
    page.route("**/v1/read*", lambda route: route.fulfill(json=document))


def respond_with_refusal(page: Page) -> None:
    """Read nothing in each picture, and refuse it as a digit."""
    respond_with_lines(page)
    refused = {"label": None, "digit": None, "index": 3, "confidence": 0.45, "is_digit": 0.1}
    prediction = refused | {"refusal": "no_digit", "probabilities": DOUBTFUL, "image": IMAGE}
    document = {"model": MODEL, "predictions": [prediction], "request_id": "refused"}
    page.route("**/v1/predict*", lambda route: route.fulfill(json=document))


def reading_of(
    *lines: str,
    probabilities: Sequence[float] = (0.1,) * 10,
    is_digit: float = 0.95,
    reader: str = "",
    alone: str = "",
) -> dict[str, Any]:
    """Return the document of a reading, whose digits have boxes of 16×40 pixels.

    With `reader` and `alone`, what the reader and the classifier take the digits of the one line for, each
    digit has both opinions.
    """

    def opinion(digit: str) -> dict[str, Any]:
        return {"digit": int(digit), "confidence": 0.8, "probabilities": [0.02] * 10}

    opinions = [
        {"opinions": {"reader": opinion(seen), "classifier": opinion(own)}}
        for seen, own in zip(reader, alone, strict=True)
    ]
    documents = [
        {
            "text": line,
            "digits": [
                {
                    "digit": int(digit),
                    "confidence": max(probabilities),
                    "probabilities": probabilities,
                    "is_digit": is_digit,
                    **(opinions[column] if opinions else {}),
                    "box": [20 + 24 * column, 40 + 60 * row, 16, 40],
                    "image": IMAGE,
                }
                for column, digit in enumerate(line)
            ],
        }
        for row, line in enumerate(lines)
    ]
    reading = {"text": "\n".join(lines), "lines": documents, "refusal": None if lines else "no_digit"}
    return {"model": MODEL, "readings": [reading], "request_id": f"reading-of-{'-'.join(lines)}"}
