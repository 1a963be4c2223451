"""Records without a database."""

import pytest

from digit_serving.feedback.records import Agreement


@pytest.mark.parametrize(
    ("agreeing", "low", "high"), [(0, 0, 0.0370), (80, 0.7112, 0.8666), (100, 0.9630, 1)]
)
def test_agreement_interval_is_wilsons(agreeing: int, low: float, high: float) -> None:
    agreement = Agreement("digits", 1, records=120, labelled=100, agreeing=agreeing)
    assert agreement.share == agreeing / 100
    assert agreement.interval == pytest.approx((low, high), abs=5e-5)
