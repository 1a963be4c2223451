"""API keys: authentication of requests, the key file, and `digits keys`."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from digit_serving.errors import DigitServingError
from digit_serving.gateway.auth import KeyFile, KeyVerifier
from digit_serving.gateway.cli import keys as keys_command
from tests.serving.gateway.helpers import ManualClock, StartGateway, assert_problem

DAY = timedelta(days=1)


@pytest.fixture
def digits_keys(key_file: KeyFile) -> Callable[..., Result]:
    """Function that runs `digits keys` with these arguments."""
    environment = {"DIGITS_API_KEYS": str(key_file.path)}
    return lambda *arguments: CliRunner().invoke(keys_command, arguments, env=environment)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("digits_wrong"),
        {"Authorization": "Basic c2hvcDpzaG9w"},
        {"Authorization": "Bearer a=b, c"},
        {"Authorization": "Bearer ÿþ"},
    ],
)
def test_request_without_valid_key_gets_401(
    start_gateway: StartGateway, key_file: KeyFile, headers: dict[str, str]
) -> None:
    key_file.add("shop")
    http = start_gateway(api_keys=key_file.path)
    posts = [http.post(path, headers=headers) for path in ("/v1/predict", "/v1/read")]
    for answer in (http.get("/v1/models", headers=headers), *posts):
        problem = assert_problem(answer, 401, "unauthorized")
        assert problem["detail"].startswith("This service has no such key" if headers else "Send a key")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_probes_and_pages_without_key_are_answered(start_gateway: StartGateway, key_file: KeyFile) -> None:
    key_file.add("shop")
    http = start_gateway(api_keys=key_file.path)
    for path in ("/livez", "/readyz", "/metrics", "/", "/static/main.js", "/docs", "/openapi.json"):
        assert http.get(path).status_code == 200, path
    assert http.get("/nowhere").status_code == 404


def test_key_that_has_ended_gets_401_with_the_reason_and_its_name_in_the_metrics(
    start_gateway: StartGateway, key_file: KeyFile, digits_keys: Callable[..., Result]
) -> None:
    now = datetime.now(UTC)
    ended, ending = bearer(key_file.add("shop", until=now)), bearer(key_file.add("shop-2", until=now + DAY))
    http = start_gateway(api_keys=key_file.path)
    problem = assert_problem(http.get("/v1/models", headers=ended), 401, "unauthorized")
    assert problem["detail"] == f"The key shop ended at {now:%Y-%m-%d %H:%M} UTC. Ask for another."
    assert http.post("/v1/predict", headers=ended, data=b"x" * 10**6).status_code == 401
    assert http.get("/v1/models", headers=ending).status_code == 200
    metrics = http.get("/metrics").text
    assert 'digits_key_requests_total{key="shop",status="401"} 2.0' in metrics
    assert digits_keys("ls").stdout.splitlines() == [
        f"shop ended {now.astimezone():%Y-%m-%d %H:%M}",
        f"shop-2 until {(now + DAY).astimezone():%Y-%m-%d %H:%M}",
    ]


def test_key_with_limits_of_its_own_has_no_others(start_gateway: StartGateway, key_file: KeyFile) -> None:
    keys = [bearer(key_file.add(name, limits=own)) for name, own in (("shop", "3/hour"), ("lab", ""))]
    for limits, expected in (("1/hour", [3, 1]), ("", [3, 4])):
        http = start_gateway(api_keys=key_file.path, rate_limit=limits)
        answers = [[http.get("/v1/models", headers=key).status_code for _ in range(4)] for key in keys]
        assert [statuses.count(200) for statuses in answers] == expected


def test_log_and_metrics_of_a_request_with_key_contain_only_its_name(
    start_gateway: StartGateway,
    key_file: KeyFile,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    key = key_file.add("shop")
    http = start_gateway(api_keys=key_file.path)
    http.get("/v1/models", headers=bearer(key))
    http.get("/v1/models", headers=bearer("digits_guess"))
    http.get("/v1/models")
    logged = capsys.readouterr().err
    first, second, _ = map(json.loads, logged.splitlines())
    assert (first["status"], first["key"]) == (200, "shop")
    assert (second["status"], second.get("key")) == (401, None)
    logged += caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert not any(secret in logged for secret in (key, "digits_guess"))
    counted = [line for line in http.get("/metrics").text.splitlines() if "key_requests_total{" in line]
    # A request without a key has no part in it, unlike one with an unknown key.
    assert counted == [
        'digits_key_requests_total{key="shop",status="200"} 1.0',
        'digits_key_requests_total{key="",status="401"} 1.0',
    ]


def test_rate_limit_counts_by_key_and_wrong_keys_by_network(
    start_gateway: StartGateway, key_file: KeyFile
) -> None:
    key, lab = bearer(key_file.add("shop")), bearer(key_file.add("lab"))
    http = start_gateway(api_keys=key_file.path, rate_limit="2/hour")
    headers = [bearer("digits_wrong"), {}, bearer("digits_guess"), key, key, key, lab]
    statuses = [http.get("/v1/models", headers=sent).status_code for sent in headers]
    assert statuses == [401, 401, 429, 200, 200, 429, 200]


def name_of(verifier: KeyVerifier, key: str) -> str | None:
    return getattr(verifier.find(key), "name", None)


def test_find_invalid_key_returns_none(key_file: KeyFile) -> None:
    key = key_file.add("shop")
    verifier = KeyVerifier(key_file.path)
    for wrong in ("", "digits_", "shop", "é", "x" * 10_000, key[:-1], key_file.read()["shop"].digest):
        assert verifier.find(wrong) is None


def test_changed_key_file_is_reloaded_after_one_second(key_file: KeyFile) -> None:
    clock = ManualClock()
    shop = key_file.add("shop")
    verifier = KeyVerifier(key_file.path, clock)
    lab = key_file.add("lab")
    clock.now = 1.0
    assert name_of(verifier, lab) == "lab"
    key_file.remove("shop")
    clock.now = 2.0
    assert verifier.find(shop) is None
    assert name_of(verifier, lab) == "lab"


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_text("torn"), lambda path: path.write_bytes(b"\xff")]
)
def test_damaged_key_file_keeps_previous_keys_valid(
    key_file: KeyFile, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    key = key_file.add("shop")
    verifier = KeyVerifier(key_file.path, clock)
    damage(key_file.path)
    clock.now = 1.0
    assert name_of(verifier, key) == "shop"
    assert "the previous keys remain valid" in caplog.text
    assert key not in caplog.text


def test_add_from_many_threads_keeps_all_keys(key_file: KeyFile) -> None:
    names = [f"key-{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(key_file.add, names))
    assert sorted(key_file.read()) == sorted(names)


def test_keys_command_add_and_remove_change_list(
    digits_keys: Callable[..., Result], key_file: KeyFile
) -> None:
    key = digits_keys("add", "shop").stdout.strip()
    assert len(key) > 40
    assert key.removeprefix("digits_") not in key_file.path.read_text()
    assert name_of(KeyVerifier(key_file.path), key) == "shop"
    assert digits_keys("add", "lab", "--may-label").exit_code == 0
    assert digits_keys("ls").stdout.splitlines() == ["shop", "lab label"]
    assert digits_keys("remove", "shop").exit_code == 0
    assert digits_keys("ls").stdout.splitlines() == ["lab label"]


def test_keys_command_sets_end_and_limits(digits_keys: Callable[..., Result], key_file: KeyFile) -> None:
    key = digits_keys("add", "shop", "--may-label", "--rate-limit", "10 / second;1000/hour").stdout.strip()
    assert digits_keys("change", "shop", "--until", "2999-01-31").exit_code == 0
    assert digits_keys("ls").stdout == "shop label until 2999-01-31 00:00 limit 10/second;1000/hour\n"
    found = KeyVerifier(key_file.path).find(key)
    assert found
    assert (found.may_label, found.limits) == (True, "10/second;1000/hour")
    assert found.until == datetime(2999, 1, 31).astimezone()


@pytest.mark.parametrize("end", ["until=soon", "limit=fast", "limit=1/hour until=2999-01-31", ""])
def test_malformed_line_is_named(key_file: KeyFile, end: str) -> None:
    key_file.path.write_text(f"lab {'0' * 64}\nshop {'0' * 64} {end}\n")
    with pytest.raises(DigitServingError, match=r"/keys: line 2: "):
        key_file.read()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["add", "late", "--until", "2026-01-31"], 2, "2026-01-31 has passed"),
        (["add", "late", "--until", "soon"], 2, "'soon' is not a date"),
        (["add", "fast", "--rate-limit", "fast"], 2, "'fast' is not a limit"),
        (["change", "shop"], 2, "give --until, --rate-limit or both"),
        (["change", "nobody", "--until", "2999-01-31"], 1, "no key is named nobody"),
        (["add", "shop"], 1, "a key named shop already exists"),
        (["add", "two words"], 1, "'two words' is not a valid name"),
        (["remove", "nobody"], 1, "no key is named nobody"),
        (["ls", "--file", "/nowhere/keys"], 1, "/nowhere/keys"),
    ],
)
def test_keys_command_that_is_refused_changes_nothing(
    digits_keys: Callable[..., Result], key_file: KeyFile, arguments: list[str], status: int, message: str
) -> None:
    digits_keys("add", "shop")
    result = digits_keys(*arguments)
    assert result.exit_code == status
    assert message in result.output
    assert [*key_file.read()] == ["shop"]
