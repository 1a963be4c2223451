"""Classify Fashion-MNIST's test images through the gateway, and through the model server alone.

python -m docs.examples.fashion.ask
"""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from digit_client import DigitClient, ModelServerClient, Prediction
from docs.examples.fashion import garments


def main() -> None:
    """Print eight answers, and the number of correct ones."""
    images, labels = garments.test_set()
    with DigitClient(timeout=60) as gateway, ModelServerClient(timeout=60) as model_server:
        over_http = gateway.predict_many(images)
        over_grpc = model_server.predict_many(images)
    for answer, label in zip(over_http[:8], labels, strict=False):
        name, truth = garments.NAMES[answer.digit], garments.NAMES[label]
        sys.stdout.write(
            f"{name:10} {answer.confidence:6.1%}  {'right' if name == truth else f'a {truth}'}\n"
        )
    sys.stdout.write(f"Over HTTP {_count_correct(over_http, labels):,} of {len(labels):,} are right\n")
    sys.stdout.write(f"Over gRPC {_count_correct(over_grpc, labels):,} of {len(labels):,} are right\n")


def _count_correct(answers: Sequence[Prediction], labels: NDArray[np.uint8]) -> int:
    return sum(answer.digit == label for answer, label in zip(answers, labels, strict=True))


if __name__ == "__main__":
    main()
