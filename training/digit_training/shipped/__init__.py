"""Networks that ship fitted with this package: the classifier `digits` and the detector `reader`.

Each has two files in this folder: `<name>.weights.h5`, and `<name>.json`, the model card with the command,
the data and the seed that made the weights, and their checksum. That command writes the same two files into
its report folder.
"""

import json
from pathlib import Path
from typing import Any

import keras

from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.artifact.versions import sha256
from digit_training import models
from digit_training.detector import detector

FOLDER = Path(__file__).parent


def load_classifier() -> keras.Model:
    """Return the fitted network of the digits, as `models.convnet`."""
    return _load(models.convnet(), DIGITS.name)


def load_detector() -> keras.Model:
    """Return the fitted network that finds digits on a page, as `detector.detector`."""
    return _load(detector(), READER_NAME)


def read_card(name: str) -> dict[str, Any]:
    """Return the model card of the network `name`, `digits` or `reader`."""
    card: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return card


def save(network: keras.Model, card: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Write weights and card of a network as they ship, and return the card with the weights' checksum."""
    weights = folder / f"{name}.weights.h5"
    # A model of the same layers without the optimizer, whose state takes twice the bytes of the weights.
    keras.Model(network.inputs, network.outputs).save_weights(weights)
    card = card | {"weights_sha256": sha256(weights)}
    (folder / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def _load(network: keras.Model, name: str) -> keras.Model:
    network.load_weights(FOLDER / f"{name}.weights.h5")
    return network
