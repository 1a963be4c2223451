from digit_client import _cli
from digit_client._types import Prediction

PREDICTION = Prediction(3, 0.75, (0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 1)


def test_a_chart_has_a_bar_for_each_digit() -> None:
    headline, *bars = _cli.chart("three.png", PREDICTION).splitlines()
    assert headline == "three.png: 3 (75.0%)"
    assert [bar.count("█") for bar in bars] == [0, 0, 6, 18, 0, 0, 0, 0, 0, 0]
    assert bars[3].endswith(" 75.0%")
    assert len({len(bar) for bar in bars}) == 1


def test_a_line_tells_all_in_one() -> None:
    assert _cli.line("three.png", PREDICTION) == "3   75.0%  ▁▁▃▇▁▁▁▁▁▁  three.png"
