"""The model card in figures, `model.json`: what the model is, how it came to be and how good it is."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import keras

from digit_training.dataset import Dataset
from digit_training.evaluate import Evaluation
from digit_training.fit import Fit

LIBRARIES = ("digit-serving", "keras", "tensorflow", "numpy")


def card(
    model: keras.Model, dataset: Dataset, evaluation: Evaluation, fit: Fit | None = None
) -> dict[str, Any]:
    """`fit` is null for a model fitted elsewhere: the data are then those it was judged on."""
    return {
        "model": model.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": model.count_params(),
        "accuracy": evaluation.accuracy,
        "calibration_error": evaluation.calibration_error,
        "data": {
            "source": dataset.source,
            "canonical": dataset.canonical,
            "offline": dataset.offline,
            "md5": dataset.md5,
            "train": len(dataset.train),
            "test": len(dataset.test),
        },
        "fit": _fit(fit) if fit else None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "examples": fit.examples,
        "drawn": fit.drawn,
        "validation_examples": fit.validation_examples,
        "seed": fit.seed,
        "networks": fit.networks,
        "epochs": fit.epochs,
        "best_epoch": fit.best_epoch,
        "temperature": fit.temperature,
        "augmented": fit.recipe.augmented,
        "batch_size": fit.recipe.batch_size,
        "learning_rate": fit.recipe.learning_rate,
        "optimizer": fit.recipe.optimizer.__name__,
        "seconds": round(fit.seconds, 1),
        "device": fit.device,
        "backend": keras.backend.backend(),
    }
