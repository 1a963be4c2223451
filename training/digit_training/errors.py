"""Exceptions of this package. Each message is one line for the terminal."""


class TrainingError(Exception):
    """Base class of the package's exceptions."""


class DataError(TrainingError):
    """A data file is missing, truncated, mislabelled or of another task; the message names it."""


class CardError(TrainingError):
    """A task card is missing, incomplete, or contradicts itself; the message is for its author."""


class ModelError(TrainingError):
    """A model cannot be loaded, evaluated or exported; the message states why."""


class AccuracyError(TrainingError):
    """A model fails the quality gate; the message states the accuracy reached and the accuracy required."""


class Interrupted(TrainingError):  # noqa: N818
    """Ctrl-C ended a fit early; the message states what was kept and how to publish it."""
