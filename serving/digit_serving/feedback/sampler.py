"""Sampler: stores the pictures of a share of the requests, to be labelled later."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from digit_core.errors import DigitError
from digit_core.feedback.records import Record
from digit_core.feedback.table import StoreError
from digit_core.reading.expectations import fits
from digit_core.recognition import to_pixels
from digit_core.results import Digit, Prediction, Reading
from digit_serving.feedback.errors import FeedbackFullError
from digit_serving.feedback.parts import cut, to_records, to_whole
from digit_serving.feedback.worker_store import WorkerStore
from digit_serving.gateway.door import in_share
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.observers import Observer
from digit_serving.gateway.parsing import Body
from digit_serving.gateway.request import RequestContext, Route
from digit_serving.gateway.settings import Settings

_MAX_PENDING_BYTES = 32 * 2**20
"""Bytes of pictures that may wait for the thread. Further pictures are not stored."""

_log = logging.getLogger(__name__)


class Sampler(Observer):
    """Stores pictures in the background, each with its answer and without a label.

    A request never waits for it. Pictures that can't be stored are counted.
    """

    def __init__(self, settings: Settings, store: WorkerStore, work: Work) -> None:
        self._settings = settings
        self._store = store
        self._work = work
        self._executor = ThreadPoolExecutor(1, "samples")
        # Each counter has one thread that writes it, so that neither needs a lock.
        self._queued_bytes = self._done_bytes = 0

    def answered(
        self, context: RequestContext, route: Route, body: Body, results: Mapping[int, Prediction | Reading]
    ) -> None:
        """Queue the pictures of a request that the share includes, unless too many wait."""
        card, model = route.served.card, self._settings.for_model(route.served.model.name)
        if not results or card.is_multi_label or not model.feedback:
            return
        if not in_share(self._settings.feedback_sample, context.request_id, b"sample"):
            return
        sent = {index: body.picture(index) for index in results}
        size = sum(len(each) if isinstance(each, bytes) else each.nbytes for each in sent.values())
        if self._queued_bytes - self._done_bytes + size > _MAX_PENDING_BYTES:
            self._store.metrics.dropped().inc(len(sent))
            return
        self._queued_bytes += size
        # Copies: an item of an array would keep all of it in memory.
        pictures = {index: each if isinstance(each, bytes) else each.copy() for index, each in sent.items()}
        self._executor.submit(self._save, route, pictures, results, context, size)

    def close(self) -> None:
        """Store the pictures that wait."""
        self._executor.shutdown()

    def _save(
        self,
        route: Route,
        pictures: Mapping[int, bytes | NDArray[Any]],
        results: Mapping[int, Prediction | Reading],
        context: RequestContext,
        size: int,
    ) -> None:
        """Store the parts of the pictures, in the thread."""
        name, card, options = route.served.model.name, route.served.card, context.options
        request = {"request_id": context.request_id, "caller": context.key, "sent_at": datetime.now(UTC)}
        try:
            records: list[Record] = []
            for index, picture in pictures.items():
                result = results[index]
                answers: Sequence[Prediction | Digit | None]
                answers = [result] if isinstance(result, Prediction) else result.digits or [None]
                # A refused reading has no boxes: the part that the call names is what the label is about.
                part = options.of_part(index)
                asked = part["box"][0] if part.get("box") else None
                boxes = [(answer and answer.box) or asked for answer in answers]
                shown = picture if isinstance(picture, bytes) else to_pixels(picture, card)
                around = [box for box in boxes if box] if isinstance(result, Reading) else None
                with self._work.large:
                    parts = cut(
                        shown,
                        boxes,
                        around=around,
                        max_pixels=self._settings.max_pixels,
                        exif=card.prepare.exif,
                    )
                common = {"model": name, "version": result.model_version, "index": index, **request}
                digits = [*to_records(parts[-len(answers) :], answers, **common)]
                records += digits
                if isinstance(result, Reading):
                    expected, candidates = part.expectation, result.candidates
                    if expected:
                        candidates = tuple(each for each in candidates if fits(each.text, expected))
                    read = around if around and result.digits else ()
                    whole = to_whole(parts[0], digits, result.confidence, read, candidates)
                    records.append(whole)
            self._store.submit(self._store.saving(records)).result()
            for record in records:
                self._store.metrics.sampled(record.model, record.version).inc()
        except Exception as error:
            # Nobody awaits this call, so that it logs its own errors, except those that the store logs, and
            # that /readyz states.
            if not isinstance(error, (StoreError, DigitError, FeedbackFullError)):
                _log.exception("a sample is not stored")
            self._store.metrics.dropped().inc(len(pictures))
        finally:
            self._done_bytes += size
