"""What the API's description shows of requests."""

import base64
from typing import Any

import numpy as np

from digit_client.arrays import to_png
from digit_serving.gateway.schemas import Images, Instances


def bodies() -> dict[str, Any]:
    """A one, in each of the ways that JSON has for it."""
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 13:15] = 255
    images: Images = {"images": [base64.b64encode(to_png(digit)).decode()]}
    instances: Instances = {"instances": [(digit.reshape(784) // 255).tolist()]}
    return {
        "file": {"summary": "An image file", "value": images},
        "pixels": {"summary": "The pixels", "value": instances},
    }
