"""gRPC client of TensorFlow Serving, with DigitClient's interface and without a gateway."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_client import _inputs
from digit_client import images as digit_images
from digit_client._exceptions import ImageError
from digit_client._inputs import ImageSource
from digit_client._retries import Deadline, Retrier, RetryPolicy
from digit_client._types import Prediction
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.model_server import ModelServer

_DEFAULT_TARGET = "127.0.0.1:8500"
_BATCH_SIZE = 256


class ModelServerClient:
    """Blocking gRPC client of TensorFlow Serving. Images are decoded and normalised in this process.

        with ModelServerClient("127.0.0.1:8500") as client:
            print(client.predict("five.png").digit)

    `target` is host:port or unix:path (default: DIGITS_MODEL_SERVER, or 127.0.0.1:8500), `name` the model's
    name. `timeout` in seconds bounds a call with all its retries. `credentials` from
    grpc.ssl_channel_credentials enable TLS. Images, results, errors and thread safety are those of
    DigitClient.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        name: str = "digits",
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 10.0,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._retrier = Retrier(retries or RetryPolicy())
        target = target or os.environ.get("DIGITS_MODEL_SERVER") or _DEFAULT_TARGET
        self._server = ModelServer(target, credentials)

    def predict(
        self, image: ImageSource, *, version: int | None = None, label: str | None = None
    ) -> Prediction:
        """Read the digit on one image. A version or label selects another model than the newest one."""
        batch = _normalise(image)[np.newaxis]
        return self._predict(batch, ModelRef(self.name, version, label), Deadline(self.timeout))[0]

    def predict_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Prediction]:
        """Read the digit on each image, in their order, 256 images a call."""
        deadline = Deadline(self.timeout)
        model = ModelRef(self.name, version, label)
        answers = (self._predict(batch, model, deadline) for batch in _batches(images))
        return [prediction for answer in answers for prediction in answer]

    def close(self) -> None:
        """Close the connection. A closed client can't be used again."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _predict(self, batch: Batch, model: ModelRef, deadline: Deadline) -> list[Prediction]:
        def send(timeout: float) -> list[Prediction]:
            return self._server.predict(batch, model, timeout=timeout)

        return self._retrier.run(send, deadline)


def _batches(images: Iterable[ImageSource]) -> Iterator[Batch]:
    numbered = enumerate(images)
    while batch := list(islice(numbered, _BATCH_SIZE)):
        yield np.stack([_normalise(image, index) for index, image in batch])


def _normalise(image: ImageSource, index: int | None = None) -> NDArray[np.uint8]:
    try:
        pixels = image if isinstance(image, np.ndarray) else digit_images.decode(_inputs.read_source(image))
        return digit_images.normalise(pixels)
    except ImageError as error:
        error.index = index
        raise
