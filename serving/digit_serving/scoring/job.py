"""A run of `digits score`: pin the version, compare images with results, and score those without a row."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import click

from digit_client import DIGITS, DigitError, ModelNotFoundError
from digit_client.artifact.models_config import STABLE
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.connection import Connection
from digit_serving.processes import ProcessGroup
from digit_serving.scoring import files, run
from digit_serving.scoring.local_model import LocalModel
from digit_serving.scoring.results import FINAL_CODES, Format, ResultsFolder, Run
from digit_serving.scoring.run import ScoringError
from digit_serving.scoring.worker import Scorer

_PROBE_SECONDS = 2.0


@dataclass(slots=True)
class Summary:
    """Counts of a run, as far as it has come.

    `counts` has the number of new rows by error code, None for answers; `skipped` is the number of pictures
    that had a row, `removed` of rows whose picture is gone. The rate is that of `scoring_seconds`, after the
    start.
    """

    run: Run | None = None
    pending: int = 0
    skipped: int = 0
    removed: int = 0
    counts: Counter[str | None] = field(default_factory=Counter)
    start_seconds: float = 0.0
    scoring_seconds: float = 0.0

    @property
    def done(self) -> int:
        """Number of new rows."""
        return self.counts.total()

    @property
    def rate(self) -> float:
        """New rows a second."""
        return self.done / self.scoring_seconds if self.scoring_seconds else 0.0

    @property
    def broken(self) -> Counter[str]:
        """Number of pictures that can't be taken, by error code."""
        return Counter({code: count for code, count in self.counts.items() if code in FINAL_CODES and code})

    @property
    def to_repeat(self) -> Counter[str]:
        """Number of pictures that the next run scores again, by error code."""
        return Counter(
            {code: count for code, count in self.counts.items() if code and code not in FINAL_CODES}
        )


@dataclass(frozen=True, slots=True)
class Job:
    """Arguments of the command. None stands for what the earlier results have, or else for the default."""

    source: str
    output: str
    model: str | None
    version: int | None
    label: str | None
    read: bool | None
    format: Format | None
    models: Path
    target: str | None
    cluster: str | None
    workers: int | None
    batch_size: int
    timeout: float

    def run(self, summary: Summary, on_progress: Callable[[], None]) -> None:
        """Score the pictures without a row. `summary` is kept up to date; `on_progress` is called after it.

        Raise click.UsageError if the earlier results are of another kind; ScoringError, InvalidResultsError,
        ArtifactError, ProcessDiedError, DigitError or OSError if the run can't start or go on.
        """
        started = time.monotonic()
        results = ResultsFolder(files.absolute(self.output))
        current, local = self._pin(results.read_run())
        summary.run = current
        listing = files.list_images(self.source)
        if not len(listing):
            raise ScoringError(f"no image in {self.source}")
        results.remove_leftovers()
        kept = results.remove_stale_rows(current, listing, with_failures=True)
        pending = files.without(listing, kept.keys)
        summary.removed, summary.skipped = kept.removed, len(listing) - len(pending)
        summary.pending = len(pending)
        if not summary.pending:
            return
        on_progress()
        with (
            ProcessGroup(interrupt=True) as group,
            # The model server loads while Ray starts.
            local.serving(group) if local else nullcontext(self.target or "") as target,
            run.cluster(self.cluster, self.workers),
        ):
            self._check_server(current, target, group)
            results.write_run(current)
            # Files that appear otherwise are those of a killed run's workers.
            expected = set(kept.files)
            batches = run.score(
                pending,
                Scorer(current.source, target, current.model, current.version, current.read, self.timeout),
                results,
                current.format,
                workers=self.workers,
                batch_size=self.batch_size,
                check=group.check,
            )
            for batch in batches:
                expected.add(batch.file)
                summary.counts += batch.counts
                elapsed = time.monotonic() - started
                summary.start_seconds = summary.start_seconds or elapsed - batch.seconds
                summary.scoring_seconds = elapsed - summary.start_seconds
                on_progress()
        if results.names(current.format) != expected:
            results.remove_stale_rows(current, listing, with_failures=False)

    def _pin(self, earlier: Run | None) -> tuple[Run, LocalModel | None]:
        """Return what the rows of this run have in common, and the model to serve unless there is a server.

        Raise click.UsageError if the earlier rows have something else in common.
        """
        source = files.absolute(self.source)
        if earlier:
            self._check_same(
                earlier,
                source=source,
                model=self.model,
                version=self.version,
                read=self.read,
                format=self.format,
            )
        model = earlier.model if earlier else self.model
        is_resumed = earlier and self.version is None and self.label is None
        asked = earlier.version if earlier and is_resumed else self.version
        local = None if self.target else LocalModel.find(self.models, model, asked, self.label)
        if local:
            model, version = local.version.model, local.version.number
        else:
            model = model or DIGITS.name
            try:
                version = self._resolve(
                    ModelRef(model, asked, self.label or (STABLE if asked is None else None))
                )
            except ModelNotFoundError as error:
                if not is_resumed:
                    raise
                raise ScoringError(
                    f"{self.output} has results of version {asked}, which is no longer served: {error}"
                ) from error
        if earlier:
            self._check_same(earlier, version=version)
            return earlier, local
        return Run(source, model, version, self.read or False, self.format or "parquet"), local

    def _check_same(self, earlier: Run, **wanted: str | int | None) -> None:
        """Raise click.UsageError if the command wants something else than the earlier rows have."""
        for name, value in wanted.items():
            if value not in (None, getattr(earlier, name)):
                raise click.UsageError(
                    f"{self.output} has results with {name} {getattr(earlier, name)}, not {value}; "
                    "use another folder"
                )

    def _resolve(self, model: ModelRef) -> int:
        with _connected(self.target or "") as server:
            return server.resolve(model, timeout=self.timeout)

    def _check_server(self, current: Run, target: str, group: ProcessGroup) -> None:
        """Wait until the version is served. Raise click.UsageError if it reads no numbers but should."""
        model = ModelRef(current.model, current.version)
        with _connected(target) as server:
            if not self.target:
                group.wait(lambda: _is_served(server, model))
            if current.read and not server.task(model, timeout=self.timeout).reads_numbers:
                raise click.UsageError(f"{current.model} reads no numbers; leave out --read")


@contextmanager
def _connected(target: str) -> Iterator[Connection]:
    server = Connection(target)
    try:
        yield server
    finally:
        server.close()


def _is_served(server: Connection, model: ModelRef) -> bool:
    try:
        server.resolve(model, timeout=_PROBE_SECONDS)
    except DigitError:
        return False
    return True
