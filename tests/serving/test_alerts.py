"""Alerts: promtool evaluates the rules of `serving/config/alerts.yml` on series that fire each, or not."""

import json
import math
import random
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
RULES_FILE = ROOT / "serving" / "config" / "alerts.yml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RUNBOOK = (ROOT / "docs" / "how-to" / "runbook.md").read_text()
RUNBOOK_ADDRESS = '{{ or $externalLabels.runbook "docs/how-to/runbook.md" }}'
"""Template of the address, whose default is the file."""
OPERATE = (ROOT / "docs" / "how-to" / "operate.md").read_text()

HOUR = 60
DAY = 24 * HOUR
WEEK = 7 * DAY

Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series with a value every `step` minutes, and the alert's labels after `minutes`, None if it is silent.

    `value` is the rule's value as the annotations print it; `severity` may be `critical warning`, for both.
    """

    alert: str
    series: Series
    labels: dict[str, str] | None = None
    value: str = ""
    severity: str = "warning"
    minutes: int = HOUR
    step: int = 1
    evaluation: int = 1
    """Minutes between two evaluations of the rules."""

    def __str__(self) -> str:
        return f"{self.alert}-{self.severity}-{'is-silent' if self.labels is None else 'fires'}"

    def expected(self) -> list[dict[str, Any]]:
        """Return the alerts that fire, with the texts of the rule."""
        if self.labels is None:
            return []
        rules = {rule["labels"]["severity"]: rule for rule in ALERTS if rule["alert"] == self.alert}
        return [self._alert(severity, rules[severity], self.labels) for severity in self.severity.split()]

    def _alert(self, severity: str, rule: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
        labels = {"job": "gateway", "severity": severity} | labels
        labels = {name: value for name, value in labels.items() if value}
        annotations = {
            name: re.sub(
                r"\{\{ \$(?:value|labels\.(\w+)).*?\}\}",
                lambda found: labels.get(found[1], "") if found[1] else self.value,
                text.replace(RUNBOOK_ADDRESS, "docs/how-to/runbook.md"),
            )
            for name, text in rule["annotations"].items()
        }
        return {"exp_labels": labels, "exp_annotations": annotations}

    def to_document(self) -> dict[str, Any]:
        """Return the case as promtool's group of tests; its name is printed where it fails."""
        expected = {"eval_time": f"{self.minutes}m", "alertname": self.alert, "exp_alerts": self.expected()}
        return {
            "name": str(self),
            "interval": f"{self.step}m",
            "input_series": [{"series": name, "values": values} for name, values in self.series.items()],
            "alert_rule_test": [expected],
        }


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


def mean_seconds(before: float, after: float, each: int = 1200) -> Series:
    """Return predictions per two minutes that take so long on average, for a day and then for two hours."""
    name, day = "digits_request_duration_seconds", DAY // 2 - 1
    sums = counter(f"{name}_sum", (each * before, day), (each * after, HOUR), route=PREDICT)
    return sums | counter(f"{name}_count", (each, day + HOUR + 1), route=PREDICT)


def refusals(route: str, growth: float, times: int = HOUR) -> Series:
    return counter("digits_overload_total", (growth, times), route=route)


def up(job: str, *values: str, name: str = "up", **labels: str) -> Series:
    """Return a series of each instance of the job, with these values."""
    return {
        series(name, job=job, instance=f"{job}-{number}", **labels): value
        for number, value in enumerate(values)
    }


def build_info(*values: str, **labels: str) -> Series:
    return up("gateway", *values, name="digits_build_info", **labels)


def week(agrees: float, differs: float, each: float) -> Series:
    """Return agreeing and differing feedback, and answers, a minute of the first day."""
    found = counter("digits_predictions_total", (each, DAY), model="digits", version="1", label="7")
    for name, growth in (("true", agrees), ("false", differs)):
        found |= counter("digits_feedback_total", (growth, DAY), model="digits", version="1", agrees=name)
    return found


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


def labels(*phases: tuple[Sequence[float], int]) -> Series:
    """Return labels 0, 1 …, each so often a minute, for so many minutes."""
    found: Series = {}
    for label in range(len(phases[0][0])):
        each = [(growth[label], minutes - 1) for growth, minutes in phases]
        found |= counter("digits_predictions_total", *each, model="digits", version="1", label=str(label))
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
DIGITS = {"model": "digits"}
OF_LABEL = DIGITS | {"of": "label"}
MODEL_SERVER = {"job": "model-server"}
PULL = {"job": "pull"}
OURS, THEIRS = {"namespace": "digits"}, {"namespace": "mail"}
RUNNING = build_info("1x60", **OURS)
FAILED_LOAD = series(
    ":tensorflow:cc:saved_model:load_attempt_count",
    job="model-server",
    model_path="/models/digits/2",
    status="fail",
)
THREE_DAYS: dict[str, Any] = {"minutes": 3 * DAY, "step": 2, "evaluation": 30}
# No evaluation is in both windows, and the change is between them.
SIX_WEEKS: dict[str, Any] = {"minutes": 6 * WEEK + 2 * HOUR, "step": 2, "evaluation": 5 * HOUR}
A_DAY_LATER: dict[str, Any] = {"minutes": DAY + 2 * HOUR, "step": 2, "evaluation": 10}
EIGHT_DAYS: dict[str, Any] = {"minutes": 8 * DAY, "step": 2, "evaluation": HOUR}
FIRST_DAY: dict[str, Any] = {"minutes": 2 * HOUR, "step": 2, "evaluation": 10}
FIRST_HOURS: dict[str, Any] = {"minutes": 5 * HOUR, "step": 10, "evaluation": 10}
LATER_THAT_DAY: dict[str, Any] = {"minutes": 27 * HOUR, "step": 10, "evaluation": 10}
LATER: dict[str, Any] = {"minutes": 11 * HOUR - 5, "evaluation": 5}
# Within a quarter of an hour of the change, and two hours later.
SOON_AND_LATER: tuple[dict[str, Any], ...] = ({"minutes": 42}, {"minutes": 150, "evaluation": 5})


def objective(kind: str, route: str) -> dict[str, str]:
    return {"objective": kind, "route": route}


def exits(*phases: tuple[float, int]) -> Series:
    return counter("digits_worker_exits_total", *phases, instance="gateway:8080")


def failures(*phases: tuple[float, int], asked: str = "default", code: str = "model_unavailable") -> Series:
    """Return failed calls of the model."""
    return counter("digits_model_failures_total", *phases, model="digits", asked=asked, code=code)


def searches(*phases: tuple[float, int]) -> Series:
    """Return searches of the reader for digits."""
    return counter("digits_stage_duration_seconds_count", *phases, stage="find")


missing_reader = partial(failures, asked="reader", code="model_not_found")


def images(*phases: tuple[float, float, int]) -> Series:
    """Return images per two minutes: so many answered and so many refused, for so many values."""
    yes, no = ([(phase[index], phase[2]) for phase in phases] for index in (0, 1))
    return counter("digits_images_total", *yes, model="digits", result="answered") | counter(
        "digits_images_total", *no, model="digits", result="no_digit"
    )


# Three days without an outage, which would explain the errors.
HEALTHY = up("gateway", "1x2200") | build_info("1x2200") | up("model-server", "1x2200")
FAILED_JOB = {"job_name": "publish", "condition": "true"}


def volume(available: int, namespace: str) -> Series:
    """Return the volume of models of a namespace, in percent of its size; ours has a gateway."""
    labels = {"job": "kubelet", "namespace": namespace, "persistentvolumeclaim": "models"}
    return {
        series("kubelet_volume_stats_available_bytes", **labels): f"{available}x60",
        series("kubelet_volume_stats_capacity_bytes", **labels): "100x60",
    } | RUNNING


def certificate(ends: float, *values: str) -> Series:
    """Return certificates that end so many days after the start of the test, at the Unix time 0."""
    name = "digits_tls_certificate_expiry_timestamp_seconds"
    return up("gateway", *(value.format(86400 * ends) for value in values or ["{}x60"]), name=name)


def answered(*phases: tuple[float, int], **labels: str) -> Series:
    """Return predictions a minute with this status, by default 200."""
    return counter("digits_requests_total", *phases, route=PREDICT, **{"status": "200"} | labels)


def written(*values: str) -> Series:
    """Return the times at which each worker's instance wrote into the store of feedback."""
    return up("gateway", *values, name="digits_feedback_written_timestamp_seconds")


def pulled(value: str, **labels: str) -> Series:
    return up("pull", value, name="digits_models_pulled_timestamp_seconds", **labels)


def killed_containers(reason: str, name: str = "gateway") -> Series:
    """Return the restarts of a container: two in the last ten minutes, for this reason."""
    labels = {"job": "kube-state-metrics", "namespace": "digits", "pod": "gateway-0", "container": name}
    terminated = "kube_pod_container_status_last_terminated_reason"
    return (
        {series("kube_pod_container_status_restarts_total", **labels): "0x55 1 1 2 2 2"}
        | {series(terminated, **labels, reason=reason): "1x60"}
        | RUNNING
    )


def failed_job(namespace: str) -> Series:
    """Return a failed Job of a namespace; ours has a gateway."""
    labels = {"job": "kube-state-metrics", "namespace": namespace, **FAILED_JOB}
    return {series("kube_job_failed", **labels): "1x60"} | RUNNING


def keyed(key: str, *phases: tuple[float, int], status: str = "200") -> Series:
    """Return requests a minute with this key, "" for one that the file does not have."""
    return counter("digits_key_requests_total", *phases, key=key, status=status)


def lost_key(share: int, status_key: str = "") -> Series:
    """Return 600 requests a minute, of which this share in percent has 401 after 90 minutes."""
    lost = 6 * share
    return (
        answered((600, 89), (600 - lost, 5 * HOUR))
        | answered((0, 89), (lost, 5 * HOUR), status="401")
        | keyed("kept", (600 - lost, 89), (600 - lost, 5 * HOUR))
        | keyed("lost", (lost, 89), (0, 5 * HOUR))
        | keyed(status_key, (0, 89), (lost, 5 * HOUR), status="401")
    )


def growing(*pieces: tuple[float, float], status: str = "200") -> Series:
    """Return a count of predictions that rises evenly within each hour, from one rate a minute to another."""
    phases = [(start + (end - start) * minute / HOUR, 0) for start, end in pieces for minute in range(HOUR)]
    return answered(*phases, status=status)


FLOOR = {series("digits:traffic_floor:rate1m", **OURS): "6x60"} | RUNNING
HUNG = (
    answered((100, 29), (0, 30))
    | {series("digits_requests_total", job="gateway", route=PREDICT, status="504"): "_x30 100+100x30"}
    | counter("digits_request_duration_seconds_bucket", (100, 29), (0, 30), route=PREDICT, le="0.5")
    | counter("digits_request_duration_seconds_count", (100, 60), route=PREDICT)
)


page = partial(Case, severity="critical")

CASES = [
    page("RequestsFail", requests(PREDICT, s503=20), objective("availability", PREDICT), "20.0"),
    # Every request is refused unread, so that no other counter moves.
    page("RequestsFail", refusals(READ, 1000), objective("availability", READ), "1000.0", minutes=10),
    Case("RequestsFail", requests(PREDICT, s503=0.9) | requests(READ, s504=0.9)),
    # Rate limits and invalid images are the callers' faults.
    Case("RequestsFail", requests(PREDICT, s429=900, s422=99)),
    Case(
        "RequestsFail",
        requests(PREDICT, s503=4, times=3 * DAY // 2) | HEALTHY,
        objective("availability", PREDICT),
        "4.0",
        **THREE_DAYS,
    ),
    # One failure a day of a service that is hardly used.
    Case("RequestsFail", requests(PREDICT, each=0.1, s503=1 / DAY, times=DAY), minutes=DAY, evaluation=5),
    page("RequestsSlow", durations(READ, "2.0", within=80, of=100), objective("latency", READ), "20.0"),
    Case("RequestsSlow", durations(PREDICT, "0.5", within=995, of=1000)),
    Case(
        "RequestsSlow",
        durations(PREDICT, "0.5", within=96, of=100, times=3 * DAY // 2) | HEALTHY,
        objective("latency", PREDICT),
        "4.0",
        **THREE_DAYS,
    ),
    # Within the objective: from 40 to 90 ms, 60 to 100, 10 to 40, and 40 to 90 of a few requests.
    Case("LatencyDoubles", mean_seconds(0.04, 0.09), {"route": PREDICT}, "90ms", **A_DAY_LATER),
    Case("LatencyDoubles", mean_seconds(0.06, 0.1), **A_DAY_LATER),
    Case("LatencyDoubles", mean_seconds(0.01, 0.04), **A_DAY_LATER),
    Case("LatencyDoubles", mean_seconds(0.04, 0.09, each=40), **A_DAY_LATER),
    # Twenty minutes after an outage that has paged.
    Case(
        "RequestsFail",
        up("model-server", "1x30 0x9 1x20")
        | answered((100, 29), (0, 9), (100, 20))
        | answered((0, 29), (100, 9), (0, 20), status="503"),
    ),
    # Calls that hang: each request fails, after five seconds. A rate does not know the first value of a new
    # status, so that requests are slow one minute before they fail.
    Case("RequestsSlow", HUNG, minutes=40),
    page("RequestsFail", HUNG, objective("availability", PREDICT), "220.8", minutes=40),
    page("GatewayDown", up("gateway", "1x10 0x50") | build_info("1x10 stale"), {}),
    # Another team's gateway in the same Prometheus; ours have left its list of targets.
    page(
        "GatewayDown",
        up("gateway", "1x10 stale", **OURS)
        | build_info("1x10 stale", **OURS)
        | up("gateway", "1x60", **THEIRS),
        OURS,
    ),
    # A gateway that has never answered.
    page("GatewayDown", up("gateway", "0x60"), {}),
    Case("GatewayDown", up("gateway", "1x60", "0x60", **OURS) | RUNNING | up("gateway", "0x60", **THEIRS)),
    page("ModelServerDown", up("model-server", "1x10 0x50", **OURS), MODEL_SERVER | OURS),
    page("ModelServerDown", up("gateway", "1x60"), MODEL_SERVER),
    Case("ModelServerDown", up("model-server", "0x60", "1x60")),
    Case("InstancesDown", up("gateway", "1x60", "0x60", "0x60", **OURS) | RUNNING, OURS, "2"),
    Case(
        "InstancesDown",
        up("gateway", "1x60", "0x3 1x57", **OURS) | RUNNING | up("gateway", "0x60", "1x60", **THEIRS),
    ),
    Case(
        "ModelServerFails",
        requests(PREDICT, s503=100) | failures((100, HOUR)),
        DIGITS | {"code": "model_unavailable"},
        "10%",
    ),
    Case(
        "ModelServerFails",
        requests(PREDICT, s404=100) | failures((100, HOUR), asked="named", code="model_not_found"),
    ),
    Case("ModelServerFails", requests(PREDICT, each=100) | failures(*SHORT), minutes=9),
    # The reader is gone after half an hour; for a minute; there was none, and nobody expects it.
    Case("ReaderMissing", searches((100, 29), (100, 30)) | missing_reader((0, 29), (100, 30)), {}),
    Case("ReaderMissing", searches((100, 59)) | missing_reader((0, 29), (100, 0), (0, 30))),
    Case("ReaderMissing", searches((100, 59)) | missing_reader((100, 59))),
    Case("VersionCannotBeLoaded", {FAILED_LOAD: "1x60"}, MODEL_SERVER | {"model_path": "/models/digits/2"}),
    Case("VersionCannotBeLoaded", {FAILED_LOAD.replace("fail", "success"): "1x60"}),
    Case("Overloaded", requests(PREDICT, each=900) | refusals(PREDICT, 100), {}, "10%"),
    Case("Overloaded", refusals(READ, 100), {}, "100%"),
    Case("Overloaded", requests(PREDICT, s429=900) | refusals(PREDICT, 0)),
    Case("Overloaded", counter("digits_overload_total", *SHORT, route=PREDICT), minutes=9),
    Case(
        "CallersUnauthorized",
        answered((100, 29), (0, HOUR)) | answered((0, 29), (100, HOUR), status="401"),
        {},
        "100%",
        "critical warning",
    ),
    # Half of the callers do not know of a key's rotation.
    *(
        Case(
            "CallersUnauthorized",
            answered((100, 29), (50, 3 * HOUR)) | answered((0, 29), (50, 3 * HOUR), status="401"),
            {},
            "50%",
            **time,
        )
        for time in SOON_AND_LATER
    ),
    # Traffic rises from 20 to 600 a minute, so that more have an answer than before.
    *(
        Case(
            "CallersUnauthorized",
            growing((20, 20), (20, 20), (10, 300))
            | growing((0, 0), (0, 0), (10, 300), status="401")
            | keyed(
                "", *[(0, 0)] * 120, *[(10 + 290 * minute / HOUR, 0) for minute in range(HOUR)], status="401"
            ),
            {},
            "50%",
            minutes=minutes,
        )
        for minutes in (135, 150, 179)
    ),
    # A scanner without a key calls beside others, or a service that nobody else does.
    Case("CallersUnauthorized", answered((100, 59)) | answered((0, 29), (900, 30), status="401")),
    Case("CallersUnauthorized", requests(PREDICT, each=100, s401=100)),
    # A tenth of the callers, or fewer: their key has left the file, or has ended.
    *(
        Case("KeyUnauthorized", lost_key(share, key), {"key": "lost"}, value, minutes=minutes, evaluation=5)
        for share, key, minutes, value in (
            (10, "", 115, "5400"),
            (15, "", 115, "8100"),
            (1, "lost", 115, "540"),
            (15, "", 6 * HOUR, "8100"),
        )
    ),
    # Its callers have finished, while others use unknown keys all the time; another has answers with it.
    Case(
        "KeyUnauthorized",
        keyed("lost", (60, 59), (0, HOUR)) | keyed("", (60, 2 * HOUR), status="401"),
        minutes=80,
    ),
    Case(
        "KeyUnauthorized",
        lost_key(10) | keyed("lost", (60, 89), (1, 5 * HOUR)),
        minutes=115,
    ),
    Case("RequestsInvalid", requests(PREDICT, each=600, s400=240), {}, "40%"),
    Case("RequestsInvalid", requests(PREDICT, each=600, s400=100)),
    Case("RequestsInvalid", requests(PREDICT, each=120, s400=55)),
    *(
        Case(
            "RequestsInvalid",
            answered((100, 29), (0, 3 * HOUR)) | answered((0, 29), (100, 3 * HOUR), status="400"),
            {},
            "100%",
            **time,
        )
        for time in SOON_AND_LATER
    ),
    # One clumsy client sends most, and less than one a second; the traffic ends, as after the office hours.
    Case("RequestsInvalid", answered((5, 59)) | answered((0, 29), (50, 30), status="422")),
    Case("RequestsInvalid", answered((100, 29), (10, 30)) | answered((5, 59), status="422")),
    Case("CallersRateLimited", requests(PREDICT, s429=900) | build_info("1x60"), {}, "90%"),
    Case("CallersRateLimited", requests(PREDICT, s429=900) | refusals(PREDICT, 900) | build_info("1x60")),
    Case("CertificateEnds", certificate(13), {}, "12d 23h 0m 0s"),
    Case("CertificateEnds", certificate(15)),
    # It has expired: no scrape succeeds any more, or one by a connection of before.
    page("CertificateEnds", certificate(0.01, "{}x14 stale") | up("gateway", "1x14 0x46"), {}),
    Case("CertificateEnds", certificate(0.01) | up("gateway", "1x60"), {}, "-45m 36s", "critical warning"),
    # Another one, which pods have that have replaced the others.
    Case(
        "CertificateEnds",
        certificate(0.01, "{}x14 stale", "8640000x60") | up("gateway", "1x14 stale", "1x60"),
    ),
    page("TrafficStops", answered((120, 4 * DAY - HOUR), (0, HOUR)), {}, "1.0", **EIGHT_DAYS),
    # It began two days ago, or today.
    *(
        Case(
            "TrafficStops",
            answered((100, day * DAY + 8 * HOUR), (0, 3 * HOUR)) | build_info(f"1x{3 * DAY}"),
            {},
            "0.0",
            minutes=day * DAY + 8 * HOUR + later,
            evaluation=5,
        )
        for day in (0, 1)
        for later in (20, 150)
    ),
    # A night after it; a few minutes of use; traffic that comes back.
    Case("TrafficStops", growing((100, 100), (100, 0), (0, 0), (0, 0)), minutes=200),
    Case("TrafficStops", answered((100, 40), (0, HOUR)), minutes=90),
    Case("TrafficStops", answered((100, 2 * HOUR), (0, 30), (100, HOUR)), minutes=180),
    # Below the floor: traffic that has ended, and none ever, with others who have no floor.
    Case("TrafficStops", FLOOR | answered((20, 29), (0, 30), **OURS), OURS, "0.0"),
    Case("TrafficStops", FLOOR | build_info("1x60", **THEIRS), OURS, "0.0"),
    # Above it, and a new gateway.
    Case("TrafficStops", FLOOR | answered((7, 59), **OURS)),
    Case("TrafficStops", FLOOR | build_info("_x45 1x15", **OURS)),
    Case("WorkersRestart", exits((0, 53), (1, 1), (0, 4)), {}, severity="critical warning"),
    Case("WorkersRestart", exits((0, 58), (1, 1)), {}),
    Case("WorkersRestart", exits((1, 1), (0, 58))),
    page("WorkersRestart", killed_containers("OOMKilled"), {"job": "kube-state-metrics", **OURS}),
    Case("WorkersRestart", killed_containers("Error")),
    Case("WorkersRestart", killed_containers("OOMKilled", "model-server")),
    Case("RateLimitsOff", counter("digits_rate_limit_store_failures_total", (1, HOUR)), {}),
    Case("RateLimitsOff", counter("digits_rate_limit_store_failures_total", *SHORT), minutes=9),
    Case("FeedbackStoreFails", counter("digits_feedback_dropped_total", (1, HOUR)), {}),
    Case("FeedbackStoreFails", requests("/v1/feedback", s503=1), {}),
    # Nobody sends, and the database is down for half an hour. One of two gateways writes.
    Case("FeedbackStoreFails", written("0+60x30 1800x30", "0+60x30 1800x30"), {}),
    Case("FeedbackStoreFails", written("0+60x60", "0+60x30 1800x30")),
    Case(
        "FeedbackStoreFails",
        requests("/v1/feedback", s404=100) | counter("digits_feedback_dropped_total", (0, HOUR)),
    ),
    # The bucket refuses; the sidecar restarts again and again; a pod that is gone.
    Case("PullFails", pulled("0+60x30 1800x30", **OURS) | up("pull", "1x60", **OURS), PULL | OURS),
    Case("PullFails", pulled("0x10 stale", **OURS) | up("pull", "1x10 0x50", **OURS), PULL | OURS),
    Case("PullFails", pulled("0+60x30 stale", **OURS) | up("pull", "1x30 stale", **OURS)),
    # A large version took five minutes.
    Case("PullFails", pulled("0+60x50 3000x5 3360+60x10") | up("pull", "1x60"), minutes=56),
    Case(
        "DiskFills",
        {
            series("node_filesystem_avail_bytes", job="node", mountpoint="/", fstype="ext4"): "5x60",
            series("node_filesystem_size_bytes", job="node", mountpoint="/", fstype="ext4"): "100x60",
        },
        {"job": "node", "mountpoint": "/", "fstype": "ext4"},
        "5%",
    ),
    Case(
        "DiskFills",
        volume(available=5, namespace="digits"),
        {"job": "kubelet", "namespace": "digits", "persistentvolumeclaim": "models"},
        "5%",
    ),
    Case("DiskFills", volume(available=50, namespace="digits") | volume(available=5, namespace="mail")),
    Case("JobFails", failed_job("digits"), {"job": "kube-state-metrics", **OURS, **FAILED_JOB}),
    Case("JobFails", failed_job("mail")),
    Case("Watchdog", {}, {"job": ""}, severity="none"),
    Case("ImagesRefused", images((90, 10, DAY // 2), (60, 40, 90)), DIGITS, "40%", **A_DAY_LATER),
    Case("ImagesRefused", images((60, 40, DAY // 2 + 90)), **A_DAY_LATER),
    # On the first day, or more than half for long; those of the perceptron, and few.
    Case("ImagesRefused", images((70, 30, 2 * HOUR)), DIGITS, "30%", **FIRST_DAY),
    Case("ImagesRefused", images((40, 60, DAY // 2 + 90)), DIGITS, "60%", **A_DAY_LATER),
    Case("ImagesRefused", images((85, 15, 2 * HOUR)), **FIRST_DAY),
    Case("ImagesRefused", images((0, 2, 2 * HOUR)), **FIRST_DAY),
    Case("ConfidenceFalls", confidence(0.99, 0.9), DIGITS, "90%", **LATER_THAT_DAY),
    Case("ConfidenceFalls", confidence(0.99, 0.97), **LATER_THAT_DAY),
    Case("ConfidenceFalls", confidence(0.55, 0.55), DIGITS, "55%", **FIRST_HOURS),
    Case("ConfidenceFalls", confidence(0.45, 0.45), DIGITS, "45%", **LATER_THAT_DAY),
    Case("ConfidenceFalls", confidence(0.7, 0.7), **FIRST_HOURS),
    Case("ConfidenceFalls", confidence(0.55, 0.55), **LATER_THAT_DAY),
    # After a promotion all answers are one label; a probe sends one image all night.
    Case("LabelsCollapse", labels(([100] * 9, 10 * HOUR), ([0] * 8 + [900], HOUR)), DIGITS, "100%", **LATER),
    Case("LabelsCollapse", labels(([100] * 9, 10 * HOUR), ([0] * 8 + [10], HOUR)), **LATER),
    Case("LabelsCollapse", labels(([10] * 8 + [900], 10 * HOUR), ([0] * 8 + [900], HOUR)), **LATER),
    # Readings go on, whose digits the reader names as well; a bias that is no collapse.
    Case(
        "LabelsCollapse",
        labels(([90] * 10, 10 * HOUR), ([81, 81, *[0] * 7, 738], HOUR)),
        DIGITS,
        "82%",
        **LATER,
    ),
    Case("LabelsCollapse", labels(([90] * 10, 10 * HOUR), ([30] * 9 + [630], HOUR)), **LATER),
    # So it is since the first hour; a probe; and what is usual after a day.
    Case("LabelsCollapse", labels(([0] * 8 + [60], 2 * HOUR)), DIGITS, "100%"),
    Case("LabelsCollapse", labels(([0] * 8 + [10], 2 * HOUR))),
    Case("LabelsCollapse", labels(([1] * 8 + [60], 2 * HOUR))),
    Case("LabelsCollapse", labels(([0] * 8 + [60], DAY + 3 * HOUR)), minutes=DAY + 2 * HOUR, evaluation=5),
    Case("LabelsDrift", answers([10, 10, 10, 10], [3, 3, 17, 17]), OF_LABEL, "0.61", **SIX_WEEKS),
    # A label that is new, with 5 % of the answers, has the term (0.05 - 0.0001) · ln(0.05 / 0.0001).
    Case("LabelsDrift", answers([10, 9, 0], [10, 9, 1]), OF_LABEL, "0.31", **SIX_WEEKS),
    Case("LabelsDrift", answers([10, 10, 10, 10], [8, 8, 12, 12]), **SIX_WEEKS),
    # Fewer than 100 answers a label: chance may move the index.
    Case("LabelsDrift", answers([0.01, 0.01], [0.001, 0.02]), **SIX_WEEKS),
    Case(
        "ConfidencesDrift",
        confidences([1, 1, 2, 6, 10], [3, 3, 4, 6, 4]),
        DIGITS | {"of": "confidence"},
        "0.56",
        **SIX_WEEKS,
    ),
    Case("ConfidencesDrift", confidences([1, 1, 2, 6, 10], [1, 2, 2, 6, 9]), **SIX_WEEKS),
    Case("FeedbackDisagrees", feedback((8, 2), (6, 4)), DIGITS | {"version": "2"}, "60%", **SIX_WEEKS),
    Case("FeedbackDisagrees", feedback((8, 2), (7, 3)), **SIX_WEEKS),
    # On the first day, a fifth or a twelfth of all answers are corrected.
    Case("FeedbackDisagrees", week(1.2, 0.8, each=4), DIGITS | {"version": "1"}, "60%", **LATER),
    Case("FeedbackDisagrees", week(1.2, 0.8, each=10), **LATER),
    # Fewer than 100 in the last week.
    Case("FeedbackDisagrees", feedback((8, 2), (0, 0.015)), **SIX_WEEKS),
]


def rules_of(alert: str) -> dict[str, Any]:
    """Return the groups without the rules that the alert does not read: all would take ten times as long."""
    needed, new = set[str](), {alert}
    while new:
        needed |= new
        read = " ".join(rule["expr"] for rule in RULES if name_of(rule) in needed)
        new = {name_of(rule) for rule in RULES if name_of(rule) in read} - needed
    groups = [group | {"rules": [r for r in group["rules"] if name_of(r) in needed]} for group in GROUPS]
    return {"groups": groups}


def name_of(rule: dict[str, Any]) -> str:
    name: str = rule.get("alert") or rule["record"]
    return name


@pytest.mark.parametrize(
    "long", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["within-an-hour", "over-days"]
)
def test_alerts_fire_as_expected(long: bool, promtool: str, tmp_path: Path) -> None:
    """One process evaluates all cases: a file for each alert and evaluation interval."""
    tests: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for case in CASES:
        if (case.minutes > HOUR) is long:
            tests.setdefault((case.alert, case.evaluation), []).append(case.to_document())
    files = []
    for (alert, interval), documents in tests.items():
        rules, file = tmp_path / f"rules-{alert}.yml", tmp_path / f"{alert}-{interval}.yml"
        rules.write_text(yaml.safe_dump(rules_of(alert)))
        settings = {"rule_files": [str(rules)], "evaluation_interval": f"{interval}m"}
        file.write_text(yaml.safe_dump({**settings, "tests": documents}))
        files.append(file)
    done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class OrdinaryDays:
    """Series of two gateways from six in the morning of their first day: traffic by day, none by night.

    There are a deploy, a job in the evening that has a key of its own, and a scanner without one. Few
    requests are refused, fail or are slow. `minutes` is at which minute they end.
    """

    DEPLOY = 5 * HOUR
    JOB = range(14 * HOUR, 15 * HOUR)
    SCANS = (*range(8 * HOUR, 8 * HOUR + 30), *range(15 * HOUR + 5, 15 * HOUR + 20))

    def __init__(self, minutes: int) -> None:
        self._random = random.Random(83)
        self._values = defaultdict[str, list[str]](lambda: ["_"] * (minutes + 1))
        self._totals = Counter[str]()
        for minute in range(minutes):
            for number in (0, 1):
                replaced_at = self.DEPLOY + 3 * number
                name = f"gateway-{number}-{'new' if minute >= replaced_at else 'old'}"
                self._answer(minute, name)
                if minute == replaced_at:
                    self._stop(minute, name.replace("new", "old"))
                # One model server is replaced after the other.
                down = minute - replaced_at in (4, 5)
                self._set("up", minute, str(int(not down)), job="model-server", instance=str(number))
        self.series = {name: " ".join(values) for name, values in self._values.items()}

    def _answer(self, minute: int, instance: str) -> None:
        """Add a minute of the instance's requests."""
        hour = minute / HOUR % 24
        usual = 300 * max(0.0, math.sin(math.pi * hour / 16)) if hour < 16 else 0
        job = 30 * (minute in self.JOB)
        count = round(usual * self._random.uniform(0.8, 1.2)) + job
        scanned = 15 * (minute in self.SCANS)
        invalid, failed, slow = (self._few(count, share) for share in (0.03, 0.0002, 0.003))
        statuses = {"200": count - invalid - failed, "422": invalid, "503": failed, "401": scanned}
        add = partial(self._add, minute=minute, instance=instance)
        for status, growth in statuses.items():
            add("digits_requests_total", growth, route=PREDICT, status=status)
        for key, growth in (("shop", (count - job) * 2 // 3), ("lab", (count - job) // 3), ("job", job)):
            add("digits_key_requests_total", growth, key=key, status="200")
        add("digits_request_duration_seconds_bucket", count - slow, route=PREDICT, le="0.5")
        add("digits_request_duration_seconds_count", count, route=PREDICT)
        add("digits_request_duration_seconds_sum", count * self._random.uniform(0.03, 0.055), route=PREDICT)
        add("digits_images_total", count - invalid, model="digits", version="1", result="answered")
        add("digits_images_total", invalid, model="digits", version="1", result="no_digit")
        add("digits_stage_duration_seconds_count", count // 5, stage="find")
        lost = self._few(count, 0.0005)
        add("digits_model_failures_total", lost, model="digits", asked="reader", code="model_not_found")
        for label in range(10):
            add("digits_predictions_total", count // 10, model="digits", version="1", label=str(label))
        for le, share in (("0.5", 0.01), ("0.9", 0.05), ("0.99", 0.15), ("0.999", 0.4), ("+Inf", 1.0)):
            add("digits_confidence_bucket", count * share, model="digits", version="1", le=le)
        for agrees, share in (("true", 0.02), ("false", 0.01)):
            corrected = self._few(count, share)
            add("digits_feedback_total", corrected, model="digits", version="1", agrees=agrees)
        add("digits_confidence_count", count, model="digits", version="1")
        add("digits_confidence_sum", count * self._random.uniform(0.96, 0.98), model="digits", version="1")
        for name, value in (
            ("up", 1),
            ("digits_build_info", 1),
            ("digits_feedback_written_timestamp_seconds", 60 * minute),
            ("digits_tls_certificate_expiry_timestamp_seconds", 60 * 86400),
        ):
            self._set(name, minute, str(value), job="gateway", instance=instance)

    def _few(self, count: int, share: float) -> int:
        return sum(self._random.random() < share for _ in range(count))

    def _add(self, name: str, growth: float, *, minute: int, **labels: str) -> None:
        """Let a counter grow; it is absent until it has a value."""
        key = series(name, job="gateway", **labels)
        self._totals[key] += growth  # type: ignore[assignment]
        if self._totals[key]:
            self._values[key][minute] = f"{self._totals[key]:g}"

    def _set(self, name: str, minute: int, value: str, **labels: str) -> None:
        self._values[series(name, **labels)][minute] = value

    def _stop(self, minute: int, instance: str) -> None:
        for name, values in self._values.items():
            if f'"{instance}"' in name:
                values[minute] = "stale"


@pytest.mark.slow
def test_ordinary_days_with_a_deploy_and_a_night_alert_nobody(promtool: str, tmp_path: Path) -> None:
    minutes = 31 * HOUR
    fired = f'max_over_time(ALERTS{{alertname!="Watchdog", alertstate="firing"}}[{minutes}m])'
    arrived = "sum(increase(digits_requests_total[1h])) > bool 1000"
    document = {
        "rule_files": [str(RULES_FILE)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values}
                    for name, values in OrdinaryDays(minutes).series.items()
                ],
                "promql_expr_test": [
                    {"expr": fired, "eval_time": f"{minutes - 1}m", "exp_samples": []},
                    # The days have traffic.
                    *(
                        {
                            "expr": arrived,
                            "eval_time": f"{hour}h",
                            "exp_samples": [{"labels": "{}", "value": 1}],
                        }
                        for hour in (6, 29)
                    ),
                ],
            }
        ],
    }
    file = tmp_path / "days.yml"
    file.write_text(yaml.safe_dump(document))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_runbook_has_the_section_that_each_alert_links() -> None:
    sections = re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == list(dict.fromkeys(rule["alert"] for rule in ALERTS))
    for rule in ALERTS:
        link = rule["annotations"]["runbook_url"]
        assert link == f"{RUNBOOK_ADDRESS}#{rule['alert'].lower()}"


def test_dashboard_has_a_row_for_each_alert() -> None:
    panels = json.loads((RULES_FILE.parent / "grafana" / "dashboards" / "digits.json").read_text())["panels"]
    rows = " ".join(panel["title"] for panel in panels if panel["type"] == "row")
    alerts = {rule["alert"] for rule in ALERTS} - {"Watchdog"}
    assert alerts <= set(re.findall(r"\w+", rows))


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
