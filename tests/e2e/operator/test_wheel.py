"""The wheel in a container of python:3.13-slim: installed and started as a page of the docs says."""

import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from digit_client import Client
from tests.processes import answers, free_port, require_running, run, wait_until
from tests.readme import ROOT

pytestmark = pytest.mark.containers

PAGE = ROOT / "docs" / "how-to" / "run-on-one-machine.md"
docker = partial(run, "docker")


def test_wheel_in_a_container_publishes_the_networks_and_answers_photos(tmp_path: Path) -> None:
    require_running("docker")
    build = ("-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path))
    run(sys.executable, *build, cwd=ROOT)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    (block,) = re.findall(r"^```\n([^`]*cpu\.txt[^`]*)^```", PAGE.read_text(), re.MULTILINE)
    # The page links to uv's own page for its installation.
    uv = "python -m venv uv && uv/bin/pip install --quiet uv && PATH=$PATH:/tmp/uv/bin\n"
    assert f"'{wheel.name}[" in block
    commands, port = uv + block.replace(wheel.name, f"/dist/{wheel.name}"), free_port()
    # The packages that uv has downloaded for .venv.
    cache = run(str(Path(sys.executable).with_name("uv")), "cache", "dir").strip()
    settings = {
        "DIGITS_HOST": "0.0.0.0",
        "HOME": "/tmp",
        "UV_CACHE_DIR": "/cache",
        "UV_CONSTRAINT": "/dist/constraints.txt",
        # In place of copies of 1.7 GB.
        "UV_LINK_MODE": "symlink",
    }
    container = docker(
        *("run", "--detach", "--init", "--workdir=/tmp", f"--user={os.getuid()}:{os.getgid()}"),
        *(f"--env={name}={value}" for name, value in settings.items()),
        *(f"--volume={tmp_path}:/dist:ro", f"--volume={cache}:/cache", f"--publish=127.0.0.1:{port}:8080"),
        *("python:3.13-slim", "sh", "-ec", commands),
    ).strip()
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        state = docker("inspect", "--format", "{{.State.Status}}", container).strip()
        assert state == "running", docker("logs", container)
        return answers(f"{url}/readyz")

    try:
        wait_until(is_ready, seconds=400)
        with Client(url) as client:
            assert client.predict(ROOT / "docs" / "five.jpg").digit == 5
            assert client.read(ROOT / "docs" / "number.jpg").text == "2026\n17"
        (environment,) = set(re.findall(r" /cache/(\S+)/bin/digits up", docker("top", container)))
        printed = docker("logs", container)
    finally:
        docker("rm", "--force", container)
    assert "models is empty: publishing the networks that come with digits ...\n" in printed
    assert "Model server" in printed
    packages = Path(cache, environment).glob("lib/*/site-packages/*.dist-info")
    names = {path.name.split("-")[0] for path in packages}
    assert {"digits", "tensorflow", "tensorflow_cpu"} & names == {"digits", "tensorflow_cpu"}
