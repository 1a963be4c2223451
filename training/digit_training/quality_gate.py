"""Quality gate: the accuracies that a model must reach to be published."""

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from digit_client.tfserving.protos import ModelServerConfig
from digit_training import registry
from digit_training.comparison import Comparison, Comparisons
from digit_training.errors import DataError, NotPublishedError

CONFIG = "models.config"
STABLE = "stable"
"""Label of the version that the gateway serves by default."""

MIN_HELD_OUT = 20
"""Least number of held-out inputs whose accuracy can show a gain."""

MAX_CHANCE = 0.05
"""Probability of a difference by chance below which it counts, on few pictures."""


@dataclass(frozen=True, slots=True)
class QualityGate:
    """Accuracy, 0..1, required of a model; with `force`, every model passes."""

    min_accuracy: float
    max_regression: float
    min_gain: float | None = None
    """Required gain in accuracy on the held-out feedback."""
    force: bool = False

    def check_held_out(self, count: int) -> None:
        """Raise NotPublishedError if a gain is required and the held-out inputs are too few to show it."""
        if self.min_gain is not None and count < MIN_HELD_OUT and not self.force:
            raise NotPublishedError(
                f"not published: {count} held-out digits are too few to show a gain, which takes "
                f"{MIN_HELD_OUT} (see --min-gain and --force)"
            )

    def check(self, comparisons: Comparisons) -> None:
        """Raise NotPublishedError unless the model reaches every accuracy.

        On few pictures, a loss or a gain counts only if chance is an unlikely reason.
        """
        if self.force:
            return
        served, test, feedback = comparisons.served, comparisons.test, comparisons.feedback
        if test.accuracy < self.min_accuracy:
            raise NotPublishedError(
                f"not published: the accuracy {test.accuracy:.4f} is below the minimum of "
                f"{self.min_accuracy} (see --min-accuracy and --force)"
            )
        for comparison in comparisons.all:
            if self._is_worse(comparison):
                raise NotPublishedError(
                    f"not published: the accuracy {comparison.accuracy:.4f} on {comparison.pictures} is more "
                    f"than {self.max_regression} below the {comparison.served_accuracy:.4f} of {served} "
                    "(see --max-regression and --force)"
                )
        if self.min_gain is None or feedback is None or feedback.served is None:
            return
        may_be_chance = self.min_gain > 0 and feedback.chance_of_gain >= MAX_CHANCE
        if round(feedback.gain, 9) < self.min_gain or may_be_chance:
            raise NotPublishedError(
                f"not published: the accuracy {feedback.accuracy:.4f} on {feedback.pictures} is not "
                f"{self.min_gain} above the {feedback.served_accuracy:.4f} of {served}, beyond chance: "
                f"{feedback.gained} answers gained, {feedback.lost} lost (see --min-gain and --force)"
            )

    def _is_worse(self, comparison: Comparison) -> bool:
        # Rounding removes the floating-point error of the difference.
        if round(-comparison.gain, 9) <= self.max_regression:
            return False
        return not comparison.are_few or comparison.chance_of_loss < MAX_CHANCE


def baseline_version(models: Path) -> Path | None:
    """Return the version labelled `stable` in `models.config`, else the newest, else None.

    The file lies in the folder, or in its parent if several models are served together. Raise DataError if it
    cannot be parsed.
    """
    number = _stable_number(models / CONFIG)
    if number is None:
        number = _stable_number(models.parent / CONFIG, models.resolve().name)
    stable = next((path for path in registry.list_versions(models) if int(path.name) == number), None)
    return stable or registry.latest_version(models)


def _stable_number(config: Path, folder: str | None = None) -> int | None:
    """Return the version labelled `stable`, of the model in this folder where one is given."""
    if not config.exists():
        return None
    try:
        parsed = text_format.Parse(config.read_text(), ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataError(f"{config} is not a valid TensorFlow Serving configuration: {error}") from error
    models = [
        model
        for model in parsed.model_config_list.config
        if folder is None or Path(model.base_path).name == folder
    ]
    labels = (dict(model.version_labels) for model in models)
    return next((versions[STABLE] for versions in labels if STABLE in versions), None)
