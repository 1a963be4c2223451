"""Connections to a model server over gRPC, asyncio and blocking."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.backends import ASYNCIO, BLOCKING, Backend, run
from digit_core.errors import ServiceError
from digit_core.peaks import Peaks
from digit_core.results import Prediction
from digit_core.tfserving import calls, codec
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import Batch, ModelRef
from digit_core.tfserving.protos import GetModelMetadataRequest, GetModelStatusRequest

_logger = logging.getLogger("digit_client")

_Result = TypeVar("_Result")
_Card = tuple[int, TaskCard, codec.Network | None]
"""Version that gave a task card, the card, and the version's network."""


class AsyncConnection:
    """Connection to the model server at `target` (host:port or unix:path), for coroutines of the backend.

    Calls are spread over all addresses of the target's name. A call that a server refuses because its threads
    are all busy is sent once more, to the next address. `timeout` in seconds bounds a call with all its
    retries. A task card is read at the first call for a version or a label, and again when another version
    answers. Every failure is a DigitError.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        backend: Backend = ASYNCIO,
    ) -> None:
        self.target = target
        self._backend = backend
        self._channel = calls.connect(target, credentials, grpc.aio if backend is ASYNCIO else grpc)
        self._stub = calls.Stub(self._channel, backend.awaitable)
        self._cards: dict[ModelRef, _Card] = {}

    async def predict(
        self,
        batch: Batch,
        model: ModelRef,
        *,
        timeout: float,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> list[Prediction]:
        """Return the predictions for the n images of the batch, in their order.

        `request_id` and `trace` (W3C trace context headers) are sent as metadata.
        """
        started = time.monotonic()
        end = started + timeout
        version, task, _ = await self._card(model, end)
        metadata = _metadata(request_id, trace)
        try:
            response = await self._call(self._stub.predict, codec.encode(batch, model), end, metadata)
        except ServiceError as error:
            # A version of another shape may have got the label, and refuses the batch.
            if error.reason == grpc.StatusCode.INVALID_ARGUMENT.name:
                self._cards.pop(model, None)
            raise
        answered = int(response.model_spec.version.value)
        _logger.debug(
            "%s: Predict of %d images by %s, version %d in %.1f ms (request %s)",
            self.target,
            len(batch),
            model.name,
            answered,
            1000 * (time.monotonic() - started),
            request_id,
        )
        if answered != version:
            # Another version has got the label.
            version, task, _ = self._cards[model] = await self._card(ModelRef(model.name, answered), end)
        predictions = _decoded("answer from the model server", codec.decode, response, task)
        if len(predictions) != len(batch):
            raise ServiceError(f"the model server gave {len(predictions)} answers for {len(batch)} images")
        return predictions

    async def find(
        self, page: NDArray[np.uint8], model: ModelRef, *, timeout: float, request_id: str | None = None
    ) -> Peaks:
        """Return what the reader `model` finds on a grey page, uint8 [h, w].

        Raise ModelNotFoundError if there is no reader.
        """
        request, metadata = codec.encode_page(page, model), _metadata(request_id)
        response = await self._call(self._stub.predict, request, time.monotonic() + timeout, metadata)
        return _decoded("answer from the reader", codec.decode_peaks, response)

    def known_task(self, model: ModelRef) -> TaskCard | None:
        """Return the task card of the reference, None before it has been read."""
        known = self._cards.get(model)
        return known and known[1]

    async def task(self, model: ModelRef, *, timeout: float) -> TaskCard:
        """Return the task card of the version that the reference names, which the first call reads."""
        return (await self._card(model, time.monotonic() + timeout))[1]

    async def network(self, model: ModelRef, *, timeout: float) -> codec.Network | None:
        """Return name and test accuracy of a version's network, or None if it does not say them."""
        return (await self._card(model, time.monotonic() + timeout))[2]

    async def layers(
        self, pixels: NDArray[np.uint8], model: ModelRef, *, timeout: float
    ) -> list[tuple[str, NDArray[np.float32]]]:
        """Return the activations of each layer for a picture, uint8 [*shape]; [] if the version has none."""
        inputs = pixels[np.newaxis]
        request = codec.encode_input(inputs, codec.IMAGES_INPUT, codec.LAYERS_SIGNATURE, model)
        response = await self._ask_signature(request, time.monotonic() + timeout)
        return _decoded("layers", codec.decode_layers, response) if response else []

    async def versions(self, model: ModelRef, *, timeout: float) -> list[VersionStatus]:
        """Return the status of every version of the model, newest first."""
        request = GetModelStatusRequest(model_spec=codec.model_spec(model))
        response = await self._call(self._stub.status, request, time.monotonic() + timeout)
        return calls.to_statuses(response)

    async def resolve(self, model: ModelRef, *, timeout: float) -> int:
        """Return the version that the reference resolves to. Raise ModelNotFoundError if there is none."""
        spec = codec.model_spec(model)
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        return codec.version_of(await self._call(self._stub.metadata, request, time.monotonic() + timeout))

    async def close(self) -> None:
        """Close the connection; calls in flight fail."""
        await self._backend.awaitable(self._channel.close)()

    async def _card(self, model: ModelRef, end: float) -> _Card:
        if known := self._cards.get(model):
            return known
        if response := await self._ask_signature(codec.encode_card_request(model), end):
            task = _decoded("task card from the model server", codec.decode_card, response)
            card = codec.version_of(response), task, codec.decode_network(response)
        else:
            card = await self.resolve(model, timeout=end - time.monotonic()), DIGITS, None
        self._cards[model] = card
        return card

    async def _ask_signature(self, request: Any, end: float) -> Any:
        """Return the response of a signature, or None if the version has no such signature."""
        try:
            return await self._call(self._stub.predict, request, end)
        except ServiceError as error:
            if not calls.lacks_signature(error):
                raise
            return None

    async def _call(
        self, method: Any, request: object, end: float, metadata: calls.Metadata = (), attempts: int = 2
    ) -> Any:
        """Return the answer to a call that ends at the time `end` of the monotonic clock."""
        try:
            return await method(request, timeout=end - time.monotonic(), metadata=metadata)
        except grpc.RpcError as error:
            if attempts == 1 or not calls.is_refused(error):
                raise calls.translate(error, self.target) from error
        await self._backend.sleep(random.uniform(0, calls.MAX_REFUSED_BACKOFF))  # noqa: S311
        return await self._call(method, request, end, metadata, attempts - 1)


class Connection:
    """Blocking connection, with these methods of AsyncConnection."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._connection = AsyncConnection(target, credentials, BLOCKING)

    def predict(self, batch: Batch, model: ModelRef, *, timeout: float) -> list[Prediction]:
        """Return the predictions for the n images of the batch, in their order."""
        return run(self._connection.predict(batch, model, timeout=timeout))

    def task(self, model: ModelRef, *, timeout: float) -> TaskCard:
        """Return the task card of the version that the reference names."""
        return run(self._connection.task(model, timeout=timeout))

    def versions(self, model: ModelRef, *, timeout: float) -> list[VersionStatus]:
        """Return the status of every version of the model, newest first."""
        return run(self._connection.versions(model, timeout=timeout))

    def resolve(self, model: ModelRef, *, timeout: float) -> int:
        """Return the version that the reference resolves to. Raise ModelNotFoundError if there is none."""
        return run(self._connection.resolve(model, timeout=timeout))

    def close(self) -> None:
        """Close the connection; calls in flight fail."""
        run(self._connection.close())


def _decoded(name: str, decode: Callable[..., _Result], *arguments: Any) -> _Result:
    """Return what `decode` makes of a response. Raise ServiceError that names an unusable one."""
    try:
        return decode(*arguments)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"unusable {name}: {error}") from error


def _metadata(request_id: str | None, trace: Mapping[str, str] | None = None) -> calls.Metadata:
    return (*((("x-request-id", request_id),) if request_id else ()), *(trace or {}).items())
