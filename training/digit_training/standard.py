"""The published version that a new one is measured against: the stable one, or else the newest."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from digit_training import versions
from digit_training.errors import DataError

STABLE = "stable"


def find(models: Path) -> Path | None:
    """What callers get now. Raises DataError for a `models.config` that can't be read."""
    number = _stable(models / "models.config")
    stable = next((path for path in versions.every(models) if int(path.name) == number), None)
    return stable or versions.latest(models)


def _stable(config: Path) -> int | None:
    if not config.exists():
        return None
    try:
        found = text_format.Parse(config.read_text(), ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataError(f"{config} is not what TensorFlow Serving reads: {error}") from error
    labels = (dict(model.version_labels) for model in found.model_config_list.config)
    return next((versions[STABLE] for versions in labels if STABLE in versions), None)
