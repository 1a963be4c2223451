"""A run of `digits score`: pin the version, compare images with results, and score those without a row."""

import sys
import time
from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import click

from digit_client import DIGITS, DigitError, ModelNotFoundError
from digit_client.artifact.models_config import STABLE
from digit_client.artifact.versions import Version
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.connection import Connection
from digit_serving.processes import ProcessGroup
from digit_serving.scoring import files, local_model
from digit_serving.scoring.pools import ScoringError, processes, ray_tasks
from digit_serving.scoring.results import FINAL_CODES, READ_CODES, ResultsFolder, Run
from digit_serving.scoring.worker import Batch, Scorer

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
    models: Path
    target: str | None
    ray: str | None
    workers: int | None
    batch_size: int
    timeout: float

    def run(self, summary: Summary) -> None:
        """Score the pictures without a row, behind a bar on a terminal. `summary` is kept up to date.

        Raise click.UsageError if the earlier results are of another kind; ScoringError, InvalidResultsError,
        ArtifactError, ProcessDiedError, DigitError or OSError if the run can't start or go on.
        """
        started = time.monotonic()
        results = ResultsFolder(files.absolute(self.output))
        run, version = self._pin(results.read_run())
        summary.run = run
        listing = files.list_images(self.source)
        if not len(listing):
            raise ScoringError(f"no image in {self.source}")
        results.remove_leftovers()
        kept = results.remove_stale_rows(listing, with_failures=True)
        pending = files.without(listing, kept.keys)
        summary.removed, summary.skipped = kept.removed, len(listing) - len(pending)
        if not len(pending):
            return
        with (
            ProcessGroup(interrupt=True) as group,
            local_model.serving(version, group) if version else nullcontext(self.target or "") as target,
            ray_tasks(self.ray, self.workers) if self.ray else processes(self.workers) as pool,
            click.progressbar(
                length=len(pending),
                label="Scoring",
                file=sys.stderr,
                show_pos=True,
                hidden=not sys.stderr.isatty(),
            ) as bar,
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
                    bar.update(batch.counts.total())
                    _check_answered(batch)
        if results.names() != expected:
            # Workers of a killed run wrote other files in the meantime.
            results.remove_stale_rows(listing, with_failures=False)

    def _pin(self, earlier: Run | None) -> tuple[Run, Version | None]:
        """Return what the rows of this run have in common, and the version to serve unless there is a server.

        Raise click.UsageError if the earlier rows have something else in common.
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
                raise ScoringError(
                    f"{self.output} has results of version {number}, which is no longer served: {error}"
                ) from error
        else:
            local = local_model.find_version(self.models, model, number, self.label)
            model, number = local.model, local.number
        if earlier:
            self._check_same(earlier, version=number)
        return earlier or Run(source, model, number, self.read or False), local

    def _check_same(self, earlier: Run, **wanted: str | int | None) -> None:
        """Raise click.UsageError if the command wants something else than the earlier rows have."""
        for name, value in wanted.items():
            if value not in (None, getattr(earlier, name)):
                raise click.UsageError(
                    f"{self.output} has results with {name} {getattr(earlier, name)}, not {value}; "
                    "use another folder"
                )

    def _resolve(self, model: ModelRef) -> int:
        with closing(Connection(self.target or "")) as server:
            return server.resolve(model, timeout=self.timeout)

    def _check_server(self, run: Run, target: str, group: ProcessGroup) -> None:
        """Wait until the version is served. Raise click.UsageError if it reads no numbers but should."""
        model = ModelRef(run.model, run.version)
        with closing(Connection(target)) as server:
            if not self.target:
                group.wait(lambda: _is_served(server, model))
            if run.read and not server.task(model, timeout=self.timeout).reads_numbers:
                raise click.UsageError(f"{run.model} reads no numbers; leave out --read")


def _is_served(server: Connection, model: ModelRef) -> bool:
    try:
        server.resolve(model, timeout=_PROBE_SECONDS)
    except DigitError:
        return False
    return True


def _check_answered(batch: Batch) -> None:
    """Raise ScoringError if most calls for the batch failed."""
    failed = batch.counts.keys() - {None, *FINAL_CODES, *READ_CODES}
    if 2 * sum(batch.counts[code] for code in failed) > batch.counts.total():
        raise ScoringError(f"{batch.error}; run the command again to go on")


def _by_code(counts: Counter[str | None]) -> str:
    return ": " + ", ".join(f"{count:,} {code}" for code, count in counts.most_common())
