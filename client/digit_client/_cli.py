"""Command line `digits`: a group of commands from entry points, and the commands `predict` and `read`."""

import glob
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import wraps
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from digit_client._exceptions import DigitError
from digit_client._types import Prediction, Reading

if TYPE_CHECKING:
    from digit_client._client import DigitClient

REQUIRED_EXTRAS = {
    "export": "training",
    "feedback": "feedback",
    "gateway": "gateway",
    "model-server": "model-server",
    "models": "grpc",
    "read": "images",
    "train": "training",
    "up": "gateway,model-server",
}
"""Optional dependencies (extras) that each command needs; `read` needs them for `--show`."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
"""Suffixes of image files; other files in a folder are skipped."""

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
    """Group of the commands registered as entry points `digits.commands`, each imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
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
                f"`digits {ctx.invoked_subcommand}` needs the module {error.name}; "
                f"install it in a clone of digit-serving: pip install '.[{extras}]'"
            ) from error


@click.command(cls=RegisteredCommands)
@click.version_option(package_name="digit-serving", prog_name="digits")
def main() -> None:
    """Train, serve and ask image classifiers: of handwritten digits, or your own."""


def _asks_gateway(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options that `predict` and `read` share.

    The command gets a client, the paths of the images, and the keyword arguments that select the version.
    """

    @click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
    @click.option("--url", help="URL of the gateway.  [default: $DIGITS_URL or http://127.0.0.1:8080]")
    @click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), help="Timeout per image, in seconds."
    )
    @click.option("--model", metavar="NAME", help="Name of the model.  [default: the gateway's]")
    @click.option("--version", type=click.IntRange(min=0), help="Version of the model.")
    @click.option("--label", help="Label of the model's version.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each image.")
    @wraps(command)
    def decorated(
        images: Sequence[str],
        url: str | None,
        timeout: float | None,
        model: str | None,
        version: int | None,
        label: str | None,
        **options: Any,
    ) -> None:
        # Lazy import: httpx takes longer to import than the rest of the command line.
        from digit_client._client import DigitClient

        if version is not None and label is not None:
            raise click.UsageError("--version and --label are mutually exclusive")
        paths = [path for image in images for path in _expand_argument(image)]
        with DigitClient(url, model=model, timeout=timeout) as client:
            command(client, paths, {"version": version, "label": label}, **options)

    return decorated


@click.command()
@_asks_gateway
def predict(client: "DigitClient", paths: list[Path], selection: dict[str, Any], as_json: bool) -> None:
    """Classify each IMAGE: a file, a folder of images, or a glob pattern."""
    format_text = format_chart if len(paths) == 1 else format_line
    format_prediction = format_json if as_json else format_text
    _print_answers(paths, lambda path: format_prediction(str(path), client.predict(path, **selection)))


@click.command()
@_asks_gateway
@click.option(
    "--show",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.png",
    help="Write the image with the boxes of its digits; for one IMAGE.",
)
def read(
    client: "DigitClient", paths: list[Path], selection: dict[str, Any], as_json: bool, show: Path | None
) -> None:
    """Read all digits on each IMAGE, in lines: a file, a folder of images, or a glob pattern."""
    if show and len(paths) > 1:
        raise click.UsageError("--show takes one image")
    if show:
        # Lazy import: Pillow and OpenCV are optional.
        from digit_client import _drawing

    def answer(path: Path) -> str:
        reading = client.read(path, **selection)
        if show:
            _drawing.save_boxes(path, reading, show)
        if as_json:
            return format_json(str(path), reading)
        return format_lines(reading, name=None if len(paths) == 1 else str(path))

    _print_answers(paths, answer)


def _print_answers(paths: list[Path], answer: Callable[[Path], str]) -> NoReturn:
    """Print the answer for each path, or its error; then exit, with status 1 after an error."""
    failed = False
    with _progress_bar(paths) as bar:
        for path in bar:
            try:
                click.echo(_over_progress_bar(answer(path), sys.stdout))
            except (DigitError, OSError) as error:
                click.echo(_over_progress_bar(f"{path}: {error}", sys.stderr), err=True)
                failed = True
    sys.exit(1 if failed else 0)


def _expand_argument(image: str) -> Iterator[Path]:
    path = Path(image)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)
    elif path.exists():
        found = [path]
    else:
        # Path.glob rejects absolute patterns.
        found = sorted(map(Path, glob.glob(image, recursive=True)))  # noqa: PTH207
    if not found:
        raise click.UsageError(f"no image at {image!r}")
    yield from found


def _progress_bar(paths: list[Path]) -> AbstractContextManager[Iterable[Path]]:
    return click.progressbar(paths, label="Reading", file=sys.stderr, show_pos=True, hidden=len(paths) == 1)


def _over_progress_bar(text: str, stream: TextIO) -> str:
    # Overwrite the progress bar's line; click redraws the bar below the text.
    return f"\r\x1b[K{text}" if stream.isatty() and sys.stderr.isatty() else text


def format_json(name: str, result: Prediction | Reading) -> str:
    """Return one JSON object: the image's name and the fields of the result.

    A prediction begins with its label, and with its digit if the labels are the ten digits.
    """
    answer: dict[str, Any] = {"image": name}
    if isinstance(result, Prediction):
        answer["label"] = result.label
        if result.has_digit_labels:
            answer["digit"] = result.digit
    return json.dumps(answer | asdict(result))


def format_lines(reading: Reading, *, name: str | None) -> str:
    """Return the lines of the reading, each after the image's name if there is one."""
    prefix = f"{name}: " if name is not None else ""
    return "\n".join(f"{prefix}{line.text}" for line in reading.lines)


def format_chart(name: str, prediction: Prediction) -> str:
    """Return a headline, and a bar for each of the ten digits in order, or of the most probable labels."""
    if prediction.has_digit_labels:
        shown = list(zip(prediction.labels, prediction.probabilities, strict=True))
    else:
        shown = prediction.top(_CHART_LABELS)
    width = max(len(label) for label, _ in shown)
    rows = [f"  {label:<{width}} {_bar(value)} {value:6.1%}" for label, value in shown]
    return "\n".join([f"{name}: {prediction.label} ({prediction.confidence:.1%})", *rows])


def format_line(name: str, prediction: Prediction) -> str:
    """Return one line: label, probability, a small bar for each class unless they are many, and name."""
    width = max(map(len, prediction.labels))
    columns = [f"{prediction.label:<{width}}", f"{prediction.confidence:6.1%}"]
    if len(prediction.labels) <= _MAX_LINE_BARS:
        columns.append("".join(_HEIGHT_BLOCKS[min(int(value * 8), 7)] for value in prediction.probabilities))
    return "  ".join([*columns, name])


def _bar(value: float) -> str:
    full, eighths = divmod(round(value * _BAR_WIDTH * 8), 8)
    return ("█" * full + _WIDTH_BLOCKS[eighths]).ljust(_BAR_WIDTH + 1)[: _BAR_WIDTH + 1]
