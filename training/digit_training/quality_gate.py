"""Quality gate: the accuracy that a model must reach to be published."""

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from digit_client.tfserving.protos import ModelServerConfig
from digit_training import registry
from digit_training.errors import AccuracyError, DataError

CONFIG = "models.config"
STABLE = "stable"
"""Label of the version that the gateway serves by default."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The served version: its path, and its accuracy, 0..1, on the test set of the new model."""

    name: str
    accuracy: float


@dataclass(frozen=True, slots=True)
class QualityGate:
    """Accuracy, 0..1, required of a model; with `force`, every model passes."""

    min_accuracy: float
    max_regression: float
    force: bool = False

    def check(self, accuracy: float, baseline: Baseline | None) -> None:
        """Raise AccuracyError if `accuracy` is below the minimum or too far below the baseline."""
        if self.force:
            return
        if accuracy < self.min_accuracy:
            raise AccuracyError(
                f"not published: the accuracy {accuracy:.4f} is below the minimum of {self.min_accuracy} "
                "(see --min-accuracy and --force)"
            )
        # Rounding removes the floating-point error of the difference.
        if baseline and round(baseline.accuracy - accuracy, 9) > self.max_regression:
            raise AccuracyError(
                f"not published: the accuracy {accuracy:.4f} is more than {self.max_regression} below the "
                f"{baseline.accuracy:.4f} of {baseline.name} (see --max-regression and --force)"
            )


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
