"""How right a model has to be to be published: right enough, and not much less than what is served."""

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from digit_training import registry
from digit_training.errors import AccuracyError, DataError


@dataclass(frozen=True, slots=True)
class Bar:
    """`minimum` and `regression`, what may be lost at most, are accuracies, 0..1; `forced` lets all pass."""

    minimum: float
    regression: float
    forced: bool = False

    def require(self, accuracy: float, standard: tuple[str, float] | None) -> None:
        """Raises AccuracyError below the bar. `standard` is what is served now, and its accuracy."""
        if self.forced:
            return
        if accuracy < self.minimum:
            raise AccuracyError(
                f"not published: the accuracy {accuracy:.4f} is below the minimum of {self.minimum} "
                "(--min-accuracy, or --force)"
            )
        # Accuracies are counts over counts: a difference that looks like the bar is not below it.
        if standard and round(standard[1] - accuracy, 9) > self.regression:
            name, reached = standard
            raise AccuracyError(
                f"not published: the accuracy {accuracy:.4f} is more than {self.regression} below the "
                f"{reached:.4f} of {name} (--max-regression, or --force)"
            )


STABLE = "stable"


def find(models: Path) -> Path | None:
    """What callers get now. Raises DataError for a `models.config` that can't be read."""
    number = _stable(models / "models.config")
    stable = next((path for path in registry.every(models) if int(path.name) == number), None)
    return stable or registry.latest(models)


def _stable(config: Path) -> int | None:
    if not config.exists():
        return None
    try:
        found = text_format.Parse(config.read_text(), ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataError(f"{config} is not what TensorFlow Serving reads: {error}") from error
    labels = (dict(model.version_labels) for model in found.model_config_list.config)
    return next((versions[STABLE] for versions in labels if STABLE in versions), None)
