"""OpenAPI contract: Schemathesis tests a gateway process against its own description."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCHEMATHESIS = [sys.executable, "-m", "schemathesis.cli"]
CONFIG = Path(__file__).with_name("contract.toml")
ROOT = Path(__file__).parents[3]


@pytest.mark.e2e
def test_gateway_any_request_conforms_to_openapi(gateway: str) -> None:
    options = ["--checks", "all", "--no-color"]
    completed = subprocess.run(
        [*SCHEMATHESIS, "--config-file", CONFIG, "run", f"{gateway}/openapi.json", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    counts = re.search(r"(\d+) generated, (\d+) passed", completed.stdout)
    assert counts, completed.stdout
    assert int(counts[1]) == int(counts[2]) > 200
