"""Connections to a model server over gRPC, asyncio and blocking."""

import asyncio
import logging
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.backends import ASYNCIO, BLOCKING, Backend, run
from digit_core.errors import ModelNotFoundError, ServiceError
from digit_core.reading.peaks import Peaks
from digit_core.results import Answer
from digit_core.tfserving import calls, codec
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import Batch, ModelRef
from digit_core.tfserving.protos import GetModelMetadataRequest, GetModelStatusRequest

_logger = logging.getLogger("digit_client")

_CLOSE_SECONDS = 60.0
"""Time for the calls in flight on a channel that was replaced."""

_Result = TypeVar("_Result")

_KNOWN_SECONDS = 2.0
"""Age of a known card after which an answer is checked: to publish a number again takes longer."""


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """Version that a reference named when it was last asked, with the version's task card and network."""

    model: ModelRef
    """Reference that calls use; the label in it may move to another version."""
    version: int
    card: TaskCard = field(compare=False)
    network: codec.Network | None = field(compare=False)
    identity: int = 0
    """Checksum of the card, which differs if the number was removed and published again."""
    asked_at: float = field(compare=False, default=0.0)
    """Monotonic time at which the model server last gave the card."""

    def pinned(self, version: int) -> "ServedVersion":
        """Return a version with the same card, by its number."""
        return replace(self, model=ModelRef(self.model.name, version), version=version)


class AsyncConnection:
    """Connection to the model server at `target` (host:port or unix:path), for coroutines of the backend.

    Calls are spread over all addresses of the target's name. A call that a server refuses because its threads
    are all busy is sent once more, to the next address. A name is resolved again each second while none of
    its addresses can be reached. `deadline`, a time of the monotonic clock, bounds a call with all its
    retries. Every failure is a DigitError.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        backend: Backend = ASYNCIO,
    ) -> None:
        self.target = target
        self._credentials, self._backend = credentials, backend
        self._replacing = set[asyncio.Task[None]]()
        self._connect()
        self.known: dict[ModelRef, ServedVersion] = {}
        """Version that each reference named in the latest answer."""

    def _connect(self) -> None:
        api = grpc.aio if self._backend is ASYNCIO else grpc
        self._use(calls.connect(self.target, self._credentials, api))

    def _use(self, channel: Any) -> None:
        self._channel, self._connected_at = channel, time.monotonic()
        self._stub = calls.Stub(channel, self._backend.awaitable)

    def _replace(self) -> None:
        """Replace the channel by one that resolves the name anew; calls in flight on the old one may end."""
        if self._backend is ASYNCIO:
            self._connected_at = time.monotonic()
            replacing = asyncio.create_task(self._replace_once_ready())
            self._replacing.add(replacing)
            replacing.add_done_callback(self._replacing.discard)
        else:
            # The old channel closes once its last call has ended.
            self._connect()

    async def _replace_once_ready(self) -> None:
        """Replace the channel once the new one is connected; until then, calls on the old fail at once."""
        new, old = calls.connect(self.target, self._credentials, grpc.aio), self._channel
        try:
            async with asyncio.timeout(calls.REPLACE_SECONDS):
                await new.channel_ready()
        except TimeoutError:
            await new.close()
            return
        self._use(new)
        await old.close(_CLOSE_SECONDS)

    async def served(self, model: ModelRef, *, deadline: float) -> ServedVersion:
        """Return the version that is known of the reference, or ask for it."""
        return self.known.get(model) or await self._ask_version(model, deadline)

    async def _ask_version(self, model: ModelRef, deadline: float) -> ServedVersion:
        request, asked_at = codec.encode_card_request(model), time.monotonic()
        if response := await self._ask_signature(request, deadline):
            card = _decoded("task card from the model server", codec.decode_card, response)
            version, network = codec.version_of(response), codec.decode_network(response)
            identity = zlib.crc32(response.outputs[codec.CARD_OUTPUT].string_val[0])
        else:
            version, card, network = await self.resolve(model, deadline=deadline), DIGITS, None
            identity = 0
        self.known[model] = served = ServedVersion(model, version, card, network, identity, asked_at)
        return served

    async def predict(
        self,
        batch: Batch,
        served: ServedVersion,
        *,
        deadline: float,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> list[Answer] | ServedVersion:
        """Return the answers to the n images of the batch, prepared for `served`, in their order.

        Return the version that has to be asked instead if the reference names one with another card by now.
        `request_id` and `trace` (W3C trace context headers) are sent as metadata.
        """
        started, model = time.monotonic(), served.model
        metadata = _metadata(request_id, trace)
        try:
            response = await self._call(self._stub.predict, codec.encode(batch, model), deadline, metadata)
        except ModelNotFoundError:
            self.known.pop(model, None)
            raise
        except ServiceError as error:
            # The label may have moved to a version of another shape, which refuses the batch.
            if error.reason == grpc.StatusCode.INVALID_ARGUMENT.name:
                self.known.pop(model, None)
                current = await self.served(model, deadline=deadline)
                if current != served or current.card != served.card:
                    return current.pinned(current.version)
            raise
        answered = codec.version_of(response)
        _logger.debug(
            "%s: Predict of %d images by %s, version %d in %.1f ms (request %s)",
            self.target,
            len(batch),
            model.name,
            answered,
            1000 * (time.monotonic() - started),
            request_id,
        )
        if answered != served.version:
            current = await self.served(ModelRef(model.name, answered), deadline=deadline)
            self.known[model] = replace(current, model=model)
            if current.card != served.card:
                return current
        elif started - (self.known.get(model) or served).asked_at > _KNOWN_SECONDS:
            # Other calls use what is known meanwhile.
            self.known[model] = replace(served, model=model, asked_at=time.monotonic())
            current = await self._ask_version(model, deadline)
            if current.card != served.card:
                return current.pinned(current.version)
        predictions = _decoded("answer from the model server", codec.decode, response, served.card)
        if len(predictions) != len(batch):
            raise ServiceError(f"the model server gave {len(predictions)} answers for {len(batch)} images")
        return predictions

    async def find(
        self, page: NDArray[np.uint8], model: ModelRef, *, deadline: float, request_id: str | None = None
    ) -> Peaks:
        """Return what the reader `model` finds on a grey page, uint8 [h, w].

        Raise ModelNotFoundError if there is no reader.
        """
        request, metadata = codec.encode_page(page, model), _metadata(request_id)
        response = await self._call(self._stub.predict, request, deadline, metadata)
        return _decoded("answer from the reader", codec.decode_peaks, response)

    async def layers(
        self, pixels: NDArray[np.uint8], model: ModelRef, *, deadline: float
    ) -> list[codec.LayerValues]:
        """Return the values of each layer for a picture, uint8 [*shape]; [] if the version has none."""
        inputs = pixels[np.newaxis]
        request = codec.encode_input(inputs, codec.IMAGES_INPUT, codec.LAYERS_SIGNATURE, model)
        response = await self._ask_signature(request, deadline)
        return _decoded("answer with layers", codec.decode_layers, response) if response else []

    async def versions(self, model: ModelRef, *, deadline: float) -> list[VersionStatus]:
        """Return the status of every version of the model, newest first."""
        request = GetModelStatusRequest(model_spec=codec.model_spec(model))
        return calls.to_statuses(await self._call(self._stub.status, request, deadline))

    async def resolve(self, model: ModelRef, *, deadline: float) -> int:
        """Return the version that the reference names now. Raise ModelNotFoundError if there is none."""
        spec = codec.model_spec(model)
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        return codec.version_of(await self._call(self._stub.metadata, request, deadline))

    async def close(self) -> None:
        """Close the connection; calls in flight fail."""
        for replacing in self._replacing:
            replacing.cancel()
        await self._backend.awaitable(self._channel.close)()

    async def _ask_signature(self, request: Any, deadline: float) -> Any:
        """Return the response of a signature, or None if the version has no such signature."""
        try:
            return await self._call(self._stub.predict, request, deadline)
        except ServiceError as error:
            if not calls.lacks_signature(error):
                raise
            return None

    async def _call(
        self, method: Any, request: object, deadline: float, metadata: calls.Metadata = (), attempts: int = 2
    ) -> Any:
        try:
            return await method(request, timeout=deadline - time.monotonic(), metadata=metadata)
        except grpc.RpcError as error:
            has_aged = time.monotonic() >= self._connected_at + calls.REPLACE_SECONDS
            if has_aged and calls.is_unreachable(error):
                self._replace()
            if attempts == 1 or not calls.is_refused(error):
                raise calls.translate(error, self.target) from error
        await self._backend.sleep(random.uniform(0, calls.MAX_REFUSED_BACKOFF))  # noqa: S311
        return await self._call(method, request, deadline, metadata, attempts - 1)


class Connection:
    """Blocking connection, with methods of AsyncConnection that take a timeout in seconds."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._connection = AsyncConnection(target, credentials, BLOCKING)

    def served(self, model: ModelRef, *, timeout: float) -> ServedVersion:
        """Return the version that the reference named at the first call for it."""
        return run(self._connection.served(model, deadline=time.monotonic() + timeout))

    def versions(self, model: ModelRef, *, timeout: float) -> list[VersionStatus]:
        """Return the status of every version of the model, newest first."""
        return run(self._connection.versions(model, deadline=time.monotonic() + timeout))

    def resolve(self, model: ModelRef, *, timeout: float) -> int:
        """Return the version that the reference names now. Raise ModelNotFoundError if there is none."""
        return run(self._connection.resolve(model, deadline=time.monotonic() + timeout))

    def close(self) -> None:
        """Close the connection; calls in flight fail."""
        run(self._connection.close())


def _decoded(name: str, decode: Callable[..., _Result], *arguments: Any) -> _Result:
    """Return what `decode` makes of a response. Raise ServiceError if the response is unusable."""
    try:
        return decode(*arguments)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"the {name} is unusable: {error}") from error


def _metadata(request_id: str | None, trace: Mapping[str, str] | None = None) -> calls.Metadata:
    return (*((("x-request-id", request_id),) if request_id else ()), *(trace or {}).items())
