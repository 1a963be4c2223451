"""`digits up`: the model server and the gateway as two processes on one machine."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from digit_serving import sockets
from digit_serving.processes import ProcessDiedError, ProcessGroup, python_command

_PORT = click.IntRange(1, 65535)
_TLS_SETTINGS = (
    "DIGITS_TLS_CERTIFICATE",
    "DIGITS_TLS_KEY",
    "DIGITS_MODEL_SERVER_CA",
    "DIGITS_MODEL_SERVER_CERTIFICATE",
    "DIGITS_MODEL_SERVER_KEY",
)
# By default, glibc returns a picture's buffers to the kernel after each request, and the kernel clears new
# pages for the next request. With these settings glibc keeps up to 16 MiB, in blocks of at most 4 MiB.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(16 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20)}
_READY_ANSWERS = 8
"""Consecutive successes of /readyz that count as ready: enough to reach every gateway worker."""


def _option(name: str, default: Any, kind: Any, text: str) -> Callable[..., Any]:
    variable = f"DIGITS_{name.strip('-').replace('-', '_').upper()}"
    return click.option(
        name, default=default, type=kind, help=text, show_default=True, envvar=variable, show_envvar=True
    )


@click.command()
@_option("--models", Path("models/digits"), click.Path(path_type=Path), "Folder of the model's versions.")
@_option("--host", "127.0.0.1", str, "Gateway's address.")
@_option("--port", 8080, _PORT, "Gateway's port.")
@_option("--grpc-port", 8500, _PORT, "Model server's gRPC port.")
@_option("--rest-port", 8501, _PORT, "Model server's REST port.")
def up(models: Path, host: str, port: int, grpc_port: int, rest_port: int) -> None:
    """Run the model server and the gateway until Ctrl-C."""
    from digit_serving.releases.config import MODEL_NAME, ReleaseError

    stack = Stack(models, host, port, grpc_port, rest_port)
    try:
        stack.check()
        started = time.monotonic()
        with ProcessGroup() as group:
            program = stack.start(group)
            if not group.wait(stack.is_ready):
                return
            click.echo(f"Model server  http://127.0.0.1:{rest_port}/v1/models/{MODEL_NAME}  (REST)")
            click.echo(f"              127.0.0.1:{grpc_port}  (gRPC; {program})")
            click.echo(f"Gateway       {stack.url}")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            group.wait()
    except (CannotStartError, ProcessDiedError, ReleaseError) as error:
        raise click.ClickException(str(error)) from error


class CannotStartError(Exception):
    """No model exists, no version is to be loaded, or a port is in use."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Addresses of both services, and the models folder.

    `host` and `port` are the gateway's. The model server's gRPC and REST ports listen on 127.0.0.1, but
    TensorFlow Serving itself opens them on every address.
    """

    models: Path
    host: str
    port: int
    grpc_port: int
    rest_port: int

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return f"http://{self.host}:{self.port}"

    def check(self) -> None:
        """Raise CannotStartError if there is no version to serve or a port is taken."""
        from digit_serving.releases.config import ConfigFile
        from digit_serving.releases.versions import list_versions

        versions = list_versions(self.models)
        if not versions:
            raise CannotStartError(f"{self.models} has no model; create one with `digits train`")
        file = ConfigFile(self.models)
        if file.path.exists() and not file.read().versions_to_load(versions):
            raise CannotStartError(
                f"no version in {file.path} exists; choose one with `digits models promote N --offline`"
            )
        taken = [
            f"{port} ({name})"
            for name, host, port in (
                ("gateway", self.host, self.port),
                ("model server, gRPC", "", self.grpc_port),
                ("model server, REST", "", self.rest_port),
            )
            if not _is_free(host, port)
        ]
        if taken:
            raise CannotStartError(f"ports in use: {', '.join(taken)}")

    def start(self, group: ProcessGroup) -> str:
        """Start both services and return the name of the model server: TensorFlow Serving or the drop-in."""
        from digit_serving.releases.config import MODEL_NAME

        program, command = _find_model_server()
        flags = (
            f"--port={self.grpc_port}",
            f"--rest_api_port={self.rest_port}",
            *self._model_flags(),
            "--enable_profiler=false",
        )
        group.start("model server", [*command, *flags], {"TF_CPP_MIN_LOG_LEVEL": "3", **_MALLOC})
        settings = {
            "DIGITS_HOST": self.host,
            "DIGITS_PORT": str(self.port),
            "DIGITS_MODEL_SERVER": f"127.0.0.1:{self.grpc_port}",
            "DIGITS_MODEL_NAME": MODEL_NAME,
            **_MALLOC,
            # Loopback connections need no TLS.
            **dict.fromkeys(_TLS_SETTINGS, ""),
            # Defaults for a terminal: warnings only, without JSON.
            "DIGITS_LOG_LEVEL": os.environ.get("DIGITS_LOG_LEVEL", "warning"),
            "DIGITS_LOG_FORMAT": os.environ.get("DIGITS_LOG_FORMAT", "pretty"),
        }
        group.start("gateway", python_command("gateway"), settings)
        return program

    def is_ready(self) -> bool:
        """True if /readyz succeeds _READY_ANSWERS times: a prediction would succeed."""
        import httpx

        try:
            return all(
                httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
                for _ in range(_READY_ANSWERS)
            )
        except httpx.HTTPError:
            return False

    def _model_flags(self) -> tuple[str, ...]:
        from digit_serving.releases.config import MODEL_NAME, ensure_config

        try:
            file = ensure_config(self.models)
        except OSError:
            # A read-only folder can't have a models.config: serve the newest version, without labels.
            return f"--model_name={MODEL_NAME}", f"--model_base_path={self.models.resolve()}"
        return (
            f"--model_config_file={file.path}",
            "--model_config_file_poll_wait_seconds=1",
            # The server reads the labels at its start, before it has loaded their versions.
            "--allow_version_labels_for_unavailable_models=true",
        )


def _find_model_server() -> tuple[str, list[str]]:
    """Return name and command of `tensorflow_model_server` if it is installed, else of the drop-in."""
    real = shutil.which("tensorflow_model_server")
    if real:
        return "TensorFlow Serving", [real]
    return "drop-in for TensorFlow Serving", python_command("model-server", "--host=127.0.0.1")


def _is_free(host: str, port: int) -> bool:
    try:
        sockets.listen(host, port).close()
    except OSError:
        return False
    return True
