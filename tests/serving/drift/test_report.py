"""HTML report of a run."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from digit_serving.drift.analysis import Answers, Drift, FeedbackWindows, compare
from digit_serving.drift.report import MAX_BINS, render_page
from digit_serving.feedback.records import Agreement

CURRENT = Answers({"0": 900, "1": 100}, {"0–50%": 300, "50–100%": 700}, {"1": 100, "2": 900})
REFERENCE = Answers({"0": 1000, "1": 1000}, {"0–50%": 600, "50–100%": 1400}, {"1": 2000})
FEEDBACK = FeedbackWindows([Agreement("digits", 2, 100, 100, 80)], [])


def page(
    current: Answers | None = CURRENT,
    reference: Answers = REFERENCE,
    feedback: FeedbackWindows | None = FEEDBACK,
    model: str = "digits",
) -> str:
    models = None if current is None else compare({model: current}, {model: reference})
    time = datetime(2026, 11, 29, 3, tzinfo=UTC)
    return render_page(Drift(time, timedelta(days=7), timedelta(days=28), models, feedback))


class Text(HTMLParser):
    """Text of a page, a line for each element; `open` has the elements that have not ended."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.lines: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"] and data.strip():
            self.lines.append(" ".join(data.split()))


def text(html: str) -> str:
    parsed = Text(html)
    assert parsed.open == []
    return "\n".join(parsed.lines)


def test_page_states_windows_and_verdicts() -> None:
    found = text(page())
    assert "Until 2026-11-29 03:00 UTC, compared with the 28 days before." in found
    assert "Labels:\nshifted\n(PSI 0.879)" in found
    assert "Confidences:\nstable\n(PSI 0.000)" in found
    assert "the last 7 days: 1,000 answers\nthe 28 days before: 2,000 answers" in found
    assert "0\n90.0%\n50.0%\n1\n10.0%\n50.0%" in found
    assert "Version 2 gave 90.0% of the answers, and before 0.0%: a shift may be the version's." in found


def test_page_states_agreement_with_interval_and_bias() -> None:
    found = text(page(current=None))
    assert "Users report wrong answers more often than right ones" in found
    assert "digits\n2\nthe last 7 days\n100\n80.0%\n71.1% to 86.7%" in found
    assert "index" not in found


def test_page_bars_are_as_wide_as_shares() -> None:
    widths = re.findall(r'<div style="width: ([\d.]+)%">', page(feedback=None))
    assert widths[:4] == ["100.00", "55.56", "11.11", "55.56"]


def test_page_without_answers_and_feedback_says_so() -> None:
    nothing = Drift(datetime.now(UTC), timedelta(days=7), timedelta(days=28), [], FeedbackWindows([], []))
    assert text(render_page(nothing)).count("None in either window.") == 2


def test_page_of_an_empty_window_has_no_verdict() -> None:
    found = text(page(current=Answers({}, {}, {})))
    assert "Labels:\ntoo few answers\n" in found
    assert "0\n0.0%\n50.0%" in found


def test_page_of_many_labels_shows_the_largest_changes() -> None:
    reference = {f"label {number}": 1000.0 for number in range(MAX_BINS + 10)}
    found = text(page(Answers(reference | {"label 29": 5000}, {}, {}), Answers(reference, {}, {})))
    assert f"The {MAX_BINS} of {MAX_BINS + 10} that have changed most." in found
    assert found.index("label 29") < found.index("label 0")


def test_page_escapes_names() -> None:
    html = page(Answers({"<b>": 1000}, {}, {}), model="<script>")
    assert "&lt;b&gt;" in html
    assert "<script>" not in html


@pytest.mark.parametrize("pattern", [r"https?://", r"<script", r"<img", r"url\("])
def test_page_has_no_external_resources(pattern: str) -> None:
    assert not re.search(pattern, page())
