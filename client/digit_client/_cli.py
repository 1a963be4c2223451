"""The `digits` command: `predict`, and whatever subcommands the other rooms register."""

import glob
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TextIO

import click

from digit_client._exceptions import DigitError
from digit_client._types import Prediction

_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}

_EXTRAS = {
    "export": "training",
    "gateway": "gateway",
    "model-server": "model-server",
    "models": "grpc",
    "train": "training",
    "up": "gateway,model-server",
}
"""Extras of the package that each command needs."""


class RegisteredCommands(click.Group):
    """A group whose subcommands are the entry points `digits.commands`, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry.name for entry in entry_points(group="digits.commands"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group="digits.commands", name=cmd_name):
            return _load(entry)
        return None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            extras = _EXTRAS.get(ctx.invoked_subcommand or "")
            if extras is None:
                raise
            raise click.ClickException(
                f"`digits {ctx.invoked_subcommand}` needs the module {error.name}; "
                f"install it in a clone of digit-serving: pip install '.[{extras}]'"
            ) from error


def _load(entry: EntryPoint) -> click.Command:
    command = entry.load()
    assert isinstance(command, click.Command)
    return command


@click.command(cls=RegisteredCommands)
@click.version_option(package_name="digit-serving", prog_name="digits")
def main() -> None:
    """Read handwritten digits: train a model, serve it, ask it."""


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--url", help="The gateway's address.  [default: $DIGITS_URL or http://127.0.0.1:8080]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for each image.")
@click.option("--version", type=click.IntRange(min=0), help="Ask this version of the model.")
@click.option("--label", help="Ask the version that carries this label.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each image.")
def predict(
    images: Sequence[str],
    url: str | None,
    timeout: float | None,
    version: int | None,
    label: str | None,
    as_json: bool,
) -> None:
    """Read the digit on each IMAGE: a file, a folder of images, or a glob pattern."""
    # httpx takes longer to import than everything else here.
    from digit_client._client import DigitClient

    if version is not None and label is not None:
        raise click.UsageError("--version and --label exclude each other")
    paths = [path for image in images for path in _expand(image)]
    show = _as_json if as_json else chart if len(paths) == 1 else line
    failed = False
    with DigitClient(url, timeout=timeout) as client, _progress(paths) as bar:
        for path in bar:
            try:
                text = show(str(path), client.predict(path, version=version, label=label))
                click.echo(_above_bar(text, sys.stdout))
            except (DigitError, OSError) as error:
                click.echo(_above_bar(f"{path}: {error}", sys.stderr), err=True)
                failed = True
    sys.exit(1 if failed else 0)


def _expand(image: str) -> Iterator[Path]:
    path = Path(image)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)
    elif path.exists():
        found = [path]
    else:
        # Path.glob takes no absolute pattern.
        found = sorted(map(Path, glob.glob(image, recursive=True)))  # noqa: PTH207
    if not found:
        raise click.UsageError(f"no image at {image!r}")
    yield from found


def _progress(paths: list[Path]) -> AbstractContextManager[Iterable[Path]]:
    return click.progressbar(paths, label="Reading", file=sys.stderr, show_pos=True, hidden=len(paths) == 1)


def _above_bar(text: str, stream: TextIO) -> str:
    # The bar holds the cursor's line until it is drawn anew, below the text.
    return f"\r\x1b[K{text}" if stream.isatty() and sys.stderr.isatty() else text


def _as_json(name: str, prediction: Prediction) -> str:
    return json.dumps({"image": name, **asdict(prediction)})


_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"


def chart(name: str, prediction: Prediction) -> str:
    """A headline and a bar for each digit, on eleven lines."""
    rows = [f"  {digit} {_bar(value)} {value:6.1%}" for digit, value in enumerate(prediction.probabilities)]
    return "\n".join([f"{name}: {prediction.digit} ({prediction.confidence:.1%})", *rows])


def line(name: str, prediction: Prediction) -> str:
    """One line: the digit, its probability, and a small bar for each of the ten."""
    bars = "".join(_HEIGHTS[min(int(value * 8), 7)] for value in prediction.probabilities)
    return f"{prediction.digit}  {prediction.confidence:6.1%}  {bars}  {name}"


def _bar(value: float) -> str:
    full, eighths = divmod(round(value * _BAR * 8), 8)
    return ("█" * full + _EIGHTHS[eighths]).ljust(_BAR + 1)[: _BAR + 1]
