"""Numbers and no-digits, by family: `python -m benchmarks.numbers MNIST.npz`.

Reads pictures with a model in this process, or sends them to a gateway (`--url`). Prints Markdown tables, and
writes a contact sheet of each family to a PNG file (`--sheets`), errors first. With `--expect` the tables say
what is read of the numbers by what their caller knows of them; with `--turned`, how often `orientation` is
right of turned numbers.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.numbers.displays import CLOSE_CROPS, DISPLAYS, WORDS
from benchmarks.numbers.expecting import KNOWN, PATTERNS, Expected, misfits, read_expecting
from benchmarks.numbers.families import NUMBERS, SINGLES, WITH_SIGNS, generator
from benchmarks.numbers.negatives import NEGATIVES
from benchmarks.numbers.readers import (
    GatewayReader,
    LocalReader,
    Reader,
)
from benchmarks.numbers.sheets import Result, write_sheet
from benchmarks.numbers.writing import Digits
from digit_client import Client
from digit_core.images import decode, to_png
from digit_core.reading.expectations import Expectation, parse_expectation

_CONFIDENT = 0.9
"""Confidence that a caller would trust."""
_THRESHOLDS = (0, 0.5, 0.8, 0.9, 0.95, 0.99)
"""Least confidences of readings."""
_NUMBERS = NUMBERS | DISPLAYS
_SINGLES = SINGLES | CLOSE_CROPS
_NEGATIVES = NEGATIVES | WORDS


def main() -> None:
    """Print a row for each family."""
    arguments = _arguments()
    with np.load(arguments.mnist) as mnist:
        digits = Digits(mnist["x_test"], mnist["y_test"])
    reader = _reader(arguments)
    if arguments.expect or arguments.turned:
        assert isinstance(reader, LocalReader)
        (_print_expecting if arguments.expect else _print_turned)(digits, reader, arguments)
        return

    def read_family(name: str) -> list[Result]:
        results = list(_read(name, digits, reader, arguments))
        if arguments.sheets:
            write_sheet(arguments.sheets / f"{name.replace(' ', '-')}.png", results)
        return results

    results = [
        *chain.from_iterable(
            _print_table(titles, families, arguments.family, read_family, measures)
            for titles, families, measures in _TABLES
        )
    ]
    if not arguments.url:
        _print_cost(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numbers", description=__doc__)
    parser.add_argument("mnist", type=Path, help="path of mnist.npz, in Keras's layout")
    parser.add_argument("--count", type=int, default=60, help="number of pictures of each family")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures")
    parser.add_argument(
        "--family",
        nargs="+",
        choices=[*_NUMBERS, *_SINGLES, *_NEGATIVES],
        metavar="NAME",
        help="families to read, else all: %(choices)s",
    )
    parser.add_argument("--expect", action="store_true", help="read numbers by what their caller knows")
    parser.add_argument("--turned", action="store_true", help="read numbers that are turned")
    parser.add_argument("--sheets", type=Path, help="directory for the contact sheets")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--models", type=Path, default=Path("models"), help="models folder, whose newest read"
    )
    source.add_argument("--url", help="URL of a running gateway, to read there instead")
    arguments = parser.parse_args()
    if (arguments.expect or arguments.turned) and arguments.url:
        parser.error("--expect and --turned read in this process, not at --url")
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
    return arguments


def _reader(arguments: argparse.Namespace) -> Reader:
    if arguments.url:
        return GatewayReader(Client(arguments.url, timeout=60))
    return LocalReader.load(arguments.models)


def _read(name: str, digits: Digits, reader: Reader, arguments: argparse.Namespace) -> Iterable[Result]:
    for number in range(arguments.count):
        rng = generator(arguments.seed, name, number)
        if name in _NEGATIVES:
            file, text = _NEGATIVES[name](rng)
        else:
            file, text = (_NUMBERS | _SINGLES)[name](digits, rng)
        yield Result(file, text, reader(file))


def _print_table(
    titles: tuple[str, ...],
    families: Iterable[str],
    chosen: list[str] | None,
    read_family: Callable[[str], list[Result]],
    measures: tuple[Callable[[Result], bool], ...],
) -> list[Result]:
    """Print the share of results of which each measure is true, by family and in the mean; return all."""
    names = [name for name in families if not chosen or name in chosen]
    if not names:
        return []
    _print_row(*titles, "n")
    _print_row("---", *["---:"] * len(titles))
    results = {}
    for name in names:
        results[name] = read_family(name)
        _print_row(name, *_shares(results[name], measures), str(len(results[name])))
    every = list(chain.from_iterable(results.values()))
    _print_row("*mean*", *_shares(every, measures), str(len(every)))
    sys.stdout.write("\n")
    return every


def _print_expecting(digits: Digits, reader: LocalReader, arguments: argparse.Namespace) -> None:
    """Print the share of numbers that are read right (wrong) by what is expected, then by confidence.

    Families of several lines have no one number that is expected; of up to three digits, there are no more
    than 1,000 numbers.
    """
    columns = ["nothing", "length", "length and check digit", "among 1,000", "date, amount"]
    _print_row("numbers", *columns, "among five candidates", "n")
    _print_row("---", *["---:"] * (len(columns) + 2))
    every: list[Expected] = []
    chosen = [name for name in _NUMBERS if name in (arguments.family or NUMBERS) and name != "two lines"]
    for family in chosen:
        read = []
        for number in range(arguments.count):
            rng = generator(arguments.seed, family, number)
            file, text = _NUMBERS[family](digits, rng)
            read.append(read_expecting(reader, family, file, text, rng))
        _print_row(family, *_expected_cells(read, [*columns[:4], KNOWN.get(family, "")]), str(len(read)))
        every += read
    _print_row("*mean*", *_expected_cells(every, [*columns[:4], ""]), str(len(every)))
    sys.stdout.write("\n")
    _print_row("least confidence", "answered", "wrong of the answered")
    _print_row("---:", "---:", "---:")
    for least in _THRESHOLDS:
        answered = [
            each
            for each in every
            if not (reading := each.readings["nothing"]).refusal and reading.confidence >= least
        ]
        wrong = sum(each.is_wrong("nothing") for each in answered) / max(1, len(answered))
        _print_row(f"{least:g}", f"{len(answered) / len(every):.1%}", f"{wrong:.1%}")
    sys.stdout.write("\n")
    if not arguments.family:
        _print_patterns(digits, reader, arguments)
    _print_forced(digits, reader, arguments, chosen)


def _print_patterns(digits: Digits, reader: LocalReader, arguments: argparse.Namespace) -> None:
    """Print the share of numbers with signs that are read right (wrong) without and with a pattern."""
    _print_row("numbers with signs", "nothing", "pattern", "pattern", "n")
    _print_row("---", "---:", "---", "---:", "---:")
    for family, pattern in PATTERNS:
        read = []
        for number in range(arguments.count):
            file, text = WITH_SIGNS[family](digits, generator(arguments.seed, family, number))
            readings = {"nothing": reader.read(file), pattern: reader.read(file, parse_expectation(pattern))}
            read.append(Expected("".join(filter(str.isdigit, text)), readings))
        nothing, expected, _ = _expected_cells(read, ["nothing", pattern])
        _print_row(family, nothing, f"`{pattern}`", expected, str(len(read)))
    sys.stdout.write("\n")


def _print_forced(
    digits: Digits, reader: LocalReader, arguments: argparse.Namespace, chosen: list[str]
) -> None:
    """Print how many numbers are read as what they are not: as one of a list without them, or as a date."""
    forced: dict[str, list[bool]] = {}

    def read(row: str, file: bytes, expectation: Expectation) -> None:
        forced.setdefault(row, []).append(not reader.read(file, expectation).refusal)

    for family in [*chosen, *(WITH_SIGNS if not arguments.family else ())]:
        for number in range(arguments.count):
            rng = generator(arguments.seed, family, number)
            file, text = (NUMBERS | WITH_SIGNS)[family](digits, rng)
            if family in WITH_SIGNS:
                read(f"`date` of {family}", file, parse_expectation("date"))
                continue
            for name, expectation in misfits(text, rng).items():
                read(name, file, expectation)
                read(f"{name}, {min(len(text), 7)} digits{' or more' * (len(text) > 6)}", file, expectation)
    _print_row("what does not fit", "forced", "n")
    _print_row("---", "---:", "---:")
    for row, values in sorted(forced.items()):
        _print_row(row, f"{np.mean(values):.1%}", str(len(values)))


def _print_turned(digits: Digits, reader: LocalReader, arguments: argparse.Namespace) -> None:
    """Print how often the `orientation` of turned numbers is right, and how often it is wrong."""
    _print_row("turned clockwise by", "right", "wrong", "n")
    _print_row("---:", "---:", "---:", "---:")
    for quarters in range(4):
        upright, given = (360 - 90 * quarters) % 360, []
        for family in arguments.family or NUMBERS:
            for number in range(arguments.count):
                file, _ = _NUMBERS[family](digits, generator(arguments.seed, family, number))
                turned = to_png(np.ascontiguousarray(np.rot90(decode(file), -quarters)))
                given.append(reader.read(turned).orientation)
        right = np.mean([orientation == upright for orientation in given])
        wrong = np.mean([orientation not in (None, upright) for orientation in given])
        _print_row(f"{90 * quarters}°", f"{right:.1%}", f"{wrong:.1%}", str(len(given)))


def _expected_cells(read: list[Expected], names: list[str]) -> list[str]:
    """Return a cell for each expectation, and the share of the numbers among the candidates without one."""
    cells = []
    for name in names:
        known = [each for each in read if name in each.readings]
        right, wrong = sum(each.is_right(name) for each in known), sum(each.is_wrong(name) for each in known)
        cells.append(f"{right / len(known):.1%} ({wrong / len(known):.1%})" if known else "")
    return [*cells, f"{np.mean([each.is_candidate('nothing') for each in read]):.1%}"]


def _shares(results: list[Result], measures: tuple[Callable[[Result], bool], ...]) -> list[str]:
    return [f"{np.mean([measure(result) for result in results]):.1%}" for measure in measures]


def _print_row(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


def _print_cost(results: list[Result]) -> None:
    """Print the mean times of a picture."""
    read, predict = (
        1000 * np.mean([getattr(result.answer, name) for result in results])
        for name in ("read_seconds", "predict_seconds")
    )
    sys.stdout.write(f"Per picture: read {read:.1f} ms, predict {predict:.1f} ms\n")


def _is_read(result: Result) -> bool:
    return result.answer.text == result.expected


def _is_predicted(result: Result) -> bool:
    return str(result.answer.digit) == result.expected


def _is_refused_by_read(result: Result) -> bool:
    return result.answer.text is None


def _is_refused_by_predict(result: Result) -> bool:
    return result.answer.digit is None


def _is_wrong_confidently(result: Result) -> bool:
    return not _is_read(result) and _is_read_confidently(result)


def _is_read_confidently(result: Result) -> bool:
    return result.answer.text_confidence >= _CONFIDENT


def _is_predicted_confidently(result: Result) -> bool:
    return result.answer.digit_confidence >= _CONFIDENT


_ANSWERED = ("read", "predicted", "refused by read", "refused by predict")
_REFUSED = ("refused by read", "refused by predict", "read at ≥ 0.9", "predicted at ≥ 0.9")
_OF_DIGITS = (_is_read, _is_predicted, _is_refused_by_read, _is_refused_by_predict)
_OF_NEGATIVES = (_is_refused_by_read, _is_refused_by_predict, _is_read_confidently, _is_predicted_confidently)
_TABLES = (
    (("numbers", "read exactly", "refused by predict"), NUMBERS, (_is_read, _is_refused_by_predict)),
    (
        ("displays and counters", "read exactly", "refused by read", "read wrong at ≥ 0.9"),
        DISPLAYS,
        (_is_read, _is_refused_by_read, _is_wrong_confidently),
    ),
    (("single digits", *_ANSWERED), SINGLES, _OF_DIGITS),
    (("close crops", *_ANSWERED), CLOSE_CROPS, _OF_DIGITS),
    (("no digits", *_REFUSED), NEGATIVES, _OF_NEGATIVES),
    (("no digits on displays", *_REFUSED), WORDS, _OF_NEGATIVES),
)
"""Titles, families and measures of the tables."""


if __name__ == "__main__":
    main()
