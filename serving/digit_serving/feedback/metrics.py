"""Metrics of feedback."""

from digit_serving.gateway.observers.metrics import Metrics


class FeedbackMetrics:
    """Metrics of a worker's feedback, among those of the gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self.labelled = metrics.counter(
            *("feedback", "Pictures that got a label, by its agreement with the answer."),
            *("model", "version", "agrees"),
        )
        self.sampled = metrics.counter(
            *("feedback_sampled", "Pictures, readings and their digits that were stored as a sample."),
            *("model", "version"),
        )
        self.dropped = metrics.counter("feedback_dropped", "Pictures of the sample that could not be stored.")
        about = "Unix time of the latest use of the store, or of a worker's start."
        self.written = metrics.gauge("feedback_written_timestamp_seconds", about)
        # The alert needs a value also of a store that has never worked.
        self.written.set_to_current_time()
