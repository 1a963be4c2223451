"""Exceptions of the training room; each message is one line for the person at the terminal.

TrainingError
├── DataError      a data file that is missing, truncated, mislabelled or not digits
├── ModelError     a model that cannot be loaded, evaluated or exported
├── AccuracyError  a model below the quality gate
└── Interrupted    Ctrl-C ended a fit early
"""


class TrainingError(Exception):
    """Root of all exceptions that this package raises on purpose."""


class DataError(TrainingError):
    """Names the file and its fault."""


class ModelError(TrainingError):
    """Names the model and its fault."""


class AccuracyError(TrainingError):
    """States the accuracy reached and the accuracy required."""


class Interrupted(TrainingError):  # noqa: N818
    """States how much of the fit was kept and how to publish it."""
