"""Door of canaries: what they bring to the gateway."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from digit_core.artifact.task_card import TaskCard
from digit_serving.canary.traffic_file import TrafficFile
from digit_serving.gateway.door import Feature, in_share
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.settings import Settings


class Canary(Feature):
    """Version labels that answer a share of the requests, as the file of shares says."""

    name: ClassVar = "canary"

    def __init__(self, settings: Settings, metrics: Metrics, work: Work) -> None:
        self._file = TrafficFile(settings.traffic_file)

    def choose_label(self, model: str, request_id: str) -> str | None:
        """Return the label whose share of the model's requests the request is in, if there is one."""
        end = 0.0
        for label, share in self._file.shares(model).items():
            end += share
            if in_share(end, request_id):
                return label
        return None

    def version_labels(self, model: str) -> Collection[str]:
        """Return the labels that have a share."""
        return self._file.shares(model)

    def model_members(self, name: str, task: TaskCard | None) -> Mapping[str, Any]:
        """Return the share of each label."""
        return {"traffic": self._file.shares(name)}
