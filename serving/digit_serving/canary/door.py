"""Door of canaries: what they bring to the gateway."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from flask import Blueprint, g

from digit_core.artifact.task_card import TaskCard
from digit_serving.canary.traffic_file import TrafficFile
from digit_serving.gateway.door import Feature, in_share
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Upstream


class Canary(Feature):
    """Version labels that answer a share of the requests, as the file of shares says."""

    name: ClassVar = "canary"

    def __init__(self, settings: Settings, metrics: Metrics, work: Work) -> None:
        self._settings, self._file = settings, TrafficFile(settings.traffic_file)

    def routes(self, api: Blueprint, upstream: Upstream) -> None:
        """Add none; `warnings` asks the model server for labels."""
        self._upstream = upstream

    def choose_label(self, model: str, request_id: str) -> str | None:
        """Return the label whose share of the model's requests the request is in, if there is one."""
        end = 0.0
        for label, share in self._file.read().get(model, {}).items():
            end += share
            if in_share(end, request_id):
                return label
        return None

    def version_labels(self, model: str) -> Collection[str]:
        """Return the labels that have a share."""
        return self._file.read().get(model, {})

    def model_members(self, name: str, task: TaskCard | None) -> Mapping[str, Any]:
        """Return the share of each label."""
        return {"traffic": self._file.read().get(name, {})}

    def warnings(self) -> list[str]:
        """Return why the file is not followed, and which shares have no effect."""
        traffic = self._file.read()
        sentences = [self._file.error] if self._file.error else []
        for model, shares in traffic.items():
            default = self._settings.for_model(model).default_label
            served = self._upstream.labels(g.context, model)
            for label in shares:
                reason = "no loaded version has it" if label not in served else "it answers the rest anyway"
                if label == default or label not in served:
                    share = f"The share of requests for the label {label} of the model {model}"
                    sentences.append(f"{share} has no effect: {reason}.")
        return sentences
