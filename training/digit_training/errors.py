"""What can go wrong with a user's data or model; each message is one line for the person at the terminal.

TrainingError
├── DataError      a data file is missing, truncated, mislabelled or not digits
├── ModelError     a model that cannot answer the two signatures of the artifact
├── AccuracyError  a model below the bar for publishing
└── Interrupted    the user ended a fit before its time
"""


class TrainingError(Exception):
    """The root: whatever this room raises on purpose."""


class DataError(TrainingError):
    """Names the file and says what is wrong with it."""


class ModelError(TrainingError):
    """Names the model and says what is wrong with it."""


class AccuracyError(TrainingError):
    """Says the accuracy reached and the one required."""


class Interrupted(TrainingError):  # noqa: N818
    """Says what was kept of the fit and how to go on."""
