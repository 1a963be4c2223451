import pytest
from flask.testing import FlaskClient


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
