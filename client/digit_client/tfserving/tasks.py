"""Task cache of a connection, and repetition of a request when a version with another task answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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
from digit_client._task import TaskCard
from digit_client.tfserving.codec import ModelRef

_REFUSALS = (
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


def with_current_task(
    known_task: Callable[[], TaskCard],
    latest_task: Callable[[], TaskCard],
    run: Callable[[TaskCard], _Result],
) -> _Result:
    """Return `run(task)`; run again if a version with another preparation has answered, or answers now.

    `known_task` returns the task as of the latest answer. `latest_task` asks for that of the version which
    answers now: `run` may refuse a picture, without a call, that only an earlier version refuses.
    """
    task = known_task()
    try:
        result = run(task)
    except Exception as error:
        # Another version's answer may fail anywhere: reading needs labels that are digits.
        latest = _ask(latest_task, error) if isinstance(error, _REFUSALS) else known_task()
        if latest.prepares_as(task):
            raise
        return run(latest)
    latest = known_task()
    return result if latest.prepares_as(task) else run(latest)


def _ask(latest_task: Callable[[], TaskCard], refusal: Exception) -> TaskCard:
    """Return the latest task. Raise the refusal if the task is unknown: no answer disproves the refusal."""
    try:
        return latest_task()
    except DigitError:
        raise refusal from None
