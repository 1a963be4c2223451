"""The gateway and its description of itself, examined by Schemathesis."""

import os
import re
import subprocess
import sys
from pathlib import Path

SCHEMATHESIS = [sys.executable, "-m", "schemathesis.cli"]
CONFIG = Path(__file__).with_name("contract.toml")
ROOT = Path(__file__).parents[3]


def test_the_gateway_does_what_its_description_says(gateway: str) -> None:
    options = ["--checks", "all", "--no-color"]
    done = subprocess.run(
        [*SCHEMATHESIS, "--config-file", CONFIG, "run", f"{gateway}/openapi.json", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found, done.stdout
    assert int(found[1]) == int(found[2]) > 200
