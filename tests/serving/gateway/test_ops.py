"""What is at `/`, without a browser; tests/e2e/page has one."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from digit_serving.gateway import ops


def test_a_gateway_before_a_model_is_ready(http: FlaskClient) -> None:
    assert http.get("/livez").get_json() == {"status": "alive"}
    assert http.get("/readyz").get_json() == {"status": "ready", "versions": [1]}


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css", "start.js", "favicon-32x32.png"])
def test_the_page_names_its_files_which_are_there(http: FlaskClient, name: str) -> None:
    with http.get("/docs") as page, http.get(f"/docs/{name}") as file:
        assert page.content_type.startswith("text/html")
        assert f'"docs/{name}"' in page.get_data(as_text=True)
        assert file.status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/docs/nothing"])
def test_nothing_is_loaded_from_elsewhere(http: FlaskClient, path: str) -> None:
    with http.get(path) as response:
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", ["index.html", "docs.py", "..%2Fdocs.py", "swagger-ui.js"])
def test_nothing_else_is_given_away(http: FlaskClient, name: str) -> None:
    response = http.get(f"/docs/{name}")
    assert response.status_code == 404
    assert response.get_json(force=True)["code"] == "not_found"


STATIC = Path(ops.__file__).parent / "static"
FILES = sorted(path.name for path in STATIC.iterdir() if path.name != "index.html")

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize("accept", [CHROMIUM, "text/html", "*/*", "image/png"])
def test_browsers_get_the_page(http: FlaskClient, accept: str) -> None:
    response = http.get("/", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.mimetype == "text/html"
    assert response.vary.as_set() >= {"accept"}


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/html;q=0.5"])
def test_programs_get_an_index_whose_links_lead_somewhere(http: FlaskClient, accept: str) -> None:
    response = http.get("/", headers={"Accept": accept})
    assert response.mimetype == "application/json"
    index = response.get_json()
    assert index["version"] == version("digit-serving")
    rules = {rule.rule for rule in http.application.url_map.iter_rules()}
    assert set(index["links"].values()) <= rules


@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in FILES)])
def test_nothing_from_elsewhere_may_run_there(http: FlaskClient, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 200
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("main.js", "text/javascript"),
        ("page.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_files_have_the_types_that_browsers_insist_on(http: FlaskClient, name: str, kind: str) -> None:
    assert http.get(f"/static/{name}").mimetype == kind


def test_a_file_is_not_sent_twice(http: FlaskClient) -> None:
    first = http.get("/static/main.js")
    again = http.get("/static/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert first.headers["Cache-Control"] == "no-cache"


def test_there_are_no_other_files(http: FlaskClient) -> None:
    for path in ("none.js", "index.html", "../page.py", "..%2fpage.py"):
        assert http.get(f"/static/{path}").status_code == 404


def test_it_is_small_and_needs_nothing_else() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 60_000
    assert set(_references()) <= set(FILES) | {"docs"}


def _references() -> Iterator[str]:
    """What the files load or link to: none of it by a whole URL."""
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?! type=\"module\" src)|<style|\sstyle=|\son\w+=", html)
    for reference in re.findall(r"(?:src|href)=\"([^\"]+)\"", html):
        yield reference.removeprefix("static/")
    for path in STATIC.glob("*.js"):
        yield from re.findall(r"from \"\./(.+?)\"", path.read_text())
    for path in STATIC.glob("*.css"):
        assert "url(" not in path.read_text()
        assert "@import" not in path.read_text()
