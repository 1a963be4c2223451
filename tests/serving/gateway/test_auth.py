"""Who is let in, before the real model server."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from digit_client import AsyncDigitClient, DigitClient, OverloadedError, ServiceError
from digit_client._cli import main
from digit_client._retries import RetryPolicy
from digit_client.images import to_png
from digit_serving.gateway.auth import KeyFile, KeyFileError, Keys
from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.processes import wait_until
from tests.serving.gateway.test_logging import logging_gateway

Start = Callable[..., FlaskClient]


@pytest.fixture
def start(model_server: str) -> Start:
    """An app with these settings."""
    return lambda **settings: greenlet_loop.client(Settings(model_server=model_server, labels=(), **settings))


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys")


def shown(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class TestKeys:
    def test_a_key_opens_the_api(self, start: Start, file: KeyFile, digits: Any) -> None:
        headers = shown(file.add("shop"))
        http = start(api_keys=file.path)
        assert http.get("/v1/models", headers=headers).status_code == 200
        image = to_png(digits.one(7))
        answer = http.post("/v1/predict", data=image, content_type="image/png", headers=headers)
        assert answer.get_json()["predictions"][0]["digit"] == 7

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            shown(""),
            shown("digits_wrong"),
            {"Authorization": "Basic c2hvcDpzaG9w"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer a=b, c"},
            {"Authorization": "Bearer ÿþ"},
        ],
    )
    def test_without_one_it_stays_shut(self, start: Start, file: KeyFile, headers: dict[str, str]) -> None:
        file.add("shop")
        http = start(api_keys=file.path)
        for answer in (http.get("/v1/models", headers=headers), http.post("/v1/predict", headers=headers)):
            assert answer.status_code == 401
            assert answer.get_json(force=True)["code"] == "unauthorized"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    def test_an_empty_file_lets_nobody_in(self, start: Start, file: KeyFile) -> None:
        key = file.add("shop")
        file.remove("shop")
        assert start(api_keys=file.path).get("/v1/models", headers=shown(key)).status_code == 401

    def test_probes_counts_and_pages_stay_open(self, start: Start, file: KeyFile) -> None:
        file.add("shop")
        http = start(api_keys=file.path)
        for path in ("/livez", "/readyz", "/metrics", "/", "/static/main.js", "/docs", "/openapi.json"):
            with http.get(path) as answer:
                assert answer.status_code == 200, path
        assert http.get("/nowhere").status_code == 404

    def test_the_counts_have_its_name(self, start: Start, file: KeyFile) -> None:
        headers = shown(file.add("shop"))
        http = start(api_keys=file.path)
        http.get("/v1/models", headers=headers)
        http.get("/v1/models", headers=shown("digits_wrong"))
        told = [line for line in http.get("/metrics").text.splitlines() if "key_requests_total{" in line]
        assert told == ['digits_key_requests_total{key="shop",status="200"} 1.0']

    def test_the_log_has_its_name_and_not_the_key(
        self, model_server: str, file: KeyFile, capfd: pytest.CaptureFixture[str]
    ) -> None:
        key = file.add("shop")
        with logging_gateway(model_server, capfd, DIGITS_API_KEYS=str(file.path)) as (http, lines):
            http.get("/v1/models", headers=shown(key))
            http.get("/v1/models", headers=shown("digits_guess"))
            told = lines()
        first, second = map(json.loads, told)
        assert (first["status"], first["key"]) == (200, "shop")
        assert (second["status"], second.get("key")) == (401, None)
        assert not any(secret in line for secret in (key, "digits_guess") for line in told)

    def test_the_description_asks_for_one(self, file: KeyFile) -> None:
        file.add("shop")
        cases: list[tuple[Settings, list[Any]]] = [
            (Settings(api_keys=file.path), [{"Key": []}]),
            (Settings(), []),
        ]
        for settings, security in cases:
            paths = describe(settings)["paths"]
            assert paths["/v1/predict"]["post"]["security"] == security
            assert paths["/v1/models"]["get"]["security"] == security


class TestRates:
    def test_more_than_one_may_is_refused(self, start: Start) -> None:
        http = start(rate_limit="3/hour")
        answers = [http.get("/v1/models") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].get_json(force=True)["code"] == "rate_limited"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 3600
        assert http.get("/livez").status_code == 200

    def test_each_key_has_its_own(self, start: Start, file: KeyFile) -> None:
        shop, lab = shown(file.add("shop")), shown(file.add("lab"))
        http = start(api_keys=file.path, rate_limit="1/hour")
        statuses = [http.get("/v1/models", headers=key).status_code for key in (shop, shop, lab, lab)]
        assert statuses == [200, 429, 200, 429]

    @pytest.mark.parametrize(
        ("proxies", "forwarded", "statuses"),
        [
            # Anybody may claim to be anybody.
            (0, ("192.0.2.1", "192.0.2.2"), [200, 429]),
            (1, ("192.0.2.1", "192.0.2.2"), [200, 200]),
            (1, ("192.0.2.8, 192.0.2.1", "192.0.2.9, 192.0.2.1"), [200, 429]),
            (2, ("192.0.2.8, 192.0.2.1", "192.0.2.9, 192.0.2.1"), [200, 200]),
            (1, ("2001:db8::1", "2001:db8::2"), [200, 429]),
            (1, ("2001:db8:0:1::1", "2001:db8:0:2::1"), [200, 200]),
            (1, ("nonsense:", "nonsense:"), [200, 429]),
        ],
    )
    def test_an_address_is_believed_from_so_many_proxies(
        self, start: Start, proxies: int, forwarded: tuple[str, str], statuses: list[int]
    ) -> None:
        http = start(rate_limit="1/hour", trusted_proxies=proxies)
        answers = [http.get("/v1/models", headers={"X-Forwarded-For": value}) for value in forwarded]
        assert [answer.status_code for answer in answers] == statuses


class TestClients:
    async def test_both_show_their_key(
        self,
        model_server: str,
        file: KeyFile,
        digits: Any,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        key = file.add("shop")
        settings = {"DIGITS_API_KEYS": str(file.path), "DIGITS_RATE_LIMIT": "2/hour", "DIGITS_WORKERS": "1"}
        with logging_gateway(model_server, capfd, **settings) as (http, _):
            url = str(httpx.URL(http.base_url))
            with DigitClient(url) as client, pytest.raises(ServiceError) as refused:
                client.predict(digits.one(7))
            assert (refused.value.status, refused.value.reason) == (401, "unauthorized")
            monkeypatch.setenv("DIGITS_API_KEY", key)
            with DigitClient(url) as client:
                assert client.predict(digits.one(7)).digit == 7
            once = RetryPolicy(attempts=1)
            async with AsyncDigitClient(url, api_key=key, retries=once) as client:
                assert (await client.predict(digits.one(7))).digit == 7
                with pytest.raises(OverloadedError) as often:
                    await client.predict(digits.one(7))
            assert often.value.reason == "rate_limited"
            assert often.value.retry_after


@pytest.fixture
def file_keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys")


@pytest.fixture
def run(file_keys: KeyFile) -> Callable[..., Result]:
    environment = {"DIGITS_API_KEYS": str(file_keys.path)}
    return lambda *arguments: CliRunner().invoke(main, ["keys", *arguments], env=environment)


def test_a_key_is_known_by_its_name(file_keys: KeyFile) -> None:
    shop, lab = file_keys.add("shop"), file_keys.add("lab")
    keys = Keys(file_keys.path)
    assert (keys.name_of(shop), keys.name_of(lab)) == ("shop", "lab")


@pytest.mark.parametrize("wrong", ["", "digits_", "shop", "é", "x" * 10_000])
def test_nothing_else_is(file_keys: KeyFile, wrong: str) -> None:
    key = file_keys.add("shop")
    keys = Keys(file_keys.path)
    assert keys.name_of(wrong) is None
    assert keys.name_of(key[:-1]) is None
    assert keys.name_of(file_keys.read()["shop"]) is None


def test_the_file_does_not_hold_the_key(file_keys: KeyFile) -> None:
    key = file_keys.add("shop")
    assert len(key) > 40
    assert key.removeprefix("digits_") not in file_keys.path.read_text()


def test_a_change_is_seen_within_a_second_or_so(file_keys: KeyFile) -> None:
    shop = file_keys.add("shop")
    keys = Keys(file_keys.path)
    lab = file_keys.add("lab")
    wait_until(lambda: keys.name_of(lab) == "lab", seconds=5)
    file_keys.remove("shop")
    wait_until(lambda: keys.name_of(shop) is None, seconds=5)
    assert keys.name_of(lab) == "lab"


@pytest.mark.parametrize(
    "harm", [Path.unlink, lambda path: path.write_text("torn"), lambda path: path.write_bytes(b"\xff")]
)
def test_the_keys_of_before_hold_while_the_file_is_of_no_use(
    file_keys: KeyFile, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    key = file_keys.add("shop")
    keys = Keys(file_keys.path)
    harm(file_keys.path)
    wait_until(lambda: bool(keys.name_of(key) and caplog.messages), seconds=5)
    assert "the keys stay what they were" in caplog.text
    assert key not in caplog.text


def test_a_gateway_does_not_start_with_a_file_of_no_use(file_keys: KeyFile) -> None:
    with pytest.raises(FileNotFoundError):
        Keys(file_keys.path)
    file_keys.path.write_text("shop secret\n")
    with pytest.raises(KeyFileError, match="line 1"):
        Keys(file_keys.path)


def test_of_several_who_add_at_once_none_loses(file_keys: KeyFile) -> None:
    names = [f"key-{number}" for number in range(16)]
    threads = [threading.Thread(target=file_keys.add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file_keys.read()) == sorted(names)


def test_the_command_adds_lists_and_removes(run: Callable[..., Result], file_keys: KeyFile) -> None:
    key = run("add", "shop").stdout.strip()
    assert run("add", "lab").exit_code == 0
    assert run("ls").stdout.split() == ["shop", "lab"]
    assert Keys(file_keys.path).name_of(key) == "shop"
    assert run("remove", "shop").exit_code == 0
    assert run("ls").stdout.split() == ["lab"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "shop"], "there is a key shop already"),
        (["add", "two words"], "is no name"),
        (["remove", "nobody"], "there is no key nobody"),
        (["ls", "--file_keys", "/nowhere/keys"], "/nowhere/keys"),
    ],
)
def test_the_command_says_what_is_wrong(run: Callable[..., Result], arguments: list[str], said: str) -> None:
    run("add", "shop")
    result = run(*arguments)
    assert result.exit_code == 1
    assert said in result.output
