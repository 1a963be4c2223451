"""Kubernetes Job that runs `digits models promote` or `rollback` in the cluster."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from string import Template


def format_job(command: str, arguments: Sequence[str], image: str | None) -> str:
    """Return the manifest for `kubectl apply`. Its name has the time, since a Job runs once."""
    template = Template(files("digit_serving.releases").joinpath("job.yaml").read_text())
    return template.substitute(
        name=f"{command}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
        image=image or f"digits-gateway:{version('digit-serving')}",
        command=json.dumps(["digits", "models", command, *arguments]),
    )
