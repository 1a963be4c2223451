"""Connection to a model server over gRPC."""

import time
from collections.abc import Mapping
from typing import Any

import grpc

from digit_client._exceptions import ServiceError
from digit_client._synchronization import async_sleep
from digit_client._types import Prediction
from digit_client.artifact.task_card import TaskCard
from digit_client.tfserving import calls, codec
from digit_client.tfserving.calls import VersionStatus
from digit_client.tfserving.channel import connect_async
from digit_client.tfserving.codec import Batch, ModelRef


class AsyncConnection:
    """asyncio connection to the model server at `target` (host:port or unix:path).

    Calls are spread over all addresses of the target's name. A call that a server refuses because its threads
    are all busy is sent once more, to the next address. `timeout` in seconds bounds a call with all its
    retries. A model's name has one task, read once. Every failure is a DigitError.
    """

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.target = target
        self._channel = connect_async(target, credentials)
        self._stub = calls.Stub(self._channel)
        self._tasks: dict[str, TaskCard] = {}

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
        task = await self.task(model, timeout=timeout)
        left = started + timeout - time.monotonic()
        metadata = calls.metadata(request_id, trace or {})
        response = await self._call(self._stub.predict, codec.encode(batch, model), left, metadata)
        answered = ModelRef(model.name, codec.version_of(response))
        calls.log_predict(self.target, answered, len(batch), started, request_id)
        return calls.to_predictions(response, len(batch), task)

    def known_task(self, name: str) -> TaskCard | None:
        """Return the task card of the model of this name, None before it has been read."""
        return self._tasks.get(name)

    async def task(self, model: ModelRef, *, timeout: float) -> TaskCard:
        """Return the model's task card, which the first call reads."""
        if (known := self._tasks.get(model.name)) is None:
            known = self._tasks[model.name] = await self._read_task(model, timeout)
        return known

    async def versions(self, model: ModelRef, *, timeout: float) -> list[VersionStatus]:
        """Return the status of every version of the model, newest first."""
        return calls.to_statuses(await self._call(self._stub.status, calls.status_request(model), timeout))

    async def resolve(self, model: ModelRef, *, timeout: float) -> int:
        """Return the version that the reference resolves to. Raise ModelNotFoundError if there is none."""
        return calls.to_version(await self._call(self._stub.metadata, calls.metadata_request(model), timeout))

    async def close(self) -> None:
        """Close the connection; calls in flight fail."""
        await self._channel.close()

    async def _read_task(self, model: ModelRef, timeout: float) -> TaskCard:
        try:
            response = await self._call(self._stub.predict, codec.encode_card_request(model), timeout)
        except ServiceError as error:
            return calls.task_without_card(error)
        return calls.to_task(response)

    async def _call(
        self, method: Any, request: object, timeout: float, metadata: calls.Metadata = (), attempts: int = 2
    ) -> Any:
        started = time.monotonic()
        try:
            return await method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            if attempts == 1 or not calls.is_refused(error):
                raise calls.translate(error, self.target) from error
        await async_sleep(calls.refused_backoff())
        left = started + timeout - time.monotonic()
        return await self._call(method, request, left, metadata, attempts - 1)
