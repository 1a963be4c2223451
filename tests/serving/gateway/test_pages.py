"""Demo page and Swagger UI, without a browser; tests/e2e/page has one."""

import gzip
import re
from email.message import Message
from importlib.metadata import version

import pytest
from flask.testing import FlaskClient

from digit_serving.gateway import pages
from tests.serving.gateway.helpers import StartGateway, assert_problem

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def test_index_is_a_page_for_browsers_and_links_for_programs(offline_http: FlaskClient) -> None:
    for accept in (CHROMIUM, "text/html", "*/*", "image/png"):
        response = offline_http.get("/", headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (200, "text/html")
        assert response.vary.as_set() >= {"accept"}
    rules = {rule.rule for rule in offline_http.application.url_map.iter_rules()}
    for accept in ("application/json", "application/json, text/html;q=0.5"):
        index = offline_http.get("/", headers={"Accept": accept}).get_json()
        assert index["version"] == version("digits")
        assert set(index["links"].values()) <= rules


def test_docs_page_refers_to_existing_files(offline_http: FlaskClient) -> None:
    page = offline_http.get("/docs")
    assert page.content_type.startswith("text/html")
    names = re.findall(r'(?:src|href)="docs/([^"]+)"', page.text)
    assert len(names) == 5
    assert all(offline_http.get(f"/docs/{name}").status_code == 200 for name in names)


def test_page_links_to_the_urls_of_the_package(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Message()
    package["Project-URL"] = "Source & tutorial, https://digits.example/?a&b"
    monkeypatch.setattr(pages, "metadata", lambda _: package)
    link = '<a href="https://digits.example/?a&amp;b">Source &amp; tutorial</a>'
    assert link in start_gateway().get("/").text


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/nothing", "/static/main.js"])
def test_page_policy_forbids_foreign_and_inline_content(offline_http: FlaskClient, path: str) -> None:
    policy = offline_http.get(path).headers["Content-Security-Policy"]
    sources = dict(part.split(" ", 1) for part in policy.split("; "))
    assert sources["default-src"] == sources["frame-ancestors"] == "'none'"
    assert sources["script-src"] == sources["style-src"] == sources["connect-src"] == "'self'"
    assert not any("unsafe" in allowed or "http" in allowed for allowed in sources.values())


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/metrics", "/v1/models", "/nowhere"])
def test_any_response_forbids_mime_sniffing(offline_http: FlaskClient, path: str) -> None:
    assert offline_http.get(path).headers.getlist("X-Content-Type-Options") == ["nosniff"]


@pytest.mark.parametrize("folder", ["static", "docs"])
def test_unlisted_file_gets_404(offline_http: FlaskClient, folder: str) -> None:
    for name in ("none.js", "index.html", "label.html", "swagger-ui.js"):
        assert_problem(offline_http.get(f"/{folder}/{name}"), 404, "not_found")


def test_page_names_files_that_browsers_keep_and_that_are_compressed(offline_http: FlaskClient) -> None:
    page = offline_http.get("/")
    scripts = re.findall(r'[<"](static/[0-9a-f]{12}/[a-z-]+\.js)[>"]', page.headers["Link"] + page.text)
    assert {"main.js", "api.js"} <= {path.rpartition("/")[2] for path in scripts}
    for path in scripts:
        script = offline_http.get(f"/{path}", headers={"Accept-Encoding": "br, gzip"})
        assert "immutable" in script.headers["Cache-Control"]
        assert script.headers["Content-Encoding"] == "gzip"
        plain = offline_http.get(f"/{path}")
        assert (gzip.decompress(script.data), script.headers["Vary"]) == (plain.data, plain.headers["Vary"])
        assert script.headers["ETag"] != plain.headers["ETag"]
    other = offline_http.get(f"/static/0123456789ab/{scripts[0].rpartition('/')[2]}")
    assert (other.status_code, other.headers["Cache-Control"]) == (200, "no-cache")
    photo = offline_http.get("/static/number.jpg", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in photo.headers


def test_unchanged_file_gets_304(offline_http: FlaskClient) -> None:
    first = offline_http.get("/static/main.js")
    second = offline_http.get("/static/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (second.status_code, second.data) == (304, b"")
    assert first.headers["Cache-Control"] == "no-cache"
