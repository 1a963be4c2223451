"""OpenAPI contract: Schemathesis tests a gateway process against its own description."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from digit_core.feedback.store import FeedbackStore
from digit_serving.gateway.auth import KeyFile
from tests.processes import gateway_process
from tests.records import sample

SCHEMATHESIS = [sys.executable, "-m", "schemathesis.cli"]
CONFIG = Path(__file__).with_name("contract.toml")
ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_gateway_any_request_conforms_to_openapi(gateway: str) -> None:
    assert passed_cases(gateway) > 200


@pytest.mark.e2e
def test_feedback_and_labelling_any_request_conforms_to_openapi(model_server: str, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys")
    header = f"Authorization: Bearer {keys.add('lab', may_label=True)}"
    store = f"sqlite:///{tmp_path}/feedback.db"
    FeedbackStore(store).save([sample(number) for number in range(3)])
    with gateway_process(model_server, feedback=store, api_keys=keys.path) as gateway:
        paths = ("/v1/feedback", "/v1/feedback/unlabelled", "/v1/feedback/labels")
        selected = [option for path in paths for option in ("--include-path", path)]
        assert passed_cases(gateway.url, "--header", header, *selected) > 100


def passed_cases(url: str, *options: str) -> int:
    """Test a gateway, and return the number of test cases."""
    command = [*SCHEMATHESIS, "--config-file", str(CONFIG), "run", f"{url}/openapi.json"]
    completed = subprocess.run(
        [*command, "--checks", "all", "--no-color", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    counts = re.search(r"(\d+) generated, (\d+) passed", completed.stdout)
    assert counts, completed.stdout
    assert counts[1] == counts[2]
    return int(counts[1])
