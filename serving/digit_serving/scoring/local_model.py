"""Local model: a published version that a model server on a free port of this machine serves for a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from digit_client.artifact.models_config import STABLE, ModelsConfig
from digit_client.artifact.models_folder import ModelsFolder
from digit_client.artifact.versions import ArtifactError, Version
from digit_serving import sockets
from digit_serving.processes import ProcessDiedError, ProcessGroup
from digit_serving.up import MODEL_SERVER_ENVIRONMENT, MODEL_SERVER_FLAGS, find_model_server


def find_version(root: Path, name: str | None, number: int | None, label: str | None) -> Version:
    """Return the version of this number, or of this label, by default the stable one, of a model.

    Raise ArtifactError if there is none.
    """
    folder = ModelsFolder(root)
    name = folder.choose(name)
    if number is not None:
        return folder.version(name, number)
    version = folder.labelled(name, label or STABLE)
    if version is None:
        raise ArtifactError(f"no version of {name} is {label or STABLE}; see `digits models ls`")
    return version


@contextmanager
def serving(version: Version, group: ProcessGroup) -> Iterator[str]:
    """Start a model server of this version only, and yield its address.

    A release can't unload the version: the server does not read the models' own configuration. Raise
    ProcessDiedError with the log's last line.
    """
    config = ModelsConfig.empty().with_versions(
        version.model, [version.number], version.path.parent.resolve()
    )
    with sockets.listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder:
        file, log = Path(folder) / "models.config", Path(folder) / "log"
        file.write_text(str(config))
        _, command = find_model_server()
        flags = (f"--port={port}", f"--model_config_file={file}", *MODEL_SERVER_FLAGS)
        with log.open("wb") as output:
            group.start("model server", [*command, *flags], MODEL_SERVER_ENVIRONMENT, output)
        try:
            yield f"127.0.0.1:{port}"
        except ProcessDiedError as error:
            lines = log.read_text(errors="replace").splitlines() or ["it wrote no log"]
            raise ProcessDiedError(f"{error}: {lines[-1]}") from error
