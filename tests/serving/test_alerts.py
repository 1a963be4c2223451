"""Alerts: promtool evaluates the rules of `serving/config/alerts.yml` on series that fire each, or not."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import parse

ROOT = Path(__file__).parent.parent.parent
RULES_FILE = ROOT / "serving" / "config" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RUNBOOK = (ROOT / "docs" / "how-to" / "runbook.md").read_text()
OPERATE = (ROOT / "docs" / "how-to" / "operate.md").read_text()

RUNBOOK_URL = "https://github.com/OWNER/digits/blob/main/docs/how-to/runbook.md"

HOUR = 60
DAY = 24 * HOUR
WEEK = 7 * DAY

Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series with a value every `step` minutes; the alert fires after `minutes`, or not if not `fires`."""

    alert: str
    series: Series
    fires: bool
    labels: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    description: str = ""
    severity: str = "warning"
    minutes: int = HOUR
    step: int = 1
    evaluation: int = 1
    """Minutes between two evaluations of the rules."""

    def __str__(self) -> str:
        return f"{self.alert}-{self.severity}-{'fires' if self.fires else 'is-silent'}"


def counter(name: str, *phases: tuple[float, int], job: str = "gateway", **labels: str) -> Series:
    """Return a counter that grows by a number per value, for so many values, and then by the next phase's."""
    value, parts = 0.0, []
    for growth, values in phases:
        parts.append(f"{value:g}+{growth:g}x{values}")
        value += growth * (values + 1)
    return {series(name, job=job, **labels): " ".join(parts)}


def series(name: str, **labels: str) -> str:
    matchers = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{matchers}}}"


def requests(route: str, *, each: float = 1000, times: int = HOUR, **statuses: float) -> Series:
    """Return requests a minute by status, such as `s503`, among `each`; the others have 200."""
    shares = {"s200": each - sum(statuses.values()), **statuses}
    found: Series = {}
    for status, growth in shares.items():
        found |= counter("digits_requests_total", (growth, times), route=route, status=status[1:])
    return found


def durations(route: str, le: str, *, within: int, of: int, times: int = HOUR) -> Series:
    name = "digits_request_duration_seconds"
    return counter(f"{name}_bucket", (within, times), route=route, le=le) | counter(
        f"{name}_count", (of, times), route=route
    )


def refusals(route: str, growth: float, times: int = HOUR) -> Series:
    return counter("digits_overload_total", (growth, times), route=route)


def up(job: str, *values: str, **labels: str) -> Series:
    return {
        series("up", job=job, instance=f"{job}-{number}", **labels): value
        for number, value in enumerate(values)
    }


def build_info(*values: str, **labels: str) -> Series:
    return {
        series("digits_build_info", job="gateway", instance=f"gateway-{number}", **labels): value
        for number, value in enumerate(values)
    }


def confidence(before: float, after: float) -> Series:
    """Mean confidences of 1,000 images per 10 minutes: `before` for 25 hours, then `after` for 4 hours."""
    sums = counter("digits_confidence_sum", (1000 * before, 149), (1000 * after, 24), model="digits")
    return sums | counter("digits_confidence_count", (1000, 174), model="digits")


def answers(before: list[float], after: list[float]) -> Series:
    """Labels 0, 1 …, each so often per two minutes: `before` for five weeks, then `after` for a week."""
    found: Series = {}
    for label, phases in enumerate(zip(before, after, strict=True)):
        found |= counter(
            "digits_predictions_total", *two_phases(*phases), model="digits", version="1", label=str(label)
        )
    return found


def confidences(before: list[float], after: list[float]) -> Series:
    """Confidences in five ranges, from the lowest, each so often per two minutes."""
    found: Series = {}
    for number, le in enumerate(("0.5", "0.9", "0.99", "0.999", "+Inf"), start=1):
        phases = two_phases(sum(before[:number]), sum(after[:number]))
        found |= counter("digits_confidence_bucket", *phases, model="digits", version="1", le=le)
    return found


def feedback(before: tuple[float, float], after: tuple[float, float]) -> Series:
    """Agreeing and differing feedback per two minutes: on version 1, and then on version 2."""
    found: Series = {}
    for agrees, old, new in zip(("true", "false"), before, after, strict=True):
        name = "digits_feedback_total"
        found |= counter(name, *two_phases(old, 0), model="digits", version="1", agrees=agrees)
        found |= counter(name, *two_phases(0, new), model="digits", version="2", agrees=agrees)
    return found


def two_phases(before: float, after: float) -> tuple[tuple[float, int], tuple[float, int]]:
    return (before, 5 * WEEK // 2 - 1), (after, WEEK // 2 + HOUR)


PREDICT, READ = "/v1/predict", "/v1/read"
# Growth per minute, from minute 3 to 5: a rate over five minutes would fire the alert at minute 9.
SHORT: tuple[tuple[float, int], ...] = ((0, 2), (100, 1), (0, HOUR))
GATEWAY = {"job": "gateway"}
DIGITS = {"job": "gateway", "model": "digits"}
FAILED_LOAD = series(
    ":tensorflow:cc:saved_model:load_attempt_count",
    job="model-server",
    model_path="/models/digits/2",
    status="fail",
)
THREE_DAYS: dict[str, Any] = {"minutes": 3 * DAY, "step": 2, "evaluation": 30}
# No evaluation is in both windows, and the change is between them.
SIX_WEEKS: dict[str, Any] = {"minutes": 6 * WEEK + 2 * HOUR, "step": 2, "evaluation": 5 * HOUR}


def burns(rate: float) -> str:
    return f"The error budget burns {rate:.1f} times as fast as the objective allows."


def objective(kind: str, route: str) -> dict[str, str]:
    return {**GATEWAY, "objective": kind, "route": route}


def gateway_down(series: Series, labels: dict[str, str]) -> Case:
    """Return the case of series in which GatewayDown fires with these labels."""
    summary, description = "No gateway answers.", "Predictions and readings are unavailable."
    return Case("GatewayDown", series, True, labels, summary, description, severity="critical")


CASES = [
    Case(
        "RequestsFail",
        requests(PREDICT, s503=20),
        True,
        objective("availability", PREDICT),
        "Many requests to /v1/predict fail.",
        burns(20),
        severity="critical",
    ),
    # Every request is refused unread, so that no other counter moves.
    Case(
        "RequestsFail",
        refusals(READ, 1000),
        True,
        objective("availability", READ),
        "Many requests to /v1/read fail.",
        burns(1000),
        severity="critical",
        minutes=10,
    ),
    Case("RequestsFail", requests(PREDICT, s503=0.9) | requests(READ, s504=0.9), False),
    # Rate limits and invalid images are the callers' faults.
    Case("RequestsFail", requests(PREDICT, s429=900, s422=99), False),
    Case(
        "RequestsFail",
        requests(PREDICT, s503=4, times=3 * DAY // 2),
        True,
        objective("availability", PREDICT),
        "More requests to /v1/predict fail than the objective allows.",
        burns(4),
        **THREE_DAYS,
    ),
    # One failure a day of a service that is hardly used.
    Case(
        "RequestsFail", requests(PREDICT, each=0.1, s503=1 / DAY, times=DAY), False, minutes=DAY, evaluation=5
    ),
    Case(
        "RequestsSlow",
        durations(READ, "2.0", within=80, of=100),
        True,
        objective("latency", READ),
        "Many requests to /v1/read are slow.",
        burns(20),
        severity="critical",
    ),
    Case("RequestsSlow", durations(PREDICT, "0.5", within=995, of=1000), False),
    Case(
        "RequestsSlow",
        durations(PREDICT, "0.5", within=96, of=100, times=3 * DAY // 2),
        True,
        objective("latency", PREDICT),
        "More requests to /v1/predict are slow than the objective allows.",
        burns(4),
        **THREE_DAYS,
    ),
    gateway_down(up("gateway", "1x10 0x50") | build_info("1x10 stale"), GATEWAY),
    # Another team's gateway in the same Prometheus; ours have left its list of targets.
    gateway_down(
        up("gateway", "1x10 stale", namespace="digits")
        | build_info("1x10 stale", namespace="digits")
        | up("gateway", "1x60", namespace="mail"),
        {**GATEWAY, "namespace": "digits"},
    ),
    # A gateway that has never answered.
    gateway_down(up("gateway", "0x60"), GATEWAY),
    Case(
        "GatewayDown",
        up("gateway", "1x60", "0x60", namespace="digits")
        | build_info("1x60", namespace="digits")
        | up("gateway", "0x60", namespace="mail"),
        False,
    ),
    Case(
        "ModelServerDown",
        up("model-server", "1x10 0x50", namespace="digits"),
        True,
        {"job": "model-server", "namespace": "digits"},
        "No model server answers.",
        "Predictions and readings get 503 until one is back.",
        severity="critical",
    ),
    Case(
        "ModelServerDown",
        up("gateway", "1x60"),
        True,
        {"job": "model-server"},
        "No model server answers.",
        "Predictions and readings get 503 until one is back.",
        severity="critical",
    ),
    Case("ModelServerDown", up("model-server", "0x60", "1x60"), False),
    Case(
        "InstancesDown",
        up("gateway", "1x60", "0x60", "0x60", namespace="digits") | build_info("1x60", namespace="digits"),
        True,
        {**GATEWAY, "namespace": "digits"},
        "2 instances of gateway don't answer.",
        "The other instances serve all requests.",
    ),
    Case(
        "InstancesDown",
        up("gateway", "1x60", "0x3 1x57", namespace="digits")
        | build_info("1x60", namespace="digits")
        | up("gateway", "0x60", "1x60", namespace="mail"),
        False,
    ),
    Case(
        "ModelServerFails",
        requests(PREDICT, s503=100)
        | counter(
            "digits_model_failures_total",
            (100, HOUR),
            model="digits",
            asked="default",
            code="model_unavailable",
        ),
        True,
        {**DIGITS, "code": "model_unavailable"},
        "Calls to the model digits fail: model_unavailable.",
        "The failed calls are 10% of the predictions and readings.",
    ),
    Case(
        "ModelServerFails",
        requests(PREDICT, s404=100)
        | counter(
            "digits_model_failures_total", (100, HOUR), model="digits", asked="named", code="model_not_found"
        ),
        False,
    ),
    Case(
        "ModelServerFails",
        requests(PREDICT, each=100)
        | counter(
            "digits_model_failures_total", *SHORT, model="digits", asked="default", code="model_unavailable"
        ),
        False,
        minutes=9,
    ),
    Case(
        "VersionCannotBeLoaded",
        {FAILED_LOAD: "1x60"},
        True,
        {"job": "model-server", "model_path": "/models/digits/2"},
        "/models/digits/2 can't be loaded.",
        "The version before it keeps serving.",
    ),
    Case("VersionCannotBeLoaded", {FAILED_LOAD.replace("fail", "success"): "1x60"}, False),
    Case(
        "Overloaded",
        requests(PREDICT, each=900) | refusals(PREDICT, 100),
        True,
        GATEWAY,
        "10% of the requests are refused for overload.",
        "Callers get 429 with Retry-After.",
    ),
    Case(
        "Overloaded",
        refusals(READ, 100),
        True,
        GATEWAY,
        "100% of the requests are refused for overload.",
        "Callers get 429 with Retry-After.",
    ),
    Case("Overloaded", requests(PREDICT, s429=900) | refusals(PREDICT, 0), False),
    Case("Overloaded", counter("digits_overload_total", *SHORT, route=PREDICT), False, minutes=9),
    Case(
        "WorkersRestart",
        counter("digits_worker_exits_total", (1, HOUR), instance="gateway:8080"),
        True,
        {**GATEWAY, "instance": "gateway:8080"},
        "Workers of gateway:8080 end and are replaced.",
        "Requests that a worker held when it ended got no answer.",
    ),
    Case(
        "WorkersRestart",
        counter("digits_worker_exits_total", (0, 58), (1, 1), instance="gateway:8080"),
        False,
    ),
    Case(
        "RateLimitsOff",
        counter("digits_rate_limit_store_failures_total", (1, HOUR)),
        True,
        GATEWAY,
        "Rate limits are off.",
        "The store of DIGITS_RATE_LIMIT_STORE does not answer, so that no caller is limited.",
    ),
    Case("RateLimitsOff", counter("digits_rate_limit_store_failures_total", *SHORT), False, minutes=9),
    Case(
        "FeedbackStoreFails",
        counter("digits_feedback_dropped_total", (1, HOUR)),
        True,
        GATEWAY,
        "Feedback, or answers to be corrected, can't be stored.",
        "Predictions and readings are not affected.",
    ),
    Case(
        "FeedbackStoreFails",
        requests("/v1/feedback", s503=1),
        True,
        GATEWAY,
        *(
            "Feedback, or answers to be corrected, can't be stored.",
            "Predictions and readings are not affected.",
        ),
    ),
    Case(
        "FeedbackStoreFails",
        requests("/v1/feedback", s404=100) | counter("digits_feedback_dropped_total", (0, HOUR)),
        False,
    ),
    Case(
        "ImagesRefused",
        counter("digits_images_total", (90, DAY // 2), (60, 90), model="digits", result="answered")
        | counter("digits_images_total", (10, DAY // 2), (40, 90), model="digits", result="no_digit"),
        True,
        DIGITS,
        "40% of the images for digits are refused.",
        "This is over 10 points more than on the day before.",
        minutes=DAY + 2 * HOUR,
        step=2,
        evaluation=10,
    ),
    Case(
        "ImagesRefused",
        counter("digits_images_total", (60, DAY // 2 + 90), model="digits", result="answered")
        | counter("digits_images_total", (40, DAY // 2 + 90), model="digits", result="no_digit"),
        False,
        minutes=DAY + 2 * HOUR,
        step=2,
        evaluation=10,
    ),
    Case(
        "ConfidenceFalls",
        confidence(0.99, 0.9),
        True,
        DIGITS,
        "Mean confidence of digits is 90%.",
        "This is over 5 points below that of the last day.",
        minutes=27 * HOUR,
        step=10,
        evaluation=10,
    ),
    Case("ConfidenceFalls", confidence(0.99, 0.97), False, minutes=27 * HOUR, step=10, evaluation=10),
    Case(
        "LabelsDrift",
        answers([10, 10, 10, 10], [3, 3, 17, 17]),
        True,
        {**DIGITS, "of": "label"},
        "The labels that digits answers have shifted.",
        "Population stability index of the week against the four before: 0.61.",
        **SIX_WEEKS,
    ),
    # A label that is new, with 5 % of the answers, has the term (0.05 - 0.0001) · ln(0.05 / 0.0001).
    Case(
        "LabelsDrift",
        answers([10, 9, 0], [10, 9, 1]),
        True,
        {**DIGITS, "of": "label"},
        "The labels that digits answers have shifted.",
        "Population stability index of the week against the four before: 0.31.",
        **SIX_WEEKS,
    ),
    Case("LabelsDrift", answers([10, 10, 10, 10], [8, 8, 12, 12]), False, **SIX_WEEKS),
    # Fewer than 100 answers a label: chance may move the index.
    Case("LabelsDrift", answers([0.01, 0.01], [0.001, 0.02]), False, **SIX_WEEKS),
    Case(
        "ConfidencesDrift",
        confidences([1, 1, 2, 6, 10], [3, 3, 4, 6, 4]),
        True,
        {**DIGITS, "of": "confidence"},
        "The confidences of digits have shifted.",
        "Population stability index of the week against the four before: 0.56.",
        **SIX_WEEKS,
    ),
    Case("ConfidencesDrift", confidences([1, 1, 2, 6, 10], [1, 2, 2, 6, 9]), False, **SIX_WEEKS),
    Case(
        "FeedbackDisagrees",
        feedback((8, 2), (6, 4)),
        True,
        {**DIGITS, "version": "2"},
        "Users confirm 60% of the answers of digits, version 2.",
        "This is over 15 points less than in the four weeks before.",
        **SIX_WEEKS,
    ),
    Case("FeedbackDisagrees", feedback((8, 2), (7, 3)), False, **SIX_WEEKS),
    # Fewer than 100 in the last week.
    Case("FeedbackDisagrees", feedback((8, 2), (0, 0.015)), False, **SIX_WEEKS),
]


def case_parameters() -> list[Any]:
    """Return the cases; one of six weeks takes seconds, so only those that fire are quick tests."""
    return [
        pytest.param(
            case,
            marks=[pytest.mark.slow] if case.minutes > 6 * WEEK and not case.fires else [],
            id=str(case),
        )
        for case in CASES
    ]


@pytest.mark.parametrize("case", case_parameters())
def test_alert_fires_as_expected(case: Case, promtool: str, tmp_path: Path) -> None:
    expected = {
        "exp_labels": {"severity": case.severity, **case.labels},
        "exp_annotations": {
            "summary": case.summary,
            "description": case.description,
            "runbook_url": f"{RUNBOOK_URL}#{case.alert.lower()}",
        },
    }
    test = {
        "interval": f"{case.step}m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{case.minutes}m",
                "alertname": case.alert,
                "exp_alerts": [expected] if case.fires else [],
            }
        ],
    }
    file = tmp_path / "test.yml"
    document = {
        "rule_files": [str(RULES_FILE)],
        "evaluation_interval": f"{case.evaluation}m",
        "tests": [test],
    }
    file.write_text(yaml.safe_dump(document))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_firing_case() -> None:
    fire = {(case.alert, case.severity) for case in CASES if case.fires}
    assert fire == {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}


def test_every_alert_has_a_silent_case() -> None:
    assert {case.alert for case in CASES if not case.fires} == {rule["alert"] for rule in ALERTS}


def test_runbook_has_a_section_for_each_alert() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE) == list(
        dict.fromkeys(rule["alert"] for rule in ALERTS)
    )


def test_page_has_the_objectives_of_the_rules() -> None:
    recorded = {
        (rule["labels"]["route"], rule["labels"]["objective"]): rule["expr"]
        for rule in RULES
        if rule.get("record") == "digits:slo_objective:ratio"
    }
    bounds = set(re.findall(r'_bucket\{route="(.*?)", le="(.*?)"', "".join(rule["expr"] for rule in RULES)))
    documented = re.findall(r"^\| `(/v1/\w+)` \| ([\d.]+) % \| ([\d.]+) % within ([\d.]+) s", OPERATE, re.M)
    assert recorded == {
        (route, objective): f"vector({float(percent) / 100:g})"
        for route, available, timely, _ in documented
        for objective, percent in (("availability", available), ("latency", timely))
    }
    assert bounds == {(route, str(float(seconds))) for route, _, _, seconds in documented}


def test_runbook_commands_of_digits_are_valid() -> None:
    commands = re.findall(r"`(?:[^`]* )?digits ((?:models|feedback) [^`]+)`", RUNBOOK)
    assert len(commands) >= 4
    for command in commands:
        arguments = command.replace(" N", " 2").split()
        if arguments[0] == "feedback":
            arguments += ["--store", "sqlite:///feedback.db"]
        parse(arguments)
