"""Exceptions of this package. Each message is one line for the terminal."""


class TrainingError(Exception):
    """Base class of the package's exceptions."""


class DataError(TrainingError):
    """A data file is missing, truncated, mislabelled or of another task; the message names it."""


class CardError(TrainingError):
    """A task card is missing, incomplete, or contradicts itself; the message is for its author."""


class ModelError(TrainingError):
    """A model cannot be loaded, evaluated or exported; the message states why."""


class NotPublishedError(TrainingError):
    """A model fails the quality gate, or nothing is new to learn; the message states why."""


class PromotionError(TrainingError):
    """A published version is not promoted; the message repeats the command."""


class Interrupted(TrainingError):  # noqa: N818
    """Ctrl-C ended a fit early; the message states what was kept and how to publish it."""
