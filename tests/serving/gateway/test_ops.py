"""Probes, demo page and Swagger UI, without a browser; tests/e2e/page has one."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from digit_serving.gateway import ops
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import SHAPES, StubModelServer, TaskModels

STATIC = Path(ops.__file__).parent / "static"
PAGES = ("index.html", "label.html")
STATIC_FILES = sorted(path.name for path in STATIC.iterdir() if path.name not in PAGES)
DOCS_FILES = ["swagger-ui-bundle.js", "swagger-ui.css", "docs.css", "start.js", "favicon-32x32.png"]
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def test_probes_with_available_model_succeed(http: FlaskClient) -> None:
    assert http.get("/livez").get_json() == {"status": "alive"}
    assert http.get("/readyz").get_json() == {"status": "ready", "versions": [1]}


def test_readyz_depends_on_default_model_only(stub: StubModelServer) -> None:
    stub.answer = TaskModels(shapes={3: SHAPES})
    ready = greenlet_loop.client(
        Settings(model_server=stub.target, model_name="shapes", model_names=("lost",))
    )
    assert ready.get("/readyz").get_json() == {"status": "ready", "versions": [3]}
    lost = greenlet_loop.client(
        Settings(model_server=stub.target, model_name="lost", model_names=("shapes",))
    )
    problem = lost.get("/readyz").get_json(force=True)
    assert (problem["status"], problem["detail"]) == (503, "The model server has no model lost.")


def test_probes_without_model_server_are_alive_but_not_ready(offline_http: FlaskClient) -> None:
    assert offline_http.get("/livez").status_code == 200
    response = offline_http.get("/readyz")
    assert response.status_code == 503
    problem = response.get_json(force=True)
    assert (problem["code"], problem["detail"]) == ("not_ready", "The model server does not answer.")


@pytest.mark.parametrize("accept", [CHROMIUM, "text/html", "*/*", "image/png"])
def test_index_for_browser_is_page(offline_http: FlaskClient, accept: str) -> None:
    response = offline_http.get("/", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.mimetype == "text/html"
    assert response.vary.as_set() >= {"accept"}


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/html;q=0.5"])
def test_index_for_program_links_to_routes(offline_http: FlaskClient, accept: str) -> None:
    response = offline_http.get("/", headers={"Accept": accept})
    assert response.mimetype == "application/json"
    index = response.get_json()
    assert index["version"] == version("digit-serving")
    rules = {rule.rule for rule in offline_http.application.url_map.iter_rules()}
    assert set(index["links"].values()) <= rules


@pytest.mark.parametrize("name", DOCS_FILES)
def test_docs_page_refers_to_existing_files(offline_http: FlaskClient, name: str) -> None:
    page = offline_http.get("/docs")
    assert page.content_type.startswith("text/html")
    assert f'"docs/{name}"' in page.text
    assert offline_http.get(f"/docs/{name}").status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/nothing", "/static/main.js", "/docs/start.js"])
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
    for name in ("none.js", *PAGES, "../ops.py", "..%2fops.py", "..%2Fops.py", "swagger-ui.js"):
        response = offline_http.get(f"/{folder}/{name}")
        assert response.status_code == 404, name
        assert response.get_json(force=True)["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "mimetype"),
    [
        ("/static/main.js", "text/javascript"),
        ("/static/page.css", "text/css"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/static/example.jpg", "image/jpeg"),
        ("/docs/start.js", "text/javascript"),
        ("/docs/swagger-ui.css", "text/css"),
        ("/docs/favicon-32x32.png", "image/png"),
    ],
)
def test_file_has_mimetype_that_browsers_require(offline_http: FlaskClient, path: str, mimetype: str) -> None:
    assert offline_http.get(path).mimetype == mimetype


@pytest.mark.parametrize("path", ["/static/main.js", "/docs/start.js"])
def test_unchanged_file_gets_304(offline_http: FlaskClient, path: str) -> None:
    first = offline_http.get(path)
    second = offline_http.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (second.status_code, second.data) == (304, b"")
    assert first.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(("page", "limit"), [("index.html", 110_000), ("label.html", 60_000)])
def test_page_is_small_and_loads_no_other_files(page: str, limit: int) -> None:
    links = {path.removeprefix("/") for path in ops.LINKS.values()}
    files = _loaded_files(page) - links
    assert files <= {page, *STATIC_FILES}
    assert sum((STATIC / name).stat().st_size for name in files) < limit


def test_label_page_is_served_with_keys_and_store_only(
    label_http: FlaskClient, feedback_http: FlaskClient
) -> None:
    page = label_http.get("/label")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert feedback_http.get("/label").status_code == 404


def _loaded_files(page: str) -> set[str]:
    """Return the page and the files that it loads or links to, also through its scripts."""
    found, names = set(), [page]
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            names += _references(STATIC / name)
    return found


def _references(file: Path) -> Iterator[str]:
    """Yield the files that a file loads or links to, and check that no script or style is inline."""
    text = file.read_text(errors="replace") if file.is_file() else ""
    if file.suffix == ".html":
        assert not re.search(r"<script(?! type=\"module\" src)|<style|\sstyle=|\son\w+=", text)
        for reference in re.findall(r"(?:src|href)=\"([^\"]+)\"", text):
            yield reference.removeprefix("static/")
    if file.suffix == ".js":
        yield from re.findall(r"from \"\./(.+?)\"", text)
    if file.suffix == ".css":
        assert "url(" not in text
        assert "@import" not in text
