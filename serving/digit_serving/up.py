"""`digits up`: the model server and the gateway as two processes on one machine."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click

from digit_client import DIGITS
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
MODEL_SERVER_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", **_MALLOC}
"""Environment variables of a model server: errors only, and its memory settings."""
MODEL_SERVER_FLAGS = (
    "--enable_profiler=false",
    # The server refuses calls beyond this number, by default four for each core. Threads start on demand.
    "--grpc_max_threads=256",
    # Retries of a broken version would keep every other version from loading, by default for five minutes.
    "--max_num_load_retries=0",
)
"""Flags of a model server for this machine's callers, in addition to its ports and models."""
_READY_ANSWERS = 8
"""Consecutive successes of /readyz that count as ready: enough to reach every gateway worker."""


def _option(name: str, default: Any, kind: Any, text: str) -> Callable[..., Any]:
    variable = f"DIGITS_{name.strip('-').replace('-', '_').upper()}"
    return click.option(
        name, default=default, type=kind, help=text, show_default=True, envvar=variable, show_envvar=True
    )


@click.command()
@_option(
    "--models",
    Path("models/digits"),
    click.Path(path_type=Path),
    "Folder of a model's versions, or of several models' folders.",
)
@_option("--host", "127.0.0.1", str, "Gateway's address.")
@_option("--port", 8080, _PORT, "Gateway's port.")
@_option("--grpc-port", 8500, _PORT, "Model server's gRPC port.")
@_option("--rest-port", 8501, _PORT, "Model server's REST port.")
def up(models: Path, host: str, port: int, grpc_port: int, rest_port: int) -> None:
    """Run the model server and the gateway until Ctrl-C."""
    from digit_serving.releases.config import ReleaseError

    try:
        stack = Stack.of_folder(models, host, port, grpc_port, rest_port)
        stack.check()
        started = time.monotonic()
        with ProcessGroup() as group:
            program = stack.start(group)
            if not group.wait(stack.is_ready):
                return
            click.echo(f"Model server  http://127.0.0.1:{rest_port}/v1/models/{stack.default_name}  (REST)")
            click.echo(f"              127.0.0.1:{grpc_port}  (gRPC; {program})")
            click.echo(f"Gateway       {stack.url}")
            if len(stack.models) > 1:
                click.echo(f"Models        {', '.join(stack.models)}; default: {stack.default_name}")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            group.wait()
    except (CannotStartError, ProcessDiedError, ReleaseError) as error:
        raise click.ClickException(str(error)) from error


class CannotStartError(Exception):
    """No model exists, no version is to be loaded, the models can't be served, or a port is in use."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Addresses of both services, and the models.

    `root` is the folder of models.config, and `models` maps each model's name to its folder of versions. The
    gateway uses `default_name` for requests that name no model.

    `host` and `port` are the gateway's. The model server's gRPC and REST ports listen on 127.0.0.1, but
    TensorFlow Serving itself opens them on every address.
    """

    root: Path
    models: Mapping[str, Path]
    default_name: str
    host: str
    port: int
    grpc_port: int
    rest_port: int

    @classmethod
    def of_folder(cls, root: Path, host: str, port: int, grpc_port: int, rest_port: int) -> Self:
        """Return the stack of a folder of versions, or of several models' folders.

        Raises CannotStartError if there is no model, and ReleaseError if two have the same name or a model's
        task card is invalid.
        """
        from digit_serving.releases.versions import list_models

        models = {model.name: model.path for model in list_models(root)}
        if not models:
            raise CannotStartError(f"{root} has no model; create one with `digits train` or `digits export`")
        return cls(root, models, _choose_default(root, models), host, port, grpc_port, rest_port)

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return f"http://{self.host}:{self.port}"

    def check(self) -> None:
        """Raise CannotStartError if a port is taken."""
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
        """Start both services and return the name of the model server: TensorFlow Serving or the drop-in.

        Raises CannotStartError, before a start, if a model has no version to load or the models can't be
        served, and ReleaseError if models.config is invalid or locked.
        """
        program, command = find_model_server()
        flags = (
            f"--port={self.grpc_port}",
            f"--rest_api_port={self.rest_port}",
            *self._model_flags(),
            *MODEL_SERVER_FLAGS,
        )
        group.start("model server", [*command, *flags], MODEL_SERVER_ENVIRONMENT)
        settings = {
            "DIGITS_HOST": self.host,
            "DIGITS_PORT": str(self.port),
            "DIGITS_MODEL_SERVER": f"127.0.0.1:{self.grpc_port}",
            "DIGITS_MODEL_NAME": self.default_name,
            "DIGITS_MODEL_NAMES": ",".join(self.models),
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
        from digit_serving.releases.config import ensure_config
        from digit_serving.releases.versions import list_versions

        default = self.models[self.default_name]
        try:
            file = ensure_config(self.root, self.models, click.echo)
        except OSError as error:
            if len(self.models) > 1:
                raise CannotStartError(
                    f"{self.root} must be writable to serve several models; serve one: --models {default}"
                ) from error
            # A read-only folder can't have a models.config: serve the newest version, without labels.
            return f"--model_name={self.default_name}", f"--model_base_path={default.resolve()}"
        config = file.read()
        for name, path in self.models.items():
            if not config.versions_to_load(name, list_versions(path)):
                option = f" --model {name}" if len(self.models) > 1 else ""
                raise CannotStartError(
                    f"no version of {name} in {file.path} exists; "
                    f"choose one with `digits models promote N --offline{option}`"
                )
        return (
            f"--model_config_file={file.path}",
            "--model_config_file_poll_wait_seconds=1",
            # The server reads the labels at its start, before it has loaded their versions.
            "--allow_version_labels_for_unavailable_models=true",
        )


def _choose_default(root: Path, models: Mapping[str, Path]) -> str:
    """Return the model of DIGITS_MODEL_NAME, else the digits, else the first by name."""
    named = os.environ.get("DIGITS_MODEL_NAME")
    if named and named not in models:
        raise CannotStartError(f"DIGITS_MODEL_NAME is {named}, but {root} has {', '.join(models)}")
    return named or (DIGITS.name if DIGITS.name in models else next(iter(models)))


def find_model_server() -> tuple[str, list[str]]:
    """Return name and command of `tensorflow_model_server` if it is installed, else of the drop-in.

    DIGITS_MODEL_PUBLIC_KEY needs the drop-in: TensorFlow Serving does not verify signatures.
    """
    real = shutil.which("tensorflow_model_server")
    if real and not os.environ.get("DIGITS_MODEL_PUBLIC_KEY"):
        return "TensorFlow Serving", [real]
    return "drop-in for TensorFlow Serving", python_command("model-server", "--host=127.0.0.1")


def _is_free(host: str, port: int) -> bool:
    try:
        sockets.listen(host, port).close()
    except OSError:
        return False
    return True
