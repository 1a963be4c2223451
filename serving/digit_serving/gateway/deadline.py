"""Deadline of a request: decided here once, on its arrival, for admission, the thread and all calls."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from digit_serving.gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Deadline:
    """Times of a request, by time.monotonic."""

    arrived_at: float
    """Arrival of the last byte of the body."""
    latest_start: float
    """End of the wait for admission and for the thread; the other half of the time is left for the calls."""
    end: float
    """End of the request's time: for reading pictures, and for all calls to the model server."""


class Deadlines:
    """Deadlines of requests: DIGITS_DEADLINE, or what the model's table in DIGITS_MODELS_FILE has."""

    def __init__(self, settings: Settings) -> None:
        self._default_model, self._seconds = settings.model_name, settings.deadline
        self._by_model = {name: model.deadline for name, model in settings.by_model.items()}

    def of_model(self, name: str, arrived_at: float) -> Deadline:
        """Return the deadline of a request for a model."""
        seconds = self._by_model.get(name, self._seconds)
        return Deadline(arrived_at, arrived_at + seconds / 2, arrived_at + seconds)

    def of_query(self, query: bytes, arrived_at: float) -> Deadline:
        """Return the deadline of a request for the model that its query names."""
        name = self._default_model
        if self._by_model and query:
            name = dict(parse_qsl(query.decode("latin-1"))).get("model", name)
        return self.of_model(name, arrived_at)
