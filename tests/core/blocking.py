"""asyncio clients with blocking methods, so that a test covers both clients."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Self


class BlockingAsync:
    """Object of an asyncio class whose coroutines and generators run in an event loop of its own."""

    def __init__(self, asynchronous_class: Any, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        try:
            self._object = self._runner.run(_create(asynchronous_class, *arguments, **options))
        except BaseException:
            self._runner.close()
            raise

    def __getattr__(self, name: str) -> Any:
        attribute: Any = getattr(self._object, name)
        if not callable(attribute):
            return attribute
        return lambda *arguments, **options: self._wait(attribute(*arguments, **options))

    def with_options(self, **options: Any) -> "BlockingAsync":
        other = object.__new__(BlockingAsync)
        other._runner, other._object = self._runner, self._object.with_options(**options)
        return other

    def close(self) -> None:
        self._runner.run(self._object.close())
        self._runner.close()

    def _wait(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            return self._runner.run(result)
        return self._iterate(result) if isinstance(result, AsyncGenerator) else result

    def _iterate(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                yield self._runner.run(anext(items))
        except StopAsyncIteration:
            pass
        finally:
            self._runner.run(items.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _create(asynchronous_class: Any, *arguments: Any, **options: Any) -> Any:
    """Create the object in the event loop to which it belongs."""
    return asynchronous_class(*arguments, **options)
