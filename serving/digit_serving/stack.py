"""Stack: the model server and the gateway as processes of one machine."""

import math
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO

import click
import httpx

from digit_core.artifact.addresses import Addresses, recorded
from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.artifact.versions import (
    STAGING_PREFIX,
    ArtifactError,
    remove_leftovers,
    write_atomically,
)
from digit_serving.errors import DigitServingError, ProcessDiedError
from digit_serving.ports import Ports
from digit_serving.processes import Child, ProcessGroup, python_command

_MODEL_SERVER_TLS = (
    "DIGITS_MODEL_SERVER_CA",
    "DIGITS_MODEL_SERVER_CERTIFICATE",
    "DIGITS_MODEL_SERVER_KEY",
)
# By default, glibc returns a picture's buffers to the kernel after each request, and the kernel clears new
# pages for the next request. With these settings glibc keeps up to 16 MiB, in blocks of at most 4 MiB.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(16 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20)}
MODEL_SERVER_FLAGS = (
    # Metrics for Prometheus, at the same path as in containers.
    f"--monitoring_config_file={Path(__file__).with_name('monitoring.config')}",
    "--enable_profiler=false",
    # The server refuses calls beyond this number, by default four for each core. Threads start on demand.
    "--grpc_max_threads=256",
    # Retries of a broken version would keep every other version from loading, by default for five minutes.
    "--max_num_load_retries=0",
    # The server reads the labels at its start, before it has loaded their versions.
    "--allow_version_labels_for_unavailable_models=true",
)
"""Flags of a model server for this machine's callers, in addition to its ports and models."""
_INFO = re.compile(rb"\d{4}-\d\d-\d\d \S+: I |I\d{4} ")
"""Start of a line of severity INFO, with the prefix of TensorFlow's log or of Abseil's."""
TENSORFLOW_SERVING = "TensorFlow Serving"
MODEL_SERVER = "model server"
"""Name of the model server's process."""
_READY_ANSWERS = 8
"""Consecutive successes of /readyz that count as ready: enough to reach every gateway worker."""
_REASON_SECONDS = 10.0
"""Time after which the reason that /readyz gives is printed: a start takes as long."""
_LOCK_PAUSE_SECONDS = 0.5
"""Time between two locks of the models folder, in which a promotion can get the lock."""


def run(root: Path, ports: Ports, empty: bool) -> None:
    """Run both services until a signal. Publish the shipped networks into an empty folder, unless `empty`.

    Raise ProcessDiedError if a service can't be kept running.
    """
    if not empty:
        publish_shipped(root, click.echo)
    with prepared(root, click.echo, empty) as folder:
        while True:
            try:
                return _run(root, folder, ports)
            except ProcessDiedError as error:
                if error.process != MODEL_SERVER:
                    raise
                name = choose_default(folder, click.echo)
                click.echo(f"The {error}; loading each version of {name} to find the reason ...", err=True)
                if not folder.prepare(click.echo, load=(name, READER_NAME)):
                    raise


def _run(root: Path, folder: ModelsFolder, ports: Ports) -> None:
    started, default = time.monotonic(), choose_default(folder, click.echo)
    addresses = Addresses(ports.url, f"127.0.0.1:{ports.grpc}", default)
    with TemporaryDirectory() as temporary, recorded(root, addresses):
        served = ServedConfig(folder, default, Path(temporary) / "models.config", ports.grpc)
        with ProcessGroup(poll=served.update) as group:
            program = _start(group, folder, served, ports)
            is_ready = readiness(ports.url, click.echo)
            if not group.wait(is_ready):
                return
            click.echo(f"Model server  {addresses.model_server}  (gRPC; {program})")
            click.echo(f"              http://127.0.0.1:{ports.rest}/v1/models/{default}  (REST)")
            if len(names := {default, *_permitted_models(folder)} - {"*"}) > 1:
                click.echo(f"Models        {', '.join(sorted(names))}; default: {default}, the others follow")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            page = ports.url.replace("//127.0.0.1:", "//localhost:")
            click.echo(f"Open {page}: draw or drop a picture")
            Thread(target=_adopt_others, args=[folder], daemon=True).start()
            group.supervise(is_ready, partial(click.echo, err=True))


def _adopt_others(folder: ModelsFolder) -> None:
    """Enter the models that have no entry. Verifying takes seconds each; the default answers meanwhile."""
    for name in folder.names():
        try:
            folder.adopt(name, click.echo)
        except (ArtifactError, OSError) as error:
            click.echo(str(error), err=True)
        # Leave the lock to others who wait for it.
        time.sleep(_LOCK_PAUSE_SECONDS)


def publish_shipped(root: Path, report: Callable[[str], None]) -> None:
    """Publish the networks that ship with this package into an empty folder; hidden files do not count.

    The training package publishes into a temporary folder, in a process of its own. Renames at the end move
    all of it, so that Ctrl-C leaves the folder empty. Raise ProcessDiedError if the process fails.
    """
    if not _is_empty(root):
        return
    report(f"{root} is empty: publishing the networks that come with digits ...")
    root.mkdir(parents=True, exist_ok=True)
    with ModelsFolder(root).lock():
        if not _is_empty(root):
            return
        remove_leftovers(root)
        # Use the folder itself, which may be a mount point: a rename stays on one file system.
        with TemporaryDirectory(prefix=STAGING_PREFIX, dir=root) as temporary:
            # Drop the output, which names the temporary folder.
            command = ["sh", "-c", 'exec "$@" >/dev/null', "sh", *python_command("train", "--if-needed")]
            with ProcessGroup(interrupt=True) as group:
                group.start(Child("publication", command, {"DIGITS_MODELS": temporary}))
                group.finish()
            for path in Path(temporary).glob("[!.]*"):
                path.rename(root / path.name)


def _is_empty(root: Path) -> bool:
    return not any(root.glob("[!.]*"))


@contextmanager
def prepared(root: Path, report: Callable[[str], None], empty: bool = False) -> Iterator[ModelsFolder]:
    """Bring the folder's models.config up to date, and yield the folder for the block.

    A read-only folder gives a temporary one of links, with a corrected copy of models.config. Raise
    DigitServingError if the folder has no model, unless `empty`, which creates a folder that is missing.
    """
    folder = ModelsFolder(root)
    if empty:
        root.mkdir(parents=True, exist_ok=True)
    if not (names := folder.names()) and not empty:
        raise DigitServingError(f"{root} has no model; create one with `digits train` or `digits export`")
    try:
        folder.prepare(report)
    except OSError as error:
        report(f"{root} can't be changed ({error.strerror}): promotions have no effect until the next start.")
        with TemporaryDirectory() as temporary:
            links = ModelsFolder(Path(temporary))
            for name in names:
                (links.root / name).symlink_to((root / name).resolve())
            for file in (folder.config_path, folder.default_path, folder.traffic_path):
                if file.exists():
                    shutil.copyfile(file, links.root / file.name)
            links.prepare(report)
            yield links
    else:
        yield folder


def readiness(url: str, report: Callable[[str], None]) -> Callable[[], bool]:
    """Return a function that is True once the gateway at the URL is ready: a prediction would succeed.

    `report` gets the reason once when unreadiness lasts.
    """
    reason, since = "", 0.0

    def is_ready() -> bool:
        nonlocal reason, since
        try:
            for _ in range(_READY_ANSWERS):
                answer = httpx.get(f"{url}/readyz", timeout=2, trust_env=False)
                if answer.status_code != 200:
                    break
            else:
                return True
            detail = answer.json().get("detail", "")
        except (httpx.HTTPError, ValueError):
            return False
        if detail != reason:
            reason, since = detail, time.monotonic()
        elif detail and time.monotonic() - since > _REASON_SECONDS:
            report(f"Not ready yet: {detail}")
            since = math.inf
        return False

    return is_ready


class ServedConfig:
    """models.config for the model server: the default model and the reader until it listens, then all models.

    A model server listens once every model of its file is loaded, and ends if one can't be loaded. The
    others are added later, so that they neither delay nor prevent the default's answers.
    """

    def __init__(self, folder: ModelsFolder, default_name: str, path: Path, port: int) -> None:
        self.path = path
        self.first = (default_name, READER_NAME)
        self._folder, self._port = folder, port
        self._begin()

    def restart(self, has_failed: bool) -> None:
        """Remove damaged versions from models.config, unless a promotion holds the lock, and begin anew.

        After a failed start, also load each version of the start in turn, and remove those that fail.
        """
        try:
            self._folder.prepare(click.echo, load=self.first if has_failed else (), timeout=1)
        except (ArtifactError, OSError) as error:
            click.echo(str(error), err=True)
        self._begin()

    def _begin(self) -> None:
        self._is_listening, self._written = False, ""
        self.update()

    def update(self) -> None:
        """Follow models.config; ignore it while it can't be read."""
        self._is_listening = self._is_listening or _accepts(self._port)
        try:
            text = self._folder.config_path.read_text()
            if not self._is_listening:
                config = ModelsConfig.parse(text)
                for name in config.base_paths.keys() - {*self.first}:
                    config = config.without(name)
                text = str(config)
        except (ArtifactError, OSError, UnicodeDecodeError):
            return
        if text != self._written:
            write_atomically(self.path, text)
            self._written = text


def _accepts(port: int) -> bool:
    """True if a process of this machine listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _start(group: ProcessGroup, folder: ModelsFolder, served: ServedConfig, ports: Ports) -> str:
    """Start both services and return the name of the model server: TensorFlow Serving or the drop-in."""
    program = start_model_server(
        group,
        f"--port={ports.grpc}",
        f"--rest_api_port={ports.rest}",
        f"--model_config_file={served.path}",
        "--model_config_file_poll_wait_seconds=1",
        prepare=served.restart,
    )
    settings = {
        "DIGITS_HOST": ports.host,
        "DIGITS_PORT": str(ports.gateway),
        "DIGITS_MODEL_SERVER": f"127.0.0.1:{ports.grpc}",
        "DIGITS_MODEL_NAME": served.first[0],
        "DIGITS_MODEL_NAMES": ",".join(_permitted_models(folder)),
        # The page's menu lists models that are published later, too.
        "DIGITS_MODELS_CONFIG": str(folder.config_path.resolve()),
        **_MALLOC,
        # Loopback connections need no TLS.
        **dict.fromkeys(_MODEL_SERVER_TLS, ""),
        **_log_level(),
        # A terminal shows lines, not JSON.
        "DIGITS_LOG_FORMAT": os.environ.get("DIGITS_LOG_FORMAT", "pretty"),
    }
    group.start(Child("gateway", python_command("gateway"), settings))
    return program


def _permitted_models(folder: ModelsFolder) -> list[str]:
    """Return the models of DIGITS_MODEL_NAMES, or those of the folder and `*` for later ones."""
    given = os.environ.get("DIGITS_MODEL_NAMES")
    return given.split(",") if given else [*folder.classifiers(), "*"]


def choose_default(folder: ModelsFolder, report: Callable[[str], None]) -> str:
    """Return the model of DIGITS_MODEL_NAME, or the folder's default, and enter it in models.config.

    The first start chooses the digits or the first model by name, and later ones keep it while it exists: a
    model that is published afterwards must not take over the callers who name none. An empty folder's default
    is not entered. Raise DigitServingError if no version can be served.
    """
    names, default, named = folder.classifiers(), folder.default(), os.environ.get("DIGITS_MODEL_NAME")
    if not folder.names():
        return named or DIGITS.name
    if named and named not in names:
        raise DigitServingError(f"DIGITS_MODEL_NAME is {named}, but there are only {', '.join(names)}")
    choices = sorted(names, key=lambda name: (name != default, name != DIGITS.name, name))
    for name in [named] if named else choices:
        folder.adopt(name, report)
        if name in folder.read_config().base_paths:
            if not named and name != default:
                with suppress(OSError):  # a read-only folder
                    folder.set_default(name)
            return name
    raise DigitServingError(f"no version in {folder.root / (named or '')} can be served")


def start_model_server(
    group: ProcessGroup,
    *flags: str,
    log: IO[bytes] | int | None = None,
    prepare: Callable[[bool], object] | None = None,
) -> str:
    """Start a model server with MODEL_SERVER_FLAGS and more flags, and return its name."""
    program, command = find_model_server()
    level = _log_level()
    if program == TENSORFLOW_SERVING and not log and level["DIGITS_LOG_LEVEL"] in ("warning", "error"):
        log = _without_info()
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **level, **_MALLOC}
    command = [*command, *flags, *MODEL_SERVER_FLAGS]
    group.start(Child(MODEL_SERVER, command, environment, log, prepare))
    return program


def _without_info() -> int:
    """Return a pipe whose lines go to standard error, except those of TensorFlow's severity INFO.

    TensorFlow Serving writes several a second while it polls, even with TF_CPP_MIN_LOG_LEVEL. The pipe stays
    open for further starts.
    """
    reading, writing = os.pipe()

    def copy() -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not _INFO.match(line):
                    os.write(2, line)

    Thread(target=copy, daemon=True).start()
    return writing


def _log_level() -> dict[str, str]:
    """Return the variable of the log level: by default warnings, for a terminal."""
    return {"DIGITS_LOG_LEVEL": os.environ.get("DIGITS_LOG_LEVEL") or "warning"}


def find_model_server() -> tuple[str, list[str]]:
    """Return the name and command of `tensorflow_model_server` if it is installed, or of the drop-in.

    DIGITS_MODEL_PUBLIC_KEY needs the drop-in: TensorFlow Serving does not verify signatures.
    """
    real = shutil.which("tensorflow_model_server")
    if real and not os.environ.get("DIGITS_MODEL_PUBLIC_KEY"):
        return TENSORFLOW_SERVING, [real]
    return "drop-in for TensorFlow Serving", python_command("model-server", "--host=127.0.0.1")
