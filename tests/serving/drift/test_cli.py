"""`digits drift` with a stub of Prometheus and a real store; tests/e2e/test_drift.py has real services."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from digit_client.images import to_png
from digit_serving.drift.cli import drift
from digit_serving.feedback.records import Record, Source
from digit_serving.feedback.store import FeedbackStore
from tests.conftest import Digits
from tests.processes import free_port
from tests.serving.drift.conftest import StubPrometheus

CURRENT, REFERENCE = "[604800s]", "[2419200s] offset 604800s"


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(drift, [*map(str, arguments)], env=environment)


@pytest.fixture
def store(tmp_path: Path, digits: Digits) -> str:
    """URL of a store with feedback on answers of yesterday and of 20 days ago, and a labelled sample."""
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    now = datetime.now(UTC)

    def record(
        request_id: str, days: int, label: str, version: int = 1, source: Source = "feedback"
    ) -> Record:
        image = to_png(digits.one(7))
        time = now - timedelta(days=days)
        return Record(
            request_id=request_id,
            index=0,
            position=0,
            kind="predict",
            model="digits",
            version=version,
            predicted="7",
            confidence=0.75,
            is_digit=0.9375,
            input=image,
            answered_at=time,
            held_out=False,
            label=label,
            labelled_at=time,
            source=source,
        )

    with closing(FeedbackStore(url)) as opened:
        opened.save(
            [
                record("right", 1, "7", version=2),
                record("wrong", 1, "1", version=2),
                record("before", 20, "7"),
                record("long ago", 36, "1"),
                record("sampled", 1, "1", version=2, source="sample"),
            ]
        )
    return url


def test_drift_compares_both_windows(prometheus: StubPrometheus, store: str, tmp_path: Path) -> None:
    prometheus.count(CURRENT, {"0": 1000, "1": 3000}, {"0.5": 1000, "1.0": 4000, "+Inf": 4000})
    prometheus.count(REFERENCE, {"0": 4000, "1": 4000}, {"0.5": 2000, "1.0": 8000, "+Inf": 8000})
    page = tmp_path / "report.html"
    result = run("--prometheus", prometheus.url, "--store", store, "--report", page)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["digits", "label", "4,000", "8,000", "0.275", "shifted", "0:", "50.0%", "→", "25.0%"] in rows
    assert rows[4][:6] == ["digits", "confidence", "4,000", "8,000", "0.000", "stable"]
    assert ["digits", "2", "the", "last", "7", "days", "2", "50.0%"] in [row[:8] for row in rows]
    assert ["digits", "1", "the", "28", "days", "before", "1", "100.0%"] in [row[:8] for row in rows]
    assert "(PSI 0.275)" in page.read_text(encoding="utf-8")


def test_drift_with_other_windows_asks_for_them(prometheus: StubPrometheus) -> None:
    result = run("--prometheus", prometheus.url, "--since", "12h", "--reference", "1w")
    assert result.stdout.startswith("Answers of the last 12 hours, compared with the 7 days before\n")
    assert {query[query.index("[") : -2] for query in prometheus.queries} == {
        "[43200s]",
        "[604800s] offset 43200s",
    }


def test_drift_without_prometheus_shows_the_agreement_only(store: str) -> None:
    result = run(DIGITS_FEEDBACK=store)
    assert result.exit_code == 0
    assert result.stdout.startswith("Agreement with users' feedback\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --prometheus, --store or both"),
        (("--prometheus", "http://any", "--since", "yesterday"), "'yesterday' is not a duration, such as"),
        (("--prometheus", "http://any", "--since", "0d"), "'0d' is not a duration, such as"),
        (("--prometheus", "http://any", "--reference", "99999w"), "is not a duration, such as"),
    ],
)
def test_drift_wrong_usage_says_so(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_drift_failures_are_one_line(prometheus: StubPrometheus, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    missing = tmp_path / "missing.db"
    for arguments, message in (
        (("--prometheus", nobody), "can't reach Prometheus: "),
        (("--store", f"sqlite:///{missing}"), f"{missing} does not exist"),
        (("--store", "mysql://host/name"), "the URL of a store is "),
        (("--prometheus", prometheus.url, "--report", missing / "page.html"), f"'{missing}/page.html'"),
        (("--prometheus", prometheus.url, "--push", nobody), "can't push the gauges: "),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert message in line
