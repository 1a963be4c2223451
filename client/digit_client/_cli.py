"""Command line `digits`: the group, and the commands `predict` and `read`."""

import glob
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import click
from click.core import ParameterSource

from digit_client._commands import RegisteredCommands
from digit_client._formats import Output, format_csv, prediction_output, reading_output
from digit_client._options import DEFAULT_URL
from digit_client.command_options import adding, described_options
from digit_core.artifact import addresses
from digit_core.artifact.addresses import Address
from digit_core.errors import (
    AuthenticationError,
    ConnectionFailedError,
    DigitError,
    ModelNotFoundError,
    ReadingNotSupportedError,
    UnavailableError,
)
from digit_core.options import PredictOptions, ReadOptions, described
from digit_core.results import Prediction, Reading

_Image: TypeAlias = tuple[str, Path | bytes]
"""Name of an image, and its path or content."""
_Answer: TypeAlias = Prediction | Reading | DigitError | OSError

# Errors that every other image would meet too.
_SERVICE_FAILURES = (
    AuthenticationError,
    ConnectionFailedError,
    ModelNotFoundError,
    ReadingNotSupportedError,
    UnavailableError,
)


@click.command(cls=RegisteredCommands)
@click.version_option(package_name="digits", prog_name="digits")
def main() -> None:
    """Train, serve and ask image classifiers: of handwritten digits, or your own."""


_DESCRIBED = described(PredictOptions).keys() | described(ReadOptions).keys()
"""Names of the commands' options that the client takes."""
_shared_options = adding(
    click.argument("images", metavar="IMAGE...", nargs=-1, required=True),
    click.option("-r", "--recursive", is_flag=True, help="Include the images in subfolders."),
    click.option(
        "--url",
        envvar="DIGITS_URL",
        show_envvar=True,
        help=f"URL of the gateway.  [default: that of `digits up`, or {DEFAULT_URL}]",
    ),
    click.option(
        "--api-key",
        metavar="KEY",
        envvar="DIGITS_API_KEY",
        show_envvar=True,
        help="API key of the gateway; prefer the variable: other users see options in `ps`.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        help="Timeout of each attempt of a picture, in seconds.",
    ),
    click.option("--model", metavar="NAME", help="Name of the model.  [default: the gateway's]"),
    # Keep this above --format: click 8.2 takes the default of the last option.
    click.option("--json", "output_format", flag_value="jsonl", help="Short for --format jsonl."),
    click.option(
        "--format",
        "output_format",
        type=click.Choice(["table", "csv", "jsonl"]),
        default="table",
        show_default=True,
        help="A table for people, CSV for spreadsheets, or a JSON object for each image.",
    ),
)
"""Argument and options that `predict` and `read` share."""


class _Predict(click.Command):
    """Command that names `read` for an option that only that one has."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raise NoSuchOption with the command that has the option."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if not any(error.option_name in parameter.opts for parameter in read.params):
                raise
            message = f"{error.option_name} is an option of `digits read`, which reads numbers."
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from error


@click.command(cls=_Predict)
@_shared_options
@described_options(PredictOptions)
def predict(**given: Any) -> None:
    """Classify each IMAGE: a file, folder, glob pattern, or - for standard input.

    An image that shows no digit, or several, gets a line with the reason and the most similar class.
    """
    _ask("iter_predict", prediction_output, given)


@click.command()
@_shared_options
@described_options(ReadOptions)
@click.option(
    "--show",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.png",
    help="Write the image with the boxes of its digits, or a sheet of several.",
)
def read(**given: Any) -> None:
    """Read all digits on each IMAGE, in lines.

    An IMAGE is a file, folder, glob pattern, or - for standard input.
    """
    _ask("iter_read", reading_output, given)


def _ask(method: str, make_output: Callable[[str, bool], Output], given: Mapping[str, Any]) -> None:
    """Print the answers of this method of the client to the images; exit with status 1 after an error."""
    # Lazy imports: they take longer than the rest of the command line.
    import asyncio

    from digit_client import AsyncClient

    if None not in (given["version"], given["label"]):
        raise click.UsageError("--version and --version-label are mutually exclusive: give one of them")
    options = {name: given[name] for name in given.keys() & _DESCRIBED}
    found = _find_images(given["images"], given["recursive"])
    form = options.get("form")
    parts = [image for image in found for _ in form or options.get("box") or (None,)]
    # Load the drawing before anything is asked: Pillow and OpenCV are optional.
    save = _choose_drawing(given.get("show"), len(parts))
    gateway = _find_gateway(given["url"])
    kept: dict[int, Any] = {}
    output = make_output(given["output_format"], len(found if form else parts) == 1)
    try:
        client = AsyncClient(
            gateway.value, model=given["model"], api_key=given["api_key"], timeout=given["timeout"]
        )
        answers = getattr(client, method)([source for _, source in found], **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error

    async def ask() -> int:
        async with client, aclosing(answers):
            return await _print_answers(parts, _keeping(answers, kept) if save else answers, output)

    # Unlike those of a blocking client, requests of an asyncio client end with Ctrl-C.
    try:
        failures = asyncio.run(ask())
    except DigitError as error:
        raise click.ClickException(_describe_failure(error, gateway)) from error
    if save and failures < len(parts):
        try:
            save([source for _, source in found], [kept[index] for index in range(len(parts))])
        except (DigitError, OSError) as error:
            raise click.ClickException(f"--show: {error}") from error
    if failures and len(parts) > 1:
        errors = "1 error" if failures == 1 else f"{failures} errors"
        click.echo(f"{len(parts) - failures} read, {errors}", err=True)
    sys.exit(1 if failures else 0)


async def _keeping(
    answers: AsyncIterator[tuple[int, _Answer]], kept: dict[int, _Answer]
) -> AsyncIterator[tuple[int, _Answer]]:
    """Yield the answers, and keep each by its position."""
    async for index, answer in answers:
        kept[index] = answer
        yield index, answer


def _choose_drawing(target: Path | None, parts: int) -> Callable[..., None] | None:
    """Return the function that writes the readings of images to the file of --show, if it is given."""
    if not target:
        return None
    if target.suffix.lower() not in ("", ".png"):
        raise click.UsageError(f"--show writes a PNG file: {target.with_suffix('.png')}, not {target}")
    from digit_core import drawing

    if parts > drawing.MAX_SHEET:
        raise click.UsageError(f"--show draws up to {drawing.MAX_SHEET} readings, not {parts:,}")
    return partial(drawing.save, target=target)


def _find_gateway(url: str | None) -> Address:
    """Return the gateway of --url or DIGITS_URL, that of `digits up` with DIGITS_MODELS, or the default."""
    if url:
        source = click.get_current_context().get_parameter_source("url")
        return Address(url, "DIGITS_URL" if source is ParameterSource.ENVIRONMENT else "--url")
    return addresses.find(Path(os.environ.get("DIGITS_MODELS") or "models"), "gateway", DEFAULT_URL)


def _find_images(arguments: Sequence[str], recursive: bool) -> list[_Image]:
    """Return the images of all arguments. One that names none is an error in its place among others."""
    found = [[*_expand_argument(argument, recursive)] for argument in arguments]
    if not any(found):
        advice = "; its subfolders are read with -r" if Path(arguments[0]).is_dir() and not recursive else ""
        raise click.UsageError(f"there is no image at {arguments[0]!r}{advice}")
    missing = [[(argument, Path(argument))] for argument in arguments]
    return [image for images, named in zip(found, missing, strict=True) for image in images or named]


def _expand_argument(argument: str, recursive: bool) -> Iterator[_Image]:
    """Yield the images that an argument names."""
    from digit_core.inputs import is_url

    path = Path(argument)
    if is_url(argument):
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
    yield from ((click.format_filename(path), path) for path in found)


def _list_folder(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yield the image files of the folder, and of its subfolders if `recursive`."""
    from digit_core.inputs import IMAGE_SUFFIXES

    def fail(error: OSError) -> NoReturn:
        raise click.FileError(str(error.filename), error.strerror)

    # Unlike Path.rglob, os.walk reports a folder that can't be listed.
    for directory, subfolders, names in os.walk(folder, onerror=fail):
        if not recursive:
            subfolders.clear()
        yield from (Path(directory, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)


async def _print_answers(
    images: Sequence[_Image],
    answers: AsyncIterator[tuple[int, _Answer]],
    output: Output,
) -> int:
    """Print the answers and errors, in order. Return the number of errors; raise one that all images meet."""
    failures = 0
    if output.name == "csv":
        click.echo(format_csv(output.columns))
    with click.progressbar(
        length=len(images),
        label="Reading",
        file=sys.stderr,
        show_pos=True,
        hidden=len(images) == 1 or not sys.stderr.isatty(),
    ) as bar:
        async for index, answer in _in_order(answers):
            name, _ = images[index]
            if isinstance(answer, _SERVICE_FAILURES):
                raise answer
            if isinstance(answer, (DigitError, OSError)):
                failures += 1
                text = output.format_error(name, answer)
            else:
                text = output.format_answer(name, answer)
            # Standard output of the only image is for a program or a file, which expects no error.
            is_lone_error = failures == len(images) == 1 and output.name == "table"
            # Overwrite the progress bar's line; click redraws the bar below the text.
            start = "\r\x1b[K" if sys.stdout.isatty() and sys.stderr.isatty() else ""
            click.echo(f"{start}{text}", err=is_lone_error)
            bar.update(1)
    return failures


async def _in_order(answers: AsyncIterator[tuple[int, _Answer]]) -> AsyncIterator[tuple[int, _Answer]]:
    """Yield the answers by their positions, each as soon as those before it have come."""
    waiting: dict[int, _Answer] = {}
    position = 0
    async for index, answer in answers:
        waiting[index] = answer
        while position in waiting:
            yield position, waiting.pop(position)
            position += 1


def _describe_failure(error: DigitError, gateway: Address) -> str:
    """Return the message, with the address that was asked, and its source."""
    if isinstance(error, ConnectionFailedError) and error.message.startswith("nothing answers"):
        named = gateway.value if gateway.source in ("--url", "the default") else str(gateway)
        sentence = error.message.replace(gateway.value, named).replace("give another URL", "give --url")
        return f"{sentence[:1].upper()}{sentence[1:]}"
    return gateway.explain(error.message)
