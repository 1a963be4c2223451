"""Model server for the time of a run: one version of a model, on a free port of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from digit_serving import sockets
from digit_serving.processes import ProcessDiedError, ProcessGroup
from digit_serving.releases.config import ModelsConfig, ReleaseError, find_config
from digit_serving.releases.versions import find_model, list_versions
from digit_serving.up import MODEL_SERVER_ENVIRONMENT, MODEL_SERVER_FLAGS, find_model_server


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A version of a model, and its folder of versions."""

    name: str
    version: int
    path: Path

    @classmethod
    def find(cls, root: Path, name: str | None, version: int | None, label: str | None) -> "LocalModel":
        """Return the model of this name and its version of this number or label, else the one served.

        Raise ReleaseError if there is none.
        """
        model = find_model(root, name)
        published = list_versions(model.path)
        config = find_config(model.path)
        if label is not None:
            version = (config.read().labels(model.name) if config.path.exists() else {}).get(label)
            if version is None:
                raise ReleaseError(f"{model.name} has no label {label}; see `digits models ls`")
        elif version is None:
            served = config.read().versions_to_load(model.name, published) if config.path.exists() else ()
            version = max(served or published)
        if version not in published:
            raise ReleaseError(f"version {version} does not exist in {model.path}")
        return cls(model.name, version, model.path)

    @contextmanager
    def serving(self, group: ProcessGroup) -> Iterator[str]:
        """Start a model server of this version only, and yield its address.

        A release can't unload the version: the server does not read the models' own configuration. Raise
        ProcessDiedError with the log's last line.
        """
        config = ModelsConfig.of_newest({self.name: self.path.resolve()})
        with sockets.listen("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        with TemporaryDirectory() as folder:
            file, log = Path(folder) / "models.config", Path(folder) / "log"
            file.write_text(str(config.with_versions(self.name, [self.version])))
            _, command = find_model_server()
            flags = (f"--port={port}", f"--model_config_file={file}", *MODEL_SERVER_FLAGS)
            with log.open("wb") as output:
                group.start("model server", [*command, *flags], MODEL_SERVER_ENVIRONMENT, output)
            try:
                yield f"127.0.0.1:{port}"
            except ProcessDiedError as error:
                lines = log.read_text(errors="replace").splitlines() or ["it wrote no log"]
                raise ProcessDiedError(f"{error}: {lines[-1]}") from error
