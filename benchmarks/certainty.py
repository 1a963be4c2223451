"""How far the certainty of answers can be trusted: `python -m benchmarks.certainty MNIST.npz`.

Reads drawn digits, numbers and pictures without a digit in this process, and prints how right answers are
by their confidence, and how many errors the least sure answers hold. `--save` keeps the answers for
`--before` of a later run, and `--diagram` draws both as an SVG file. `--fit` fits the shipped weights of the
confidence of readings, on other pictures: of the first half of MNIST's test digits, not the second.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from benchmarks.handwriting.__main__ import choose
from benchmarks.handwriting.families import FAMILIES
from benchmarks.numbers.families import NUMBERS, SINGLES, generator
from benchmarks.numbers.negatives import NEGATIVES
from benchmarks.numbers.readers import LocalReader
from benchmarks.numbers.writing import Digits
from digit_core.artifact.task_card import READER_NAME
from digit_core.images import Page, decode, to_page
from digit_core.reading.lines import FoundLines
from digit_training import provenance, shipped
from digit_training.evaluation import calibration_error, reliability_bins
from digit_training.finder import finder
from digit_training.reader import line_weights

Answers: TypeAlias = list[tuple[float, bool]]
"""Certainty of each answer, 0 to 1, and whether it is right."""

_KINDS = {
    "digits": "`confidence` of predictions",
    "numbers": "`confidence` of readings",
    "is_digit": "`is_digit` of predictions, and whether there is a digit",
}
HALF = 5000
"""Number of MNIST's test digits to which the weights are fitted; the others are asked."""
_BOUNDS = np.array([0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1])
_MIN_SHOWN = 10
"""Least number of answers of a bin in the diagram."""
_LEAST_SURE = (0.01, 0.05, 0.1, 0.2)


def main() -> None:
    """Print a table of each kind of certainty."""
    arguments = _arguments()
    if arguments.fit:
        _fit(arguments)
        return
    answers: dict[str, Answers] = {kind: [] for kind in _KINDS}
    for kind, certainty, is_right in _ask(arguments):
        answers[kind].append((float(certainty), bool(is_right)))
    for kind, title in _KINDS.items():
        _print(title, answers[kind])
    if arguments.save:
        arguments.save.write_text(json.dumps(answers))
    if arguments.diagram:
        before = json.loads(arguments.before.read_text()) if arguments.before else None
        _draw(arguments.diagram, answers, before)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certainty", description=__doc__)
    parser.add_argument("mnist", type=Path, help="path of mnist.npz, in Keras's layout")
    parser.add_argument("--count", type=int, default=60, help="number of pictures of each family")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures")
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="models folder, whose newest read"
    )
    parser.add_argument("--fit", type=Path, metavar="FOLDER", help="folder of the shipped reader.json to fit")
    parser.add_argument("--save", type=Path, help="JSON file for the answers")
    parser.add_argument("--before", type=Path, help="JSON file of an earlier run, for the diagram")
    parser.add_argument("--diagram", type=Path, help="SVG file for the reliability diagrams")
    return parser.parse_args()


def _ask(arguments: argparse.Namespace) -> Iterator[tuple[str, float, bool]]:
    """Yield the kind of each certainty, the certainty, and whether the answer is right; none of a refusal."""
    reader = LocalReader.load(arguments.models)
    images, labels = test_digits(arguments.mnist, slice(HALF, None))
    chosen = choose(images, arguments.count, arguments.seed)
    for family, draw in FAMILIES.items():
        for number, index in enumerate(chosen):
            answer = reader(draw(images[index], generator(arguments.seed, family, number)))
            if answer.digit is not None:
                yield "digits", answer.digit_confidence, answer.digit == labels[index]
            yield "is_digit", answer.is_digit, True
    digits = Digits(images, labels)
    for family, write in NUMBERS.items():
        for number in range(arguments.count):
            file, text = write(digits, generator(arguments.seed, family, number))
            answer = reader(file)
            if answer.text is not None:
                yield "numbers", answer.text_confidence, answer.text == text
    for family, sketch in NEGATIVES.items():
        for number in range(arguments.count):
            file, _ = sketch(generator(arguments.seed, family, number))
            yield "is_digit", reader(file).is_digit, False


def test_digits(file: Path, part: slice) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return some of MNIST's test digits and their labels."""
    with np.load(file) as mnist:
        return mnist["x_test"][part], mnist["y_test"][part]


def _fit(arguments: argparse.Namespace) -> None:
    """Fit the weights of lines to what the shipped networks read, and write them to the reader's card."""
    pages, texts = zip(*_draw_to_fit(arguments), strict=True)
    reader = finder(shipped.load_detector())
    found = line_weights.find_all(pages, lambda levels: reader(levels[np.newaxis])[0])
    fitted = line_weights.fit((lines, _are_in(text, lines)) for text, lines in zip(texts, found, strict=True))
    made = {
        "command": f"python -m benchmarks.certainty mnist.npz --fit {arguments.fit} "
        f"--count {arguments.count} --seed {arguments.seed}",
        "source": provenance.describe(),
    }
    lines = fitted.to_document() | made
    card = shipped.read_card(READER_NAME) | {"lines": lines}
    (arguments.fit / f"{READER_NAME}.json").write_text(json.dumps(card, indent=2) + "\n")
    sys.stdout.write(json.dumps(lines, indent=2) + "\n")


def _draw_to_fit(arguments: argparse.Namespace) -> Iterator[tuple[Page, str]]:
    """Yield pages and their texts: numbers, lone digits, and half as many of a family without a digit."""
    digits = Digits(*test_digits(arguments.mnist, slice(HALF)))
    for family, write in (NUMBERS | SINGLES).items():
        for number in range(arguments.count):
            file, text = write(digits, generator(arguments.seed, f"{family} to fit", number))
            yield to_page(decode(file)), text
    for family, sketch in NEGATIVES.items():
        for number in range(arguments.count // 2):
            file, _ = sketch(generator(arguments.seed, f"{family} to fit", number))
            yield to_page(decode(file)), ""


def _are_in(text: str, found: FoundLines) -> list[bool]:
    """Return for each line whether it has all digits of a line of the text, and no others."""
    written = ["".join(filter(str.isdigit, line)) for line in text.split("\n")]
    chosen = (found.probabilities[line].argmax(axis=1) for line in found.lines)
    return ["".join(map(str, digits.tolist())) in written for digits in chosen]


def _print(title: str, answers: Answers) -> None:
    certainty, is_right = _columns(answers)
    order = np.argsort(certainty, kind="stable")
    errors = int((~is_right).sum())
    rates = np.cumsum(~is_right[order[::-1]]) / np.arange(1, len(order) + 1)
    kept = {share: int(np.flatnonzero(rates <= 1 - share).max(initial=-1)) + 1 for share in (0.99, 0.995)}
    sys.stdout.write(
        f"{title}: {len(answers):,}, {errors} wrong; calibration error {_error(answers):.3f}; "
        f"area under the risk-coverage curve {rates.mean():.4f}; kept at 99 % right {kept[0.99]:,}, "
        f"at 99.5 % {kept[0.995]:,}; errors in the least sure "
    )
    held = ((share, int((~is_right[order[: round(share * len(order))]]).sum())) for share in _LEAST_SURE)
    sys.stdout.write(", ".join(f"{share:.0%} {count}" for share, count in held) + "\n\n")
    sys.stdout.write("| from | below | answers | mean | right |\n| ---: | ---: | ---: | ---: | ---: |\n")
    for part in reliability_bins(certainty, is_right, _BOUNDS):
        right = part.accuracy
        cells = (
            f"{part.low:g}",
            f"{part.high:g}",
            f"{right.count:,}",
            f"{part.confidence:.3f}",
            f"{right.ratio:.3f}",
        )
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.write("\n")


def _error(answers: Answers) -> float:
    return calibration_error(reliability_bins(*_columns(answers), _BOUNDS))


def _columns(answers: Answers) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.array([value for value, _ in answers]), np.array([right for _, right in answers], bool)


def _draw(file: Path, answers: dict[str, Answers], before: dict[str, Any] | None) -> None:
    """Draw a reliability diagram of each kind: A. Niculescu-Mizil and R. Caruana, ICML 2005."""
    plt.rcParams["svg.fonttype"] = "none"
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
    for axis, (kind, title) in zip(axes, _KINDS.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", linestyle=":")
        if before:
            _plot(axis, before[kind], "before", color="0.55", marker="s")
        _plot(axis, answers[kind], "now", color="tab:blue", marker="o")
        axis.set(
            title=title.replace("`", "").split(",")[0],
            xlabel="mean certainty",
            ylabel="right",
            xlim=(0, 1.02),
        )
        axis.set_ylim(0, 1.02)
        axis.legend(loc="lower right", title="calibration error")
    figure.savefig(file, metadata={"Date": None})


def _plot(axis: Axes, answers: Answers, name: str, **style: Any) -> None:
    parts = reliability_bins(*_columns(answers), _BOUNDS)
    points = [(part.confidence, part.accuracy.ratio) for part in parts if part.accuracy.count >= _MIN_SHOWN]
    axis.plot(*zip(*points, strict=True), label=f"{name}: {_error(answers):.3f}", **style)


if __name__ == "__main__":
    main()
