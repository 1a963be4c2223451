"""The reference covers every public name, environment variable, metric, refusal and image error."""

import re
from pathlib import Path
from typing import get_args

import digit_client
from digit_client import DigitError, ImageError
from digit_core.results import Refusal
from digit_serving.gateway.settings import Settings
from docs import render
from tests import greenlet_loop
from tests.readme import ROOT

REFERENCE = ROOT / "docs" / "reference"
OBSERVABILITY = (REFERENCE / "observability.md").read_text()


def test_client_page_includes_every_public_name() -> None:
    page = (REFERENCE / "client.md").read_text()
    rendered = set(re.findall(r"^::: digit_client\.(\w+)", page, re.MULTILINE))
    # The page renders the module of the errors as a whole.
    others = {name for name in digit_client.__all__ if not is_error(getattr(digit_client, name))}
    assert rendered == others
    assert "\n::: digit_core.errors\n" in page


def is_error(value: object) -> bool:
    """True if the value is an error class of the client."""
    return isinstance(value, type) and issubclass(value, DigitError)


def test_reference_includes_every_variable_in_the_source() -> None:
    sources = [path for room in ("client", "serving", "training") for path in (ROOT / room).rglob("*.py")]
    read = {name for path in sources for name in re.findall(r"DIGITS_[A-Z_]*[A-Z]", path.read_text())}
    pages = "".join(render.render((REFERENCE / page).read_text()) for page in ("settings.md", "cli.md"))
    assert read <= set(re.findall(r"`(DIGITS_\w+)", pages))


def test_gateway_settings_have_default_and_docstring() -> None:
    settings = dict(render.gateway_settings())
    assert len(settings) == len(Settings.model_fields)
    assert {"`DIGITS_PORT=8080`", "`DIGITS_LABELS=stable,canary`", "`DIGITS_API_KEYS`"} <= settings.keys()
    assert all(settings.values())


def test_observability_page_has_every_metric(tmp_path: Path) -> None:
    with greenlet_loop.keeping(
        Settings(feedback=f"sqlite:///{tmp_path}/f.db", feedback_open=True, shadow_label="next")
    ) as http:
        metrics = http.get("/metrics").text
    names = set(re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE))
    # prometheus_client adds these in a single process only, which a gateway is not.
    created = {name for name in names if name.endswith("_created")}
    # Of gateways with TLS, and of `digits models pull`.
    others = {f"digits_{name}_timestamp_seconds" for name in ("tls_certificate_expiry", "models_pulled")}
    documented = set(re.findall(r"^- `(digits_\w+)`", OBSERVABILITY, re.MULTILINE))
    assert documented == names - created | others


def test_observability_page_has_every_refusal_and_image_error() -> None:
    (entry,) = re.findall(r"^- `digits_images_total`.*?(?=^- )", OBSERVABILITY, re.MULTILINE | re.DOTALL)
    _, schema = get_args(Refusal)
    results = {*schema.keywords["enum"], *(error.code for error in ImageError.__subclasses__())}
    assert results <= set(re.findall(r"`(\w+)`", entry))
