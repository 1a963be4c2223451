"""Asks what Fashion-MNIST's test images show: the gateway, and the model server itself.

python -m docs.examples.fashion.ask
"""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from digit_client import DigitClient, ModelServerClient, Prediction
from docs.examples.fashion import garments


def main() -> None:
    """Print some answers, and how many were right."""
    images, labels = garments.to_test()
    with DigitClient(timeout=60) as gateway, ModelServerClient(timeout=60) as model_server:
        answers = gateway.predict_many(images)
        others = model_server.predict_many(images)
    for answer, label in zip(answers[:8], labels, strict=False):
        name, truth = garments.NAMES[answer.digit], garments.NAMES[label]
        sys.stdout.write(
            f"{name:10} {answer.confidence:6.1%}  {'right' if name == truth else f'a {truth}'}\n"
        )
    sys.stdout.write(f"Over HTTP {_right(answers, labels):,} of {len(labels):,} are right\n")
    sys.stdout.write(f"Over gRPC {_right(others, labels):,} of {len(labels):,} are right\n")


def _right(answers: Sequence[Prediction], labels: NDArray[np.uint8]) -> int:
    return sum(answer.digit == label for answer, label in zip(answers, labels, strict=True))


if __name__ == "__main__":
    main()
