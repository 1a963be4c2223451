"""A run of `digits score`: pin the version, compare images with results, and score those without a row."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

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
from digit_serving.scoring.pools import Batch, processes, ray_tasks
from digit_serving.scoring.results import FINAL_CODES, ResultsFolder, Run
from digit_serving.scoring.scorer import Scorer
from digit_serving.stack import start_model_server

_PROBE_SECONDS = 2.0


@dataclass(slots=True)
class Summary:
    """Counts of a run, as far as it has come.

    `counts` has the number of new rows by error code, None for answers; `others` that of skipped files by
    suffix. `scored` is the number of pictures that had a row, `removed` of rows whose picture is gone.
    `start_seconds` end when the first batch starts.
    """

    run: Run | None = None
    others: Counter[str] = field(default_factory=Counter)
    scored: int = 0
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
            ("Broken", broken.total(), f": {_by_name(broken)}"),
            ("To repeat", to_repeat.total(), f": {_by_name(to_repeat)}"),
            ("Skipped", self.scored, " that had a row"),
            ("Left out", self.others.total(), f" files without an image's suffix: {_by_name(self.others)}"),
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

    def run(self, summary: Summary) -> None:
        """Score the pictures without a row, say before each step that takes long, and keep the summary.

        Raise SettingError if the earlier results are of another kind; DigitServingError, ArtifactError,
        DigitError or OSError if the run can't start or go on.
        """
        started = time.monotonic()
        report = partial(click.echo, err=True)
        results = ResultsFolder(files.absolute(self.output))
        summary.run, version = run, _ = self._pin(results.read_run())
        report(f"Listing {run.source} ...")
        listing = files.list_images(self.source)
        summary.others = listing.others
        if not len(listing.images):
            others = f", but other files: {_by_name(listing.others)}" if listing.others else ""
            raise DigitServingError(f"no image in {self.source}{others}")
        pending, summary.removed = results.tidy(listing.images)
        summary.scored = len(listing.images) - len(pending)
        if not len(pending):
            return
        if version:
            report(f"Starting a model server, which loads {run.model}, version {run.version} ...")
        with (
            ProcessGroup(interrupt=True) as group,
            serving(version, self.root, group) if version else nullcontext(self.target or "") as target,
            ray_tasks(self.ray, self.workers) if self.ray else processes(self.workers) as pool,
        ):
            self._check_task(run, target)
            results.write_run(run)
            scorer = Scorer(run.source, target, run.model, run.version, run.read, self.timeout)
            report(f"Starting {pool.workers} workers for {len(pending):,} pictures ...")
            with click.progressbar(
                length=len(pending),
                label="Scoring",
                file=sys.stderr,
                show_pos=True,
                hidden=not sys.stderr.isatty(),
            ) as bar:
                for batch in pool.score(pending, self.batch_size, scorer, results):
                    group.check()
                    summary.add(batch, time.monotonic() - started)
                    bar.update(batch.counts.total())
                    batch.check()

    def _pin(self, earlier: Run | None) -> tuple[Run, Version | None]:
        """Return what the rows of this run have in common, and the version to serve unless there is a server.

        Raise SettingError if the earlier rows have something else in common.
        """
        model, number, read, local = self.model, self.version, self.read, None
        if earlier:
            model, read = model or earlier.model, earlier.read if read is None else read
            number = earlier.version if number is None and not self.label else number
        label = self.label or STABLE
        if not self.target:
            folder = ModelsFolder(self.root)
            model = folder.choose(model)
            local = folder.labelled(model, label) if number is None else folder.version(model, number)
            if local is None:
                raise ArtifactError(f"no version of {model} is {label}; see `digits models ls`")
            number = local.number
        elif number is None:
            with closing(Connection(self.target)) as server:
                number = server.resolve(
                    ModelRef(model or DIGITS.name, version_label=label), timeout=self.timeout
                )
        run = Run(files.absolute(self.source), model or DIGITS.name, number, read or False)
        for name, value in asdict(run).items():
            if earlier and value != getattr(earlier, name):
                raise SettingError(
                    f"{self.output} has results with {name} {getattr(earlier, name)}, not {value}; "
                    "use another folder"
                )
        return run, local

    def _check_task(self, run: Run, target: str) -> None:
        """Raise DigitServingError if the version is not served, SettingError if it can't read but should."""
        try:
            with closing(Connection(target)) as server:
                task = server.task(ModelRef(run.model, run.version), timeout=self.timeout)
        except ModelNotFoundError as error:
            raise DigitServingError(
                f"version {run.version} of {run.model}, whose results are in {self.output}, "
                f"is not served: {error}"
            ) from error
        if run.read and not task.reads_numbers:
            raise SettingError(f"{run.model} reads no numbers; leave out --read")


@contextmanager
def serving(version: Version, root: Path, group: ProcessGroup) -> Iterator[str]:
    """Start a model server of this version and the folder's stable reader, if any.

    Yield its address when it serves the version. A release can't unload them: the server does not read the
    models' own configuration. Raise ProcessDiedError with the log's last line.
    """
    reader = ModelsFolder(root).labelled(READER_NAME)
    config = ModelsConfig.empty()
    for served in [version, reader] if reader else [version]:
        config = config.with_versions(served.model, [served.number], served.path.parent.resolve())
        config = config.with_label(served.model, STABLE, served.number)
    with sockets.listen("127.0.0.1", 0) as free:
        target = f"127.0.0.1:{free.getsockname()[1]}"
    with TemporaryDirectory() as folder, closing(Connection(target)) as server:
        file, log = Path(folder) / "models.config", Path(folder) / "log"
        file.write_text(str(config))
        port = target.rpartition(":")[2]
        with log.open("wb") as output:
            start_model_server(group, f"--port={port}", f"--model_config_file={file}", log=output)
        try:
            group.wait(lambda: _is_served(server, ModelRef(version.model, version.number)))
            yield target
        except ProcessDiedError as error:
            lines = log.read_text(errors="replace").splitlines() or ["it wrote no log"]
            raise ProcessDiedError(f"{error}: {lines[-1]}", error.process) from error


def _by_name(counts: Counter[Any]) -> str:
    """Return names and counts for a terminal, the largest count first."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())


def _is_served(server: Connection, model: ModelRef) -> bool:
    try:
        server.resolve(model, timeout=_PROBE_SECONDS)
    except DigitError:
        return False
    return True
