"""Feedback reader: the labelled pictures in a gateway's store as examples of a task. Needs SQLAlchemy."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.errors import ImageError, NoInkError
from digit_core.feedback.store import Criteria, FeedbackStore
from digit_core.feedback.table import StoreError
from digit_training.data import Examples, Labels
from digit_training.errors import DataError
from digit_training.evaluation import Accuracy
from digit_training.pictures import LabelledPictures


@dataclass(frozen=True)
class Effect:
    """Numbers of pictures that get another label, that lose theirs, and that get one, without some votes."""

    relabelled: int
    lost: int
    gained: int

    @classmethod
    def of(cls, before: Mapping[str, str], after: Mapping[str, str]) -> "Effect":
        """Return the difference between the labels of pictures, by digest."""
        both = before.keys() & after.keys()
        relabelled = sum(before[digest] != after[digest] for digest in both)
        return cls(relabelled, len(before) - len(both), len(after) - len(both))


@dataclass(frozen=True)
class Feedback:
    """Labelled pictures of a task, as its card prepares them: some train a model, the others test it.

    Images are uint8 [n, *shape]. A label is the index of a class, or of a negative the number of classes.
    """

    task: TaskCard
    source: str
    """URL of the store, without a password."""
    train: Examples
    held_out: Examples
    held_out_names: Sequence[str]
    """Digest of each held-out picture."""
    agreement: Accuracy
    """Accuracy of the served answers to the pictures, as their labels have it."""
    agreements: dict[str, Accuracy]
    """The same of the votes of a caller, by the name of the API key."""
    conflicts: int
    """Number of pictures left out, on whose label callers don't agree."""
    unusable: int
    """Number of pictures left out, which the card can't prepare, or whose label it has not."""
    left_out: dict[str, Effect]
    """What it changes to leave out a caller's votes, by the name of the API key."""
    reload: Callable[[TaskCard], "Feedback"] | None = None
    """Function that returns the same feedback, prepared by another card."""

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def without_negatives(self) -> "Feedback":
        """Leave out the pictures that show none of the classes, for a network that cannot answer so."""
        negative = len(self.task.labels)
        train, held_out = (part[part.labels != negative] for part in (self.train, self.held_out))
        labels = self.held_out.labels.tolist()
        names = [name for name, label in zip(self.held_out_names, labels, strict=True) if label != negative]
        return replace(self, train=train, held_out=held_out, held_out_names=names)

    @property
    def judging(self) -> LabelledPictures:
        """Held-out pictures, which other cards prepare from the store."""
        has_negatives = len(self.task.labels) in self.held_out.labels

        def prepare(task: TaskCard) -> LabelledPictures:
            loaded = self.reload(task) if self.reload else self
            return (loaded if has_negatives else loaded.without_negatives()).judging

        return LabelledPictures(self.held_out, {}, self.held_out_names, task=self.task, reload=prepare)

    def without_tested(self, tested: NDArray[np.uint8]) -> "Feedback":
        """Leave out of training the pictures in `tested` [n, *shape]: a test digit may be sent, too."""
        known = {image.tobytes() for image in tested}
        is_new = np.array([image.tobytes() not in known for image in self.train.images], bool)
        return replace(self, train=self.train[is_new])

    def describe(self, weight: int, right: NDArray[np.bool_]) -> dict[str, Any]:
        """Return origin, numbers and accuracy as JSON values for the model card.

        Each training picture counts `weight` times; `right` tells the held-out ones that the model answers
        correctly: [n].
        """
        held_out = self.held_out
        return {
            "source": self.source,
            "weight": weight,
            "agreeing": self.agreement.correct,
            "conflicting": self.conflicts,
            "train": {"inputs": len(self.train), "by_label": self._count(self.train.labels)},
            "held_out": {
                "inputs": len(held_out),
                "right": int(right.sum()),
                "by_label": self._count(held_out.labels),
                "right_by_label": self._count(held_out.labels[right]),
            },
        }

    def _count(self, labels: Labels) -> dict[str, int]:
        names = [*self.task.labels, "no digit"]
        return dict(sorted(Counter(names[label] for label in labels.tolist()).items()))


def load(url: str, task: TaskCard, without_callers: Sequence[str] = ()) -> Feedback:
    """Return the labelled pictures of the model of the task's name, each once, as its card prepares them.

    `count_votes` decides on the label. `url` is `sqlite:///FILE` or `postgresql://…`; the records of
    `without_callers`, names of API keys, are left out. Raise DataError, whose message lacks the password, if
    the pictures cannot be read.
    """
    try:
        found = _load(FeedbackStore(url, create=False), task, without_callers)
    except StoreError as error:
        raise DataError(str(error)) from error
    return replace(found, reload=lambda other: load(url, other, without_callers))


def _load(store: FeedbackStore, task: TaskCard, without_callers: Sequence[str]) -> Feedback:
    # Digits of a whole reading are records of their own.
    given: Criteria = {"model": task.name, "is_whole": False}
    votes = store.votes(without_callers=without_callers, **given)
    by_caller: dict[str, list[tuple[str, str]]] = {}
    for record in store.records(**(given | {"labelled": True})):
        if record.label is not None and record.caller not in without_callers:
            by_caller.setdefault(record.caller, []).append((record.label, record.predicted))
    index_of = {label: index for index, label in enumerate((*task.labels, NO_CLASS))}
    parts: dict[bool, list[tuple[NDArray[np.uint8], int, str]]] = {False: [], True: []}
    answers, unusable = [], 0
    for record, label in store.voted(task.name, votes):
        answers.append((label, record.predicted))
        try:
            pixels = images.prepare(images.decode(record.picture), task, record.box)
            parts[bool(record.held_out)].append((pixels, index_of[label], record.digest))
        except (ImageError, NoInkError, KeyError):
            unusable += 1
    train, held_out = (_to_examples(parts[side], task) for side in (False, True))
    every = store.votes(**given).labels if without_callers else {}
    return Feedback(
        task,
        store.name,
        train,
        held_out,
        [digest for *_, digest in parts[True]],
        _agreement(answers),
        {caller: _agreement(pairs) for caller, pairs in sorted(by_caller.items())},
        votes.conflicts,
        unusable,
        {
            caller: Effect.of(every, store.votes(without_callers=[caller], **given).labels)
            for caller in without_callers
        },
    )


def _agreement(pairs: Sequence[tuple[str, str]]) -> Accuracy:
    return Accuracy(sum(label == predicted for label, predicted in pairs), len(pairs))


def _to_examples(pairs: Sequence[tuple[NDArray[np.uint8], int, str]], task: TaskCard) -> Examples:
    pixels = np.array([image for image, *_ in pairs], np.uint8).reshape(-1, *task.shape)
    return Examples(pixels, np.array([label for _, label, _ in pairs], np.intp))
