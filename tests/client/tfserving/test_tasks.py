"""Repetition of a request when a version with another task has answered, or answers now."""

from dataclasses import replace

import pytest

from digit_client import (
    ImageShapeError,
    NoDigitError,
    ReadingNotSupportedError,
    ServiceError,
    TaskCard,
    UnavailableError,
)
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.tasks import TaskCache, with_current_task

CARD = TaskCard("shapes", ("circle", "square"), (4, 6, 3), (0.0, 255.0))
WIDER_CARD = replace(CARD, shape=(4, 8, 3))


class Tasks:
    """Task of the latest answer: the first one, and from the second look on the second one."""

    def __init__(self, *cards: TaskCard) -> None:
        self._cards = [*cards]

    def __call__(self) -> TaskCard:
        return self._cards.pop(0) if len(self._cards) > 1 else self._cards[0]


def unreachable() -> TaskCard:
    raise AssertionError("the latest task is asked for after refusals only")


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ([CARD], [CARD]),
        ([CARD, replace(CARD, labels=("a", "b"))], [CARD]),
        ([CARD, WIDER_CARD], [CARD, WIDER_CARD]),
    ],
    ids=["same", "other-labels", "other-shape"],
)
@pytest.mark.parametrize("error", [None, ServiceError("refused"), AttributeError("no digit")], ids=repr)
def test_with_current_task_runs_again_after_other_preparation(
    cards: list[TaskCard], expected: list[TaskCard], error: Exception | None
) -> None:
    runs: list[TaskCard] = []

    def run(task: TaskCard) -> TaskCard:
        runs.append(task)
        if error and task == CARD:
            raise error
        return task

    if error and len(expected) == 1:
        with pytest.raises(type(error)):
            with_current_task(Tasks(*cards), unreachable, run)
    else:
        assert with_current_task(Tasks(*cards), unreachable, run) == expected[-1]
    assert runs == expected


REFUSALS = [ImageShapeError("too wide"), NoDigitError("blank"), ReadingNotSupportedError("no numbers")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
def test_with_current_task_after_refusal_asks_for_latest_task(refusal: Exception) -> None:
    def run(task: TaskCard) -> TaskCard:
        if task == CARD:
            raise refusal
        return task

    assert with_current_task(lambda: CARD, lambda: WIDER_CARD, run) == WIDER_CARD
    with pytest.raises(type(refusal)):
        with_current_task(lambda: CARD, lambda: CARD, run)


def test_with_current_task_with_unknown_latest_task_raises_the_refusal() -> None:
    def run(_task: TaskCard) -> None:
        raise NoDigitError("blank")

    def latest_task() -> TaskCard:
        raise UnavailableError("down")

    with pytest.raises(NoDigitError, match="blank"):
        with_current_task(lambda: CARD, latest_task, run)


@pytest.mark.parametrize(
    ("reason", "is_known"), [(None, False), ("INVALID_ARGUMENT", False), ("UNAVAILABLE", True)]
)
def test_task_cache_forgets_tasks_of_unfit_model_only(reason: str | None, is_known: bool) -> None:
    cache = TaskCache()
    cache.remember(ModelRef("shapes"), 3, CARD)
    cache.remember(ModelRef("others"), None, CARD)
    with pytest.raises(ServiceError), cache.forget_if_unfit("shapes"):
        raise ServiceError("failed", reason=reason)
    for model in (ModelRef("shapes"), ModelRef("shapes", version=3)):
        assert (cache.get(model) is not None) == is_known
    assert cache.get(ModelRef("others")) == CARD
