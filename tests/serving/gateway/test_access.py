"""Who is let in, before the real model server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient

from digit_client import AsyncDigitClient, DigitClient, OverloadedError, ServiceError
from digit_client.arrays import to_png
from digit_client.retry import RetryPolicy
from digit_serving.gateway.keys import KeyFile
from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.test_logs import logging_gateway

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
