"""A run of `digits score`: pin the version, compare images with results, and score those without a row."""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pyarrow as pa

from digit_core.artifact.models_config import STABLE, ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.artifact.versions import ArtifactError, Version
from digit_core.errors import DigitError
from digit_core.options import OptionError, PredictOptions, ReadOptions, described, parse
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import Connection
from digit_serving import sockets
from digit_serving.errors import DigitServingError, ProcessDiedError, SettingError
from digit_serving.processes import ProcessGroup
from digit_serving.scoring import files
from digit_serving.scoring.expectations import read_expectations, unmatched, with_expectations
from digit_serving.scoring.pools import processes, ray_tasks
from digit_serving.scoring.rows import FINAL_CODES, ResultsFolder, Run
from digit_serving.scoring.scorer import Scorer
from digit_serving.stack import start_model_server

_PROBE_SECONDS = 2.0


@dataclass(slots=True)
class Job:
    """Arguments of the command, and counts of its run as far as it has come.

    An argument that is None has the value of the earlier results, or the default.
    """

    source: str
    output: str
    model: str | None
    version: int | None
    label: str | None
    read: bool | None
    options: Mapping[str, Any]
    """Options of a call that are given, of PredictOptions or ReadOptions."""
    root: Path
    target: str | None
    ray: str | None
    workers: int | None
    batch_size: int
    timeout: float
    expectations: str | None = None
    """Path or URL of the table of what is expected on each picture."""
    doubtful: float | None = None
    """Percentage of the answers, the least sure ones, that are listed for a check by hand."""

    run: Run | None = None
    counts: Counter[str | None] = field(default_factory=Counter)
    """Number of new rows by error code, None for answers."""
    others: Counter[str] = field(default_factory=Counter)
    """Number of files without an image's suffix, by suffix."""
    scored: int = 0
    """Number of pictures that had a row."""
    removed: int = 0
    """Number of rows whose picture is gone."""
    unmatched: Sequence[str] = ()
    """Paths of the table of expectations that no picture has."""
    listed: tuple[str, int] | None = None
    """File of doubtful answers, and their number."""
    start_seconds: float = 0.0
    """Time until the first batch starts."""
    seconds: float = 0.0

    @property
    def to_repeat(self) -> Counter[str | None]:
        """Number of pictures that the next run scores again, by error code."""
        return Counter({code: self.counts[code] for code in self.counts.keys() - {None, *FINAL_CODES}})

    def __str__(self) -> str:
        """Return lines for a terminal, without those whose count is 0."""
        done, to_repeat = self.counts.total(), self.to_repeat
        broken = Counter({code: self.counts[code] for code in self.counts.keys() & FINAL_CODES})
        unit = "fields" if self.options.get("form") else "pictures"
        lines = [
            ("Scored", self.counts[None], f" of {done:,} {unit} in {self.seconds:.1f} s"),
            ("Broken", broken.total(), f": {_by_name(broken)}"),
            ("To repeat", to_repeat.total(), f": {_by_name(to_repeat)}"),
            ("Skipped", self.scored, " that had a row"),
            ("Left out", self.others.total(), f" files without an image's suffix: {_by_name(self.others)}"),
            ("Removed", self.removed, " that are gone"),
            ("Unmatched", len(self.unmatched), f" of {self.expectations}: {', '.join(self.unmatched[:3])}"),
            ("Speed", round(done / (self.seconds or 1)), f" {unit}/s, after {self.start_seconds:.1f} s"),
        ]
        text = "".join(f"{name:<10} {count:,}{text}\n" for name, count, text in lines if count)
        if self.listed:
            text += f"Doubtful   {self.listed[1]:,} answers, the least sure first, in {self.listed[0]}\n"
        if self.run:
            text += f"Results    {self.output}  ({self.run.model}, version {self.run.version})\n"
        return text

    def score(self) -> None:
        """Score the pictures without a row, and say before each step that takes long.

        Raise SettingError if the earlier results are of another kind; DigitServingError, ArtifactError,
        DigitError or OSError if the run can't start or go on.
        """
        results = ResultsFolder(files.absolute(self.output))
        results.check_writable()
        self.run, version = run, _ = self._pin(results.read_run())
        click.echo(f"Listing {run.source} ...", err=True)
        images, self.others = files.list_images(self.source)
        if not len(images):
            others = f", but other files: {_by_name(self.others)}" if self.others else ""
            raise DigitServingError(f"there is no image in {self.source}{others}")
        if self.expectations:
            expectations = read_expectations(self.expectations, run.source)
            self.unmatched = unmatched(images, expectations)
            if len(self.unmatched) == len(expectations):
                raise SettingError(f"no path of {self.expectations} names a picture in {self.source}")
            images = with_expectations(images, expectations)
        pending, self.removed = results.tidy(images, len(self.options.get("form") or (None,)))
        self.scored = len(images) - len(pending)
        if len(pending):
            self._score(pending, run, version, results)
        if self.doubtful:
            self.listed = results.write_doubtful(self.doubtful / 100, run.read, "form" in run.options)

    def _score(self, pending: pa.Table, run: Run, version: Version | None, results: ResultsFolder) -> None:
        report = partial(click.echo, err=True)
        started = time.monotonic()
        if version:
            report(f"Starting a model server, which loads {run.model}, version {run.version} ...")
        with (
            ProcessGroup(interrupt=True) as group,
            serving(version, self.root, group) if version else nullcontext(self.target or "") as target,
            ray_tasks(self.ray, self.workers) if self.ray else processes(self.workers) as pool,
        ):
            with closing(Connection(target)) as server:
                task = server.served(ModelRef(run.model, run.version), timeout=self.timeout).card
            if run.read and not task.reads_numbers:
                raise SettingError(f"{run.model} reads no numbers; leave out --read")
            results.write_run(run)
            options = {**run.options, **self.options}
            scorer = Scorer(run.source, target, run.model, run.version, run.read, self.timeout, options)
            report(f"Starting {pool.workers} workers for {len(pending):,} pictures ...")
            label, is_hidden = "Scoring", not sys.stderr.isatty()
            with click.progressbar(
                length=len(pending), label=label, hidden=is_hidden, show_pos=True, file=sys.stderr
            ) as bar:
                for batch in pool.score(pending, self.batch_size, scorer, results):
                    group.check()
                    elapsed = time.monotonic() - started
                    self.start_seconds = self.start_seconds or elapsed - batch.seconds
                    self.seconds = elapsed - self.start_seconds
                    self.counts += batch.counts
                    bar.update(batch.counts.total())
                    batch.check()

    def _pin(self, earlier: Run | None) -> tuple[Run, Version | None]:
        """Return what the rows of this run have in common, and the version to serve unless a server is given.

        Raise SettingError if the earlier rows have something else in common.
        """
        model, number, read = self.model, self.version, self.read or False
        if earlier:
            model, read = model or earlier.model, earlier.read if self.read is None else read
            number = earlier.version if number is None and not self.label else number
        model, number, local = self._resolve(model, number)
        options = self._options(earlier.options if earlier else {}, read)
        if self.expectations and not read:
            raise SettingError("--expectations needs --read, which reads numbers")
        if earlier and earlier.expectations and not self.expectations:
            raise SettingError(
                f"{self.output} has readings with a table of expectations; name --expectations"
            )
        table = bool(self.expectations)
        run = Run(files.absolute(self.source), model, number, read, options, expectations=table)
        now, then = ({**asdict(each), **each.options} for each in (run, earlier or run))
        for name in sorted((now.keys() | then.keys()) - {"options", "expectations"}):
            if now.get(name) != then.get(name):
                raise SettingError(
                    f"{self.output} has results with {name} {then.get(name)}, not {now.get(name)}; "
                    "use another folder"
                )
        return run, local

    def _resolve(self, model: str | None, number: int | None) -> tuple[str, int, Version | None]:
        """Return the model's name, the version's number, and the version itself unless a server is given."""
        label = self.label or STABLE
        if not self.target:
            folder = ModelsFolder(self.root)
            model = folder.choose(model)
            local = folder.labelled(model, label) if number is None else folder.version(model, number)
            if local is None:
                raise ArtifactError(f"no version of {model} has the label {label}; see `digits models ls`")
            return model, local.number, local
        model = model or DIGITS.name
        if number is None:
            with closing(Connection(self.target)) as server:
                number = server.resolve(ModelRef(model, version_label=label), timeout=self.timeout)
        return model, number, None

    def _options(self, earlier: Mapping[str, Any], read: bool) -> dict[str, Any]:
        """Return the options of all pictures as Run has them. Raise SettingError."""
        for name, kind in (("expect", "list"), ("form", "form")):
            if isinstance(earlier.get(name), dict) and name not in self.options:
                ((what, count), _) = earlier[name].items()
                raise SettingError(
                    f"{self.output} has readings of a {kind} of {count:,} {what}; name it with --{name}"
                )
        options = {**earlier, **self.options}
        if not read and (only := options.keys() - described(PredictOptions).keys()):
            raise SettingError(f"--{min(only).replace('_', '-')} needs --read, which reads numbers")
        if len(options.get("box", ())) > 1:
            raise SettingError("each picture has one row: name one --box")
        try:
            checked = parse(ReadOptions, options)
        except OptionError as error:
            raise SettingError(f"{error}" if "." in error.name else error.reason) from error
        if checked.fields:
            if self.expectations:
                raise SettingError("each field of --form has its own expectation; leave out --expectations")
            options["form"] = {"fields": checked.parts, "sha256": _digest(checked.form_to_json())}
        if "box" in options:
            options["box"] = [*map(list, checked["box"])]
        if checked.numbers:
            listed = sorted({*checked.numbers})
            options["expect"] = {"numbers": len(listed), "sha256": _digest("\n".join(listed))}
        return options


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder, closing(Connection(f"127.0.0.1:{port}")) as server:
        file, log = Path(folder) / "models.config", Path(folder) / "log"
        file.write_text(str(config))

        def is_served() -> bool:
            with suppress(DigitError):
                server.resolve(ModelRef(version.model, version.number), timeout=_PROBE_SECONDS)
                return True
            return False

        with log.open("wb") as output:
            start_model_server(group, f"--port={port}", f"--model_config_file={file}", log=output)
        try:
            group.wait(is_served)
            yield f"127.0.0.1:{port}"
        except ProcessDiedError as error:
            lines = log.read_text(errors="replace").splitlines() or ["it wrote no log"]
            raise ProcessDiedError(f"{error}: {lines[-1]}", error.process) from error


def _by_name(counts: Counter[Any]) -> str:
    """Return names and counts for a terminal, the largest count first."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
