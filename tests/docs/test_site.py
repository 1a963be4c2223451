"""`make docs`: the site builds without warnings and needs no other server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import ROOT

pytestmark = pytest.mark.slow

LOADED = re.compile(r'<(?:script|img|iframe|source|link)[^>]+(?:src|href)="?(https?:[^" >]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_site_loads_nothing_from_other_servers(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        assert not LOADED.findall(page.read_text()), page


def test_site_renders_the_reference_from_code(site: Path) -> None:
    def page(name: str) -> str:
        return (site / "reference" / f"{name}.html").read_text()

    assert "predict_many" in page("client")
    assert "TruncatedImageError" in page("client")
    assert "digits models promote" in page("cli")
    assert "DIGITS_QUEUE_CAPACITY" in page("settings")
    assert "DIGITS_GRPC_PORT" in page("cli")
    assert '"/v1/predict"' in (site / "reference" / "openapi.json").read_text()
    assert "perceptron" in (site / "tutorials" / "ten_lines.html").read_text()


def test_site_draws_diagrams_without_a_script(site: Path) -> None:
    for page in ("index.html", "explanation/architecture.html", "explanation/reading.html"):
        text = (site / page).read_text()
        assert '<figure class="diagram"><svg' in text
        assert '<pre class="mermaid"' not in text


def test_site_has_the_mark_of_the_page(site: Path) -> None:
    mark = ROOT / "serving" / "digit_serving" / "gateway" / "static" / "icon.svg"
    assert (site / "icon.svg").read_bytes() == mark.read_bytes()
    home = (site / "index.html").read_text()
    assert '<link rel="icon" href="icon.svg">' in home
    (card,) = re.findall(r'property="og:image" content="(.+?)"', home)
    assert (site / card).exists()
