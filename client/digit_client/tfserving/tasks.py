"""Task cache of a connection, and repetition of a request when a version with another task answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never, TypeVar

from digit_client import _flows
from digit_client._exceptions import (
    DigitError,
    ImageShapeError,
    NoDigitError,
    PixelValueError,
    ReadingNotSupportedError,
    ServiceError,
    SeveralDigitsError,
    TooManyDigitsError,
)
from digit_client._flows import Flow
from digit_client.artifact.task_card import TaskCard
from digit_client.tfserving.codec import ModelRef

REFUSALS = (
    ImageShapeError,
    NoDigitError,
    PixelValueError,
    ReadingNotSupportedError,
    SeveralDigitsError,
    TooManyDigitsError,
)
"""Refusals that depend on the task."""
_UNFIT_REASONS = (None, "INVALID_ARGUMENT")
"""Reasons of errors that a wrong task explains: an unusable answer, and an input of the wrong shape."""

_Call = TypeVar("_Call")
_Result = TypeVar("_Result")


class TaskCache:
    """Tasks of versions, and of references without a version as of their latest answer."""

    def __init__(self) -> None:
        self._tasks: dict[ModelRef, TaskCard] = {}

    def get(self, model: ModelRef) -> TaskCard | None:
        """Return the task that is known of the model, if any."""
        return self._tasks.get(model)

    def remember(self, model: ModelRef, version: int | None, task: TaskCard) -> TaskCard:
        """Store the task of the model that was asked and, if known, of the version that answered."""
        self._tasks[model] = task
        if version is not None:
            self._tasks[ModelRef(model.name, version)] = task
        return task

    @contextmanager
    def forget_if_unfit(self, name: str) -> Iterator[None]:
        """Forget the model's tasks if the block fails as it does with the task of another version."""
        try:
            yield
        except ServiceError as error:
            if error.reason in _UNFIT_REASONS:
                self._tasks = {model: task for model, task in self._tasks.items() if model.name != name}
            raise


def current_task_flow(
    known_task: Callable[[], Flow[_Call, TaskCard]],
    latest_task: Callable[[], Flow[_Call, TaskCard]],
    run: Callable[[TaskCard], Flow[_Call, _Result]],
) -> Flow[_Call, _Result]:
    """Return the result of `run(task)`; run again if a version with another preparation answers.

    `known_task` returns the task as of the latest answer. `latest_task` asks for that of the version which
    answers now: `run` may refuse a picture, without a call, that only an earlier version refuses.
    """
    task = yield from known_task()
    try:
        result = yield from run(task)
    except Exception as error:
        # Another version's answer may fail anywhere: reading needs labels that are digits.
        latest = yield from (_ask(latest_task, error) if isinstance(error, REFUSALS) else known_task())
        if latest.prepares_as(task):
            raise
        return (yield from run(latest))
    latest = yield from known_task()
    return result if latest.prepares_as(task) else (yield from run(latest))


def with_current_task(
    known_task: Callable[[], TaskCard],
    latest_task: Callable[[], TaskCard],
    run: Callable[[TaskCard], _Result],
) -> _Result:
    """Run `current_task_flow` with functions that return results instead of flows."""
    flow = current_task_flow(
        lambda: _without_calls(known_task),
        lambda: _without_calls(latest_task),
        lambda task: _without_calls(lambda: run(task)),
    )
    return _flows.drive(flow, lambda call: call)


def _ask(latest_task: Callable[[], Flow[_Call, TaskCard]], refusal: Exception) -> Flow[_Call, TaskCard]:
    """Return the latest task. Raise the refusal if the task is unknown: no answer disproves the refusal."""
    try:
        return (yield from latest_task())
    except DigitError:
        raise refusal from None


def _without_calls(function: Callable[[], _Result]) -> Flow[Never, _Result]:
    """Return the function's result as a flow."""
    yield from ()
    return function()
