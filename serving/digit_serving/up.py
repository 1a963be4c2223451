"""The model server and the gateway on one machine."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx

from digit_serving import sockets
from digit_serving.processes import ProcessGroup, python_command
from digit_serving.releases.config import MODEL_NAME, ConfigFile, prepared
from digit_serving.releases.versions import published

_ENCRYPTION = (
    "DIGITS_TLS_CERTIFICATE",
    "DIGITS_TLS_KEY",
    "DIGITS_MODEL_SERVER_CA",
    "DIGITS_MODEL_SERVER_CERTIFICATE",
    "DIGITS_MODEL_SERVER_KEY",
)


# glibc returns the buffers of a picture to the kernel after each request, which then clears as many pages for
# the next one. With these it keeps up to 16 MiB, but nothing large.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(16 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20)}
_READY_ANSWERS = 8


class CannotStartError(Exception):
    """Something that the services need is missing."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the services listen and which models they serve.

    `models` is the folder of versions; `host` and `port` are the gateway's; the model server's gRPC and REST
    ports are for this machine alone, but TensorFlow Serving opens its own on every address.
    """

    models: Path
    host: str
    port: int
    grpc_port: int
    rest_port: int

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://{self.host}:{self.port}"

    def check(self) -> None:
        """Raise CannotStartError while nothing has been started yet."""
        versions = published(self.models)
        if not versions:
            raise CannotStartError(f"there is no model in {self.models}; `digits train` makes one")
        file = ConfigFile(self.models)
        if file.path.exists() and not file.read().wanted(versions):
            raise CannotStartError(
                f"{file.path} wants versions that are gone: `digits models promote N --offline`"
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
            raise CannotStartError(f"these ports are taken: {', '.join(taken)}")

    def start(self, group: ProcessGroup) -> str:
        """Start both services and return the name of the model server that was found."""
        program, command = _model_server()
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
            # On one machine they talk in the clear.
            **dict.fromkeys(_ENCRYPTION, ""),
            # A human reads along, who can ask for more.
            "DIGITS_LOG_LEVEL": os.environ.get("DIGITS_LOG_LEVEL", "warning"),
            "DIGITS_LOG_FORMAT": os.environ.get("DIGITS_LOG_FORMAT", "pretty"),
        }
        group.start("gateway", python_command("gateway"), settings)
        return program

    def _model_flags(self) -> tuple[str, ...]:
        try:
            file = prepared(self.models)
        except OSError:
            # Where nothing can be written, no label can move.
            return f"--model_name={MODEL_NAME}", f"--model_base_path={self.models.resolve()}"
        return (
            f"--model_config_file={file.path}",
            "--model_config_file_poll_wait_seconds=1",
            # A server that starts has its labels before the versions that they stand for.
            "--allow_version_labels_for_unavailable_models=true",
        )

    def is_ready(self) -> bool:
        """Ask the gateway for its readiness: True where it says that a prediction would be answered.

        It is asked several times, since each of its workers connects to the model server by itself.
        """
        try:
            return all(
                httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
                for _ in range(_READY_ANSWERS)
            )
        except httpx.HTTPError:
            return False


def _model_server() -> tuple[str, list[str]]:
    real = shutil.which("tensorflow_model_server")
    if real:
        return "TensorFlow Serving", [real]
    return "drop-in for TensorFlow Serving", python_command("model-server", "--host=127.0.0.1")


def _is_free(host: str, port: int) -> bool:
    try:
        sockets.tcp(host, port).close()
    except OSError:
        return False
    return True


_PORT = click.IntRange(1, 65535)


def _option(name: str, default: Any, kind: Any, text: str) -> Callable[..., Any]:
    variable = f"DIGITS_{name.strip('-').replace('-', '_').upper()}"
    return click.option(
        name, default=default, type=kind, help=text, show_default=True, envvar=variable, show_envvar=True
    )


@click.command()
@_option("--models", Path("models/digits"), click.Path(path_type=Path), "Folder of the model's versions.")
@_option("--host", "127.0.0.1", str, "The gateway's address.")
@_option("--port", 8080, _PORT, "The gateway's port.")
@_option("--grpc-port", 8500, _PORT, "The model server's port for gRPC.")
@_option("--rest-port", 8501, _PORT, "The model server's port for REST.")
def up(models: Path, host: str, port: int, grpc_port: int, rest_port: int) -> None:
    """Run the model server and the gateway until Ctrl-C."""
    from digit_serving.processes import ProcessDiedError, ProcessGroup
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
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Ctrl-C stops it.")
            group.wait()
    except (CannotStartError, ProcessDiedError, ReleaseError) as error:
        raise click.ClickException(str(error)) from error
