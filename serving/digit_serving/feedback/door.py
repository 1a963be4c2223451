"""Door of feedback: what it brings to the gateway."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from flask import Blueprint

from digit_core.artifact.task_card import TaskCard
from digit_core.feedback.table import NoRoomError, StoreError
from digit_serving.feedback import operations, quota
from digit_serving.feedback import schemas as documents
from digit_serving.feedback.metrics import FeedbackMetrics
from digit_serving.feedback.sampler import Sampler
from digit_serving.feedback.views import FeedbackViews
from digit_serving.feedback.worker_store import WorkerStore
from digit_serving.gateway.door import Feature
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Upstream


class Feedback(Feature):
    """Pictures with labels in a store, samples that wait for one, and a page for people who label them."""

    links: ClassVar = {"feedback": "/v1/feedback"}
    schemas: ClassVar = vars(documents)

    def __init__(self, settings: Settings, metrics: Metrics, work: Work) -> None:
        self._settings, self._work = settings, work
        self._store = WorkerStore(settings, FeedbackMetrics(metrics))
        if settings.feedback_sample:
            self.observer = self._sampler = Sampler(settings, self._store, work)

    @classmethod
    def pages(cls, settings: Settings) -> Mapping[str, Path]:
        """Return the page on which callers with API keys label pictures."""
        return {"/label": Path(__file__).with_name("static") / "label.html"} if settings.api_keys else {}

    @classmethod
    def operations(cls, settings: Settings) -> dict[str, Any]:
        """Return the operations of feedback, and with API keys those of labelling."""
        return operations.feedback() | (operations.labelling() if settings.api_keys else {})

    def routes(self, api: Blueprint, upstream: Upstream) -> None:
        """Take feedback, and with API keys labels by hand."""
        views = FeedbackViews(self._settings, upstream, self._work, self._store)
        api.post("/feedback")(views.give)
        if self._settings.api_keys:
            api.get("/feedback/unlabelled")(views.unlabelled)
            api.post("/feedback/labels")(views.label)

    def model_members(self, name: str, task: TaskCard | None) -> Mapping[str, Any]:
        """Say whether the model takes feedback."""
        return {"feedback": self._settings.for_model(name).feedback and not (task and task.is_multi_label)}

    def warnings(self) -> list[str]:
        """Warn of a store that can't be used, or that has little room."""
        try:
            sizes = self._store.ask()
        except StoreError as error:
            # Only the log quotes a database: its errors may name hosts and users.
            reason = error if isinstance(error, NoRoomError) else "there is no feedback"
            return [f"The store of DIGITS_FEEDBACK can't be used: {reason}."]
        return quota.warnings(sizes, self._settings.feedback_bytes)

    async def close(self) -> None:
        """Store the samples that wait, and finish the calls that have begun."""
        if self.observer:
            await asyncio.to_thread(self._sampler.close)
        await self._store.close()
