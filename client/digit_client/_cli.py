"""Command line `digits`: a group of commands from entry points, and the commands `predict` and `read`."""

import csv
import glob
import io
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TextIO, TypeAlias, TypeVar

import click
from click.core import ParameterSource

from digit_client._options import DEFAULT_URL, CallKeywords
from digit_core.artifact import addresses
from digit_core.artifact.addresses import Address
from digit_core.errors import (
    AuthenticationError,
    ConnectionFailedError,
    DigitError,
    ModelNotFoundError,
    ReadingNotSupportedError,
    UnavailableError,
    how_to_install,
)
from digit_core.results import Prediction, Reading

if TYPE_CHECKING:
    from digit_client import Client

REQUIRED_EXTRAS = {
    "export": "training",
    "feedback": "feedback",
    "gateway": "gateway",
    "keys": "gateway",
    "model-server": "model-server",
    "models": "grpc",
    "read": "images",
    "score": "score",
    "train": "training",
    "up": "gateway,model-server",
}
"""Optional dependencies (extras) that each command needs; `read` needs them for `--show`."""
_EXTRA_MODULES = {
    "feedback": "sqlalchemy",
    "gateway": "flask",
    "grpc": "grpc",
    "model-server": "waitress",
    "score": "pyarrow",
    "training": "matplotlib",
}
"""Module that each extra brings, and no other extra that a command needs."""

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Suffixes of image files; other files in a folder are skipped."""

PREDICTION_COLUMNS = "image", "label", "refusal", "best", "confidence", "is_digit", "model_version", "error"
"""Columns of `predict --format csv`: a row for each image. `best` is the most probable class, of a refused
image too."""
_BOX_COLUMNS = "left", "top", "width", "height"
READING_COLUMNS = "image", "line", "text", *_BOX_COLUMNS, "confidence", "refusal", "model_version", "error"
"""Columns of `read --format csv`: a row for each line of an image, or for the image if it has none.

`line` counts from 1; `confidence` is the lowest of the line's digits.
"""

_Image: TypeAlias = tuple[str, Path | bytes]
"""Name of an image, and its path or content."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result", Prediction, Reading)

# Errors that every other image would meet too.
_SERVICE_FAILURES = (
    AuthenticationError,
    ConnectionFailedError,
    ModelNotFoundError,
    ReadingNotSupportedError,
    UnavailableError,
)

# Labels of a chart, the most probable ones; the ten digits are shown in order.
_CHART_LABELS = 5
# Largest number of classes that a line shows as bars.
_MAX_LINE_BARS = 10
# Characters that a probability of 1 fills.
_BAR_WIDTH = 24
# Block characters of zero to eight eighths of a character's width, and of one to eight eighths of its height.
_WIDTH_BLOCKS = " ▏▎▍▌▋▊▉█"
_HEIGHT_BLOCKS = "▁▂▃▄▅▆▇█"


class RegisteredCommands(click.Group):
    """Group of the commands registered as entry points `digits.commands`, each imported on first use.

    The help lists the commands whose extras are installed, and names the others.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self._names() if _can_run(name)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        others = [f"{name} ({REQUIRED_EXTRAS[name]})" for name in self._names() if not _can_run(name)]
        if others:
            formatter.write_paragraph()
            formatter.write_text(f"Commands that need an extra: {', '.join(others)}.")

    def _names(self) -> list[str]:
        return sorted(entry.name for entry in entry_points(group="digits.commands"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group="digits.commands", name=cmd_name):
            command = entry.load()
            assert isinstance(command, click.Command)
            return command
        return None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            extras = REQUIRED_EXTRAS.get(ctx.invoked_subcommand or "")
            if extras is None:
                raise
            raise click.ClickException(
                f"`digits {ctx.invoked_subcommand}` needs the module {error.name}; {how_to_install(extras)}"
            ) from error


def _can_run(command: str) -> bool:
    """True if the extras are installed without which the command does nothing."""
    extras = REQUIRED_EXTRAS.get(command, "").split(",") if command != "read" else []
    return all(find_spec(_EXTRA_MODULES[extra]) for extra in extras if extra)


@click.command(cls=RegisteredCommands)
@click.version_option(package_name="digits", prog_name="digits")
def main() -> None:
    """Train, serve and ask image classifiers: of handwritten digits, or your own."""


def _asks_gateway(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options that `predict` and `read` share.

    The command gets a client, the images, the options of the call, the gateway's address, and its options.
    """

    @click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
    @click.option("-r", "--recursive", is_flag=True, help="Include the images in subfolders.")
    @click.option(
        "--url",
        envvar="DIGITS_URL",
        show_envvar=True,
        help=f"URL of the gateway.  [default: that of `digits up` with ./models, else {DEFAULT_URL}]",
    )
    @click.option(
        "--api-key",
        metavar="KEY",
        envvar="DIGITS_API_KEY",
        show_envvar=True,
        help="API key of the gateway. Other users see it in `ps`, unlike the environment variable.",
    )
    @click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), help="Timeout per request, in seconds."
    )
    @click.option("--model", metavar="NAME", help="Name of the model.  [default: the gateway's]")
    @click.option("--version", type=click.IntRange(min=0), help="Version of the model.")
    @click.option("--version-label", help="Label of the model's version.")
    @click.option(
        "--min-is-digit",
        type=click.FloatRange(0, 1),
        help="Least probability that an image shows a digit at all.  [default: the gateway's]",
    )
    # Above --format: in click 8.2 the default of the option that comes last counts.
    @click.option("--json", "output_format", flag_value="jsonl", help="Short for --format jsonl.")
    @click.option(
        "--format",
        "output_format",
        type=click.Choice(["table", "csv", "jsonl"]),
        default="table",
        show_default=True,
        help="Output for people, for spreadsheets, or as one JSON object for each image.",
    )
    @wraps(command)
    def decorated(
        images: Sequence[str],
        recursive: bool,
        url: str | None,
        api_key: str | None,
        timeout: float | None,
        model: str | None,
        version: int | None,
        version_label: str | None,
        min_is_digit: float | None,
        **options: Any,
    ) -> None:
        # Lazy import: httpx takes longer to import than the rest of the command line.
        from digit_client import Client

        if version is not None and version_label is not None:
            raise click.UsageError("--version and --version-label are mutually exclusive")
        found = [image for argument in images for image in _expand_argument(argument, recursive)]
        gateway = _find_gateway(url)
        try:
            client = Client(gateway.value, model=model, api_key=api_key, timeout=timeout)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with client:
            keywords = CallKeywords(version=version, label=version_label, min_is_digit=min_is_digit)
            command(client, found, keywords, gateway, **options)

    return decorated


def _find_gateway(url: str | None) -> Address:
    """Return the gateway of --url or DIGITS_URL, else of `digits up` with the models folder, or the default.

    The folder is that of DIGITS_MODELS, or ./models.
    """
    if url:
        source = click.get_current_context().get_parameter_source("url")
        return Address(url, "DIGITS_URL" if source is ParameterSource.ENVIRONMENT else "--url")
    return addresses.find(Path(os.environ.get("DIGITS_MODELS") or "models"), "gateway", DEFAULT_URL)


@click.command()
@_asks_gateway
def predict(
    client: "Client", images: list[_Image], options: CallKeywords, gateway: Address, output_format: str
) -> None:
    """Classify each IMAGE: a file, a folder of images, a glob pattern, or - for standard input.

    An image that shows no digit, or several, gets a line with what the model made of it.
    """
    answers = _in_order(client.iter_predict([source for _, source in images], **options))
    table = format_chart if len(images) == 1 else format_line
    formats = {"csv": format_prediction_row, "jsonl": format_json, "table": table}
    output = _Output(output_format, formats[output_format], PREDICTION_COLUMNS)
    _print_answers(images, answers, output, gateway)


@click.command()
@_asks_gateway
@click.option(
    "--show",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.png",
    help="Write the image with the boxes of its digits; for one IMAGE.",
)
def read(
    client: "Client",
    images: list[_Image],
    options: CallKeywords,
    gateway: Address,
    output_format: str,
    show: Path | None,
) -> None:
    """Read all digits on each IMAGE, in lines.

    An IMAGE is a file, a folder of images, a glob pattern, or - for standard input.
    """
    if show and len(images) > 1:
        raise click.UsageError("--show takes one image")
    answers = _in_order(client.iter_read([source for _, source in images], **options))
    if show:
        answers = _save_boxes(answers, images[0][1], show)
    table = format_text if len(images) == 1 else format_lines
    formats = {"csv": format_reading_rows, "jsonl": format_json, "table": table}
    output = _Output(output_format, formats[output_format], READING_COLUMNS)
    _print_answers(images, answers, output, gateway)


def _expand_argument(argument: str, recursive: bool) -> Iterator[_Image]:
    path = Path(argument)
    if argument.startswith(("http://", "https://")):
        raise click.UsageError(
            f"{argument} is a URL: download it first, or pipe it in: curl URL | digits … -"
        )
    if argument == "-":
        yield argument, sys.stdin.buffer.read()
        return
    if path.is_dir():
        found = sorted(_list_folder(path, recursive))
    elif path.exists():
        found = [path]
    else:
        # Path.glob rejects absolute patterns.
        found = sorted(map(Path, glob.glob(argument, recursive=True)))  # noqa: PTH207
    if not found:
        raise click.UsageError(f"no image at {argument!r}")
    yield from ((click.format_filename(path), path) for path in found)


def _list_folder(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yield the image files of the folder, and of its subfolders if `recursive`."""

    def fail(error: OSError) -> NoReturn:
        raise click.FileError(str(error.filename), error.strerror)

    # Unlike Path.rglob, os.walk reports a folder that can't be listed.
    for directory, subfolders, names in os.walk(folder, onerror=fail):
        if not recursive:
            subfolders.clear()
        yield from (Path(directory, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def _save_boxes(
    answers: Iterable[Reading | DigitError | OSError], source: Path | bytes, target: Path
) -> Generator[Reading | DigitError | OSError, None, None]:
    """Write the image with the boxes of its reading to `target`; a failure takes the reading's place."""
    # Lazy import: Pillow and OpenCV are optional.
    from digit_client import _drawing

    for answer in answers:
        if isinstance(answer, Reading):
            try:
                _drawing.save_boxes(source, answer, target)
            except (DigitError, OSError) as error:
                answer = error
        yield answer


@dataclass(frozen=True, slots=True)
class _Output(Generic[_Result]):
    """Output format, its formatter of answers, and the columns of CSV: the image first, the error last."""

    name: str
    format_answer: Callable[[str, _Result], str]
    columns: Sequence[str]

    def format_error(self, name: str, error: DigitError | OSError) -> str:
        """Return the line or row of an image without an answer."""
        match self.name:
            case "csv":
                return format_csv([name, *[None] * (len(self.columns) - 2), error])
            case "jsonl":
                code = error.code if isinstance(error, DigitError) else "unreadable"
                return json.dumps({"image": name, "error": {"code": code, "message": str(error)}})
            case _:
                return f"{name}: {error}"


def _print_answers(
    images: Sequence[_Image],
    answers: Generator[_Result | DigitError | OSError, None, None],
    output: _Output[_Result],
    gateway: Address,
) -> NoReturn:
    """Print the answer or the error of each image, in their order; exit with status 1 after an error."""
    failures = 0
    if output.name == "csv":
        click.echo(format_csv(output.columns))
    with (
        closing(answers),
        click.progressbar(
            length=len(images),
            label="Reading",
            file=sys.stderr,
            show_pos=True,
            hidden=len(images) == 1 or not sys.stderr.isatty(),
        ) as bar,
    ):
        for (name, _), answer in zip(images, answers, strict=True):
            if isinstance(answer, _SERVICE_FAILURES):
                raise click.ClickException(_describe_failure(answer, gateway))
            if isinstance(answer, (DigitError, OSError)):
                failures += 1
                text = output.format_error(name, answer)
            else:
                text = output.format_answer(name, answer)
            # The text of the only image is for a program or a file: an error is none.
            is_lone_error = failures == len(images) == 1 and output.name == "table"
            click.echo(_over_progress_bar(text, sys.stdout), err=is_lone_error)
            bar.update(1)
    if failures and len(images) > 1:
        click.echo(f"{failures} of {len(images)} images failed", err=True)
    sys.exit(1 if failures else 0)


def _describe_failure(error: DigitError, gateway: Address) -> str:
    """Return the message, with the address that was asked, and where that came from."""
    if isinstance(error, ConnectionFailedError) and gateway.value == DEFAULT_URL:
        return f"{error}; `digits up` starts a service there"
    return gateway.explain(error)


def _in_order(answers: Iterable[tuple[int, _Item]]) -> Generator[_Item, None, None]:
    """Yield the answers by their positions, each as soon as those before it have come."""
    waiting = {}
    position = 0
    for index, answer in answers:
        waiting[index] = answer
        while position in waiting:
            yield waiting.pop(position)
            position += 1


def _over_progress_bar(text: str, stream: TextIO) -> str:
    # Overwrite the progress bar's line; click redraws the bar below the text.
    return f"\r\x1b[K{text}" if stream.isatty() and sys.stderr.isatty() else text


def format_json(name: str, result: Prediction | Reading) -> str:
    """Return one JSON object: the image's name and the fields of the result."""
    return json.dumps({"image": name, **result.to_dict()})


def format_csv(*rows: Sequence[object]) -> str:
    """Return lines of CSV; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n")


def format_prediction_row(name: str, prediction: Prediction) -> str:
    """Return the CSV row of an image, with the cells of PREDICTION_COLUMNS."""
    said = _best(prediction), prediction.confidence, prediction.is_digit
    return format_csv([name, _named(prediction), prediction.refusal, *said, prediction.model_version, None])


def format_reading_rows(name: str, reading: Reading) -> str:
    """Return the CSV rows of an image, with the cells of READING_COLUMNS."""
    last = reading.refusal, reading.model_version, None
    if reading.refusal:
        return format_csv([name, *[None] * 7, *last])
    rows = []
    for number, line in enumerate(reading.lines, 1):
        confidence = min(digit.confidence for digit in line.digits)
        rows.append([name, number, line.text, *line.box, confidence, *last])
    return format_csv(*rows)


def format_text(name: str, reading: Reading) -> str:
    """Return the lines of the reading."""
    return f"{name}: no digit" if reading.refusal else reading.text


def format_lines(name: str, reading: Reading) -> str:
    """Return the lines of the reading, each after the image's name."""
    if reading.refusal:
        return f"{name}: no digit"
    return "\n".join(f"{name}: {line.text}" for line in reading.lines)


def format_chart(name: str, prediction: Prediction) -> str:
    """Return a headline, and a bar for each of the ten digits in order, or of the most probable labels."""
    if prediction.has_digit_labels:
        shown = list(zip(prediction.labels, prediction.probabilities, strict=True))
    else:
        shown = prediction.top(_CHART_LABELS)
    width = max(len(label) for label, _ in shown)
    rows = [f"  {label:<{width}} {_bar(value)} {_percent(value):>6}" for label, value in shown]
    answer = _describe_refusal(prediction) or _named(prediction) or "none"
    return "\n".join([f"{name}: {answer} ({_percent(prediction.confidence)})", *rows])


def format_line(name: str, prediction: Prediction) -> str:
    """Return one line: label, probability, a small bar for each class unless they are many, and name.

    A refused image has no label; the refusal follows its name.
    """
    width = max(map(len, prediction.labels))
    columns = [f"{_named(prediction) or '-':<{width}}", f"{_percent(prediction.confidence):>6}"]
    if len(prediction.labels) <= _MAX_LINE_BARS:
        columns.append("".join(_HEIGHT_BLOCKS[min(int(value * 8), 7)] for value in prediction.probabilities))
    refusal = _describe_refusal(prediction)
    return "  ".join([*columns, f"{name}: {refusal}" if refusal else name])


def _named(prediction: Prediction) -> str | None:
    """Return the label, or those of a multi-label model; None if there is none."""
    return prediction.label or ", ".join(prediction.predicted_labels or ()) or None


def _best(prediction: Prediction) -> str:
    return prediction.labels[prediction.index]


def _describe_refusal(prediction: Prediction) -> str | None:
    match prediction.refusal:
        case None:
            return None
        case "several_digits":
            reason = f"{prediction.count} digits, which `digits read` reads"
        case "unsure":
            reason = "unsure"
        case _:
            reason = "no digit"
    return f"{reason}; most like {_best(prediction)}"


def _percent(share: float) -> str:
    """Format a share as a percentage. Only 1 is 100%."""
    return f"{share if share >= 1 else min(share, 0.999):.1%}"


def _bar(value: float) -> str:
    full, eighths = divmod(round(value * _BAR_WIDTH * 8), 8)
    return ("█" * full + _WIDTH_BLOCKS[eighths]).ljust(_BAR_WIDTH + 1)[: _BAR_WIDTH + 1]
