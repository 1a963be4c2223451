"""A run of `digits score`: pin the version, compare images with results, and score those without a row."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from digit_core.artifact.models_config import STABLE, ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.artifact.versions import ArtifactError, Version
from digit_core.errors import DigitError, ModelNotFoundError
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import Connection
from digit_serving import sockets
from digit_serving.errors import DigitServingError, ProcessDiedError, SettingError
from digit_serving.processes import ProcessGroup
from digit_serving.scoring import files
from digit_serving.scoring.results import FINAL_CODES, READ_CODES, ResultsFolder, Run
from digit_serving.scoring.worker import Batch, Scorer, processes, ray_tasks
from digit_serving.stack import start_model_server

_PROBE_SECONDS = 2.0


@dataclass(slots=True)
class Summary:
    """Counts of a run, as far as it has come.

    `counts` has the number of new rows by error code, None for answers; `skipped` is the number of pictures
    that had a row, `removed` of rows whose picture is gone. `start_seconds` end when the first batch starts.
    """

    run: Run | None = None
    skipped: int = 0
    removed: int = 0
    counts: Counter[str | None] = field(default_factory=Counter)
    start_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def to_repeat(self) -> Counter[str | None]:
        """Number of pictures that the next run scores again, by error code."""
        return Counter({code: self.counts[code] for code in self.counts.keys() - {None, *FINAL_CODES}})

    def add(self, batch: Batch, elapsed: float) -> None:
        """Count a batch that ended `elapsed` seconds after the start of the run."""
        self.counts += batch.counts
        self.start_seconds = self.start_seconds or elapsed - batch.seconds
        self.seconds = elapsed - self.start_seconds

    def __str__(self) -> str:
        """Return lines for a terminal, without those that count nothing."""
        done, to_repeat = self.counts.total(), self.to_repeat
        broken = Counter({code: self.counts[code] for code in self.counts.keys() & FINAL_CODES})
        lines = [
            ("Scored", self.counts[None], f" of {done:,} pictures in {self.seconds:.1f} s"),
            ("Broken", broken.total(), _by_code(broken)),
            ("To repeat", to_repeat.total(), _by_code(to_repeat)),
            ("Skipped", self.skipped, " that had a row"),
            ("Removed", self.removed, " that are gone"),
            ("Speed", round(done / (self.seconds or 1)), f" pictures/s, after {self.start_seconds:.1f} s"),
        ]
        return "".join(f"{name:<10} {count:,}{text}\n" for name, count, text in lines if count)


@dataclass(frozen=True, slots=True)
class Job:
    """Arguments of the command. None stands for what the earlier results have, or else for the default."""

    source: str
    output: str
    model: str | None
    version: int | None
    label: str | None
    read: bool | None
    root: Path
    target: str | None
    ray: str | None
    workers: int | None
    batch_size: int
    timeout: float

    def run(self, summary: Summary, bar: Callable[[int], AbstractContextManager[Any]]) -> None:
        """Score the pictures without a row. `summary` is kept up to date, and `bar` opens a bar of a length.

        Raise SettingError if the earlier results are of another kind; DigitServingError, ArtifactError,
        DigitError or OSError if the run can't start or go on.
        """
        started = time.monotonic()
        results = ResultsFolder(files.absolute(self.output))
        run, version = self._pin(results.read_run())
        summary.run = run
        listing = files.list_images(self.source)
        if not len(listing):
            raise DigitServingError(f"no image in {self.source}")
        results.remove_leftovers()
        kept = results.remove_stale_rows(listing, with_failures=True)
        pending = files.without(listing, kept.keys)
        summary.removed, summary.skipped = kept.removed, len(listing) - len(pending)
        if not len(pending):
            return
        with (
            ProcessGroup(interrupt=True) as group,
            serving(version, self.root, group) if version else nullcontext(self.target or "") as target,
            ray_tasks(self.ray, self.workers) if self.ray else processes(self.workers) as pool,
            bar(len(pending)) as progress,
        ):
            self._check_server(run, target, group)
            results.write_run(run)
            scorer = Scorer(run.source, target, run.model, run.version, run.read, self.timeout)
            expected = set(kept.files)
            for batch in pool.score(pending, self.batch_size, scorer, results):
                group.check()
                if batch:
                    expected.add(batch.file)
                    summary.add(batch, time.monotonic() - started)
                    progress.update(batch.counts.total())
                    _check_answered(batch)
        if results.names() != expected:
            # Workers of a killed run wrote other files in the meantime.
            results.remove_stale_rows(listing, with_failures=False)

    def _pin(self, earlier: Run | None) -> tuple[Run, Version | None]:
        """Return what the rows of this run have in common, and the version to serve unless there is a server.

        Raise SettingError if the earlier rows have something else in common.
        """
        source, model, number = files.absolute(self.source), self.model, self.version
        if earlier:
            self._check_same(earlier, source=source, model=model, version=number, read=self.read)
            model, number = earlier.model, None if self.label else earlier.version
        local = None
        if self.target:
            model = model or DIGITS.name
            label = self.label or (STABLE if number is None else None)
            try:
                number = self._resolve(ModelRef(model, number, label))
            except ModelNotFoundError as error:
                if not earlier or self.label:
                    raise
                raise DigitServingError(
                    f"{self.output} has results of version {number}, which is no longer served: {error}"
                ) from error
        else:
            local = find_version(self.root, model, number, self.label)
            model, number = local.model, local.number
        if earlier:
            self._check_same(earlier, version=number)
        return earlier or Run(source, model, number, self.read or False), local

    def _check_same(self, earlier: Run, **wanted: str | int | None) -> None:
        """Raise SettingError if the command wants something else than the earlier rows have."""
        for name, value in wanted.items():
            if value not in (None, getattr(earlier, name)):
                raise SettingError(
                    f"{self.output} has results with {name} {getattr(earlier, name)}, not {value}; "
                    "use another folder"
                )

    def _resolve(self, model: ModelRef) -> int:
        with closing(Connection(self.target or "")) as server:
            return server.resolve(model, timeout=self.timeout)

    def _check_server(self, run: Run, target: str, group: ProcessGroup) -> None:
        """Wait until the version is served. Raise SettingError if it reads no numbers but should."""
        model = ModelRef(run.model, run.version)
        with closing(Connection(target)) as server:
            if not self.target:
                group.wait(lambda: _is_served(server, model))
            if run.read and not server.task(model, timeout=self.timeout).reads_numbers:
                raise SettingError(f"{run.model} reads no numbers; leave out --read")


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
def serving(version: Version, root: Path, group: ProcessGroup) -> Iterator[str]:
    """Start a model server of this version and the folder's stable reader, if any; yield its address.

    A release can't unload them: the server does not read the models' own configuration. Raise
    ProcessDiedError with the log's last line.
    """
    reader = ModelsFolder(root).labelled(READER_NAME)
    config = ModelsConfig.empty()
    for served in [version, reader] if reader else [version]:
        config = config.with_versions(served.model, [served.number], served.path.parent.resolve())
        config = config.with_label(served.model, STABLE, served.number)
    with sockets.listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder:
        file, log = Path(folder) / "models.config", Path(folder) / "log"
        file.write_text(str(config))
        with log.open("wb") as output:
            start_model_server(group, f"--port={port}", f"--model_config_file={file}", log=output)
        try:
            yield f"127.0.0.1:{port}"
        except ProcessDiedError as error:
            lines = log.read_text(errors="replace").splitlines() or ["it wrote no log"]
            raise ProcessDiedError(f"{error}: {lines[-1]}") from error


def _is_served(server: Connection, model: ModelRef) -> bool:
    try:
        server.resolve(model, timeout=_PROBE_SECONDS)
    except DigitError:
        return False
    return True


def _check_answered(batch: Batch) -> None:
    """Raise DigitServingError if most calls for the batch failed."""
    failed = batch.counts.keys() - {None, *FINAL_CODES, *READ_CODES}
    if 2 * sum(batch.counts[code] for code in failed) > batch.counts.total():
        raise DigitServingError(f"{batch.error}; run the command again to go on")


def _by_code(counts: Counter[str | None]) -> str:
    return ": " + ", ".join(f"{count:,} {code}" for code, count in counts.most_common())
