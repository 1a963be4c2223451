"""Predictions as text for a terminal."""

from digit_client.predictions import Prediction

_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"


def chart(name: str, prediction: Prediction) -> str:
    """A headline and a bar for each digit, on eleven lines."""
    rows = [f"  {digit} {_bar(value)} {value:6.1%}" for digit, value in enumerate(prediction.probabilities)]
    return "\n".join([f"{name}: {prediction.digit} ({prediction.confidence:.1%})", *rows])


def line(name: str, prediction: Prediction) -> str:
    """One line: the digit, its probability, and a small bar for each of the ten."""
    bars = "".join(_HEIGHTS[min(int(value * 8), 7)] for value in prediction.probabilities)
    return f"{prediction.digit}  {prediction.confidence:6.1%}  {bars}  {name}"


def _bar(value: float) -> str:
    full, eighths = divmod(round(value * _BAR * 8), 8)
    return ("█" * full + _EIGHTHS[eighths]).ljust(_BAR + 1)[: _BAR + 1]
