"""Recognition as flows of calls to a model server: the class of each picture of a batch, or its digits.

A flow is the same for the blocking and the asyncio client, which send its calls. The errors of single
pictures are outcomes in their places; every other failure ends the flow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import images as digit_images
from digit_client._exceptions import (
    DigitError,
    ImageError,
    NoDigitError,
    ReadingNotSupportedError,
    without_tracebacks,
)
from digit_client._flows import Flow
from digit_client._types import Prediction, Reading
from digit_client.artifact.task_card import TaskCard
from digit_client.images import Candidates
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.model_server import AsyncModelServer, ModelServer
from digit_client.tfserving.pictures import BATCH_SIZE, Picture, PictureError
from digit_client.tfserving.tasks import REFUSALS, current_task_flow

# Bytes of prepared pictures in a call; the channel buffers 16 MiB for a retry.
_CALL_BYTES = 8 * 1024 * 1024

_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result", Prediction, Reading)

Call: TypeAlias = Callable[[ModelServer | AsyncModelServer, float], Any]
"""Function that calls a model server within a timeout in seconds, and returns the answer or its awaitable."""
Outcome: TypeAlias = _Answer | PictureError
"""Result for a picture, or its error."""
RecognitionFlow: TypeAlias = Flow[Call, list[Outcome[_Result]]]
"""Flow that returns the outcome of each picture of a batch."""

_Decide: TypeAlias = Callable[[Candidates, Sequence[Prediction]], _Result]


@dataclass(frozen=True, slots=True)
class Recognition:
    """Flows for a batch of pictures.

    `request_id` is sent with each Predict, and is on every result and error. `known_task` returns the task of
    a model as of its latest answer, without a call.
    """

    model: ModelRef
    request_id: str
    known_task: Callable[[ModelRef], TaskCard | None]

    def predict(self, pictures: Sequence[Picture]) -> RecognitionFlow[Prediction]:
        """Classify each picture."""

        def run(task: TaskCard) -> RecognitionFlow[Prediction]:
            return self._predict_digits(pictures) if task.reads_numbers else self._predict(pictures, task)

        return self._recognize(run)

    def read(self, pictures: Sequence[Picture]) -> RecognitionFlow[Reading]:
        """Read the digits on each picture. Raise ReadingNotSupportedError if the model reads none."""

        def run(task: TaskCard) -> RecognitionFlow[Reading]:
            if not task.reads_numbers:
                raise ReadingNotSupportedError(
                    f"the model {self.model} classifies {task.name}; it reads no numbers"
                )
            return self._decide_by_candidates(pictures, digit_images.read)

        return self._recognize(run)

    def _recognize(self, run: Callable[[TaskCard], RecognitionFlow[_Result]]) -> RecognitionFlow[_Result]:
        """Run with the task of the version that answers."""
        outcomes: list[Outcome[_Result]] = []

        def run_or_refuse(task: TaskCard) -> Flow[Call, None]:
            outcomes[:] = yield from run(task)
            if refusal := _unproven_refusal(outcomes):
                raise refusal

        try:
            yield from current_task_flow(self._known_task, self._latest_task, run_or_refuse)
        except ImageError:
            # The latest task refuses the picture as well. The error is among the outcomes.
            pass
        except DigitError as error:
            error.request_id = error.request_id or self.request_id
            raise
        return [self._with_request_id(outcome) for outcome in outcomes]

    def _known_task(self) -> Flow[Call, TaskCard]:
        known = self.known_task(self.model)
        return known or (yield lambda server, timeout: server.task(self.model, timeout=timeout))

    def _latest_task(self) -> Flow[Call, TaskCard]:
        task: TaskCard = yield lambda server, timeout: server.latest_task(self.model, timeout=timeout)
        return task

    def _predict(self, pictures: Sequence[Picture], task: TaskCard) -> RecognitionFlow[Prediction]:
        """Prepare and send one group after the other: the pixels of all might not fit into memory."""
        size = max(1, min(BATCH_SIZE, _CALL_BYTES // math.prod(task.shape)))
        outcomes: list[Outcome[Prediction]] = []
        for start in range(0, len(pictures), size):
            group = pictures[start : start + size]
            inputs = [picture.attempt(partial(picture.prepare, task)) for picture in group]
            outcomes += yield from self._classify_found(inputs)
        return outcomes

    def _predict_digits(self, pictures: Sequence[Picture]) -> RecognitionFlow[Prediction]:
        """Cascade: the normalised picture decides where the model accepts it, else its candidates do."""
        glyphs = [picture.attempt(picture.normalise) for picture in pictures]
        outcomes = yield from self._classify_found(glyphs)
        is_decided = [
            _is_decided(outcome) or picture.is_model_input(glyph)
            for picture, glyph, outcome in zip(pictures, glyphs, outcomes, strict=True)
        ]
        others = [picture for picture, decided in zip(pictures, is_decided, strict=True) if not decided]
        decisions = iter((yield from self._decide_by_candidates(others, digit_images.single_digit)))
        return [
            outcome if decided else next(decisions)
            for outcome, decided in zip(outcomes, is_decided, strict=True)
        ]

    def _decide_by_candidates(
        self, pictures: Sequence[Picture], decide: _Decide[_Result]
    ) -> RecognitionFlow[_Result]:
        """Return the decision on each picture by the predictions of its candidates. Pictures share calls."""
        segmented = [picture.attempt(picture.segment) for picture in pictures]
        glyphs = [glyph for found in segmented if isinstance(found, Candidates) for glyph in found.glyphs]
        predictions = iter((yield from self._classify(glyphs)))

        def decide_on(picture: Picture, found: Candidates) -> Outcome[_Result]:
            answers = list(islice(predictions, len(found.glyphs)))
            return picture.attempt(lambda: decide(found, answers))

        return [
            decide_on(picture, found) if isinstance(found, Candidates) else found
            for picture, found in zip(pictures, segmented, strict=True)
        ]

    def _classify_found(self, inputs: Sequence[Outcome[NDArray[np.uint8]]]) -> RecognitionFlow[Prediction]:
        """Return the prediction of each model input, and each error in its place."""
        found = [each for each in inputs if isinstance(each, np.ndarray)]
        predictions = iter((yield from self._classify(found)))
        return [next(predictions) if isinstance(each, np.ndarray) else each for each in inputs]

    def _classify(self, inputs: Sequence[NDArray[np.uint8]]) -> Flow[Call, list[Prediction]]:
        """Return the prediction of each model input, BATCH_SIZE of them a call."""
        predictions: list[Prediction] = []
        for start in range(0, len(inputs), BATCH_SIZE):
            batch = np.stack(inputs[start : start + BATCH_SIZE])
            predictions += yield partial(self._send, batch)
        return predictions

    def _send(self, batch: Batch, server: ModelServer | AsyncModelServer, timeout: float) -> Any:
        return server.predict(batch, self.model, timeout=timeout, request_id=self.request_id)

    def _with_request_id(self, outcome: Outcome[_Result]) -> Outcome[_Result]:
        if not isinstance(outcome, Exception):
            return replace(outcome, request_id=self.request_id)
        if isinstance(outcome, ImageError):
            outcome.request_id = self.request_id
        return without_tracebacks(outcome)


def _is_decided(outcome: Outcome[Prediction]) -> bool:
    """True unless the candidates of the picture may show a digit that normalisation did not find."""
    return outcome.is_accepted if isinstance(outcome, Prediction) else not isinstance(outcome, NoDigitError)


def _unproven_refusal(outcomes: Sequence[Outcome[_Result]]) -> ImageError | None:
    """Return a refusal that depends on the task, unless an answer has confirmed the task."""
    if not all(isinstance(outcome, Exception) for outcome in outcomes):
        return None
    return next((outcome for outcome in outcomes if isinstance(outcome, REFUSALS)), None)
