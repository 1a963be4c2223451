"""Reader pipeline: fit, threshold, quality gate, publication."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.artifact.versions import Version
from digit_core.reading.peaks import Peaks
from digit_training import data as datasets
from digit_training import device, provenance, shipped
from digit_training.data import Examples
from digit_training.detector import detector
from digit_training.errors import Interrupted, ModelError, NotPublishedError
from digit_training.export import Origin, read_weights, versions
from digit_training.finder import Finder, finder
from digit_training.publication import Target, make_folder
from digit_training.reader import evaluation, line_weights, sheets
from digit_training.reader.fitting import Plan, fit
from digit_training.reader.handwriting import GlyphBank
from digit_training.reader.pages import DISPLAYS, Page, PageWriter
from digit_training.reader_artifact import write_reader
from digit_training.recipes import FitRun

MIN_RECALL = 0.65
"""Largest required share of digits on drawn pages, many of which are small, faint or covered."""
TEST_PAGES = 800
TEST_SEED = 1_000_003
TEST_GLYPHS = 1500
LINE_PAGES = 8000
"""Pages drawn for the weights of lines; an eighth of them shows whole lines."""


def train(target: Target, run: FitRun) -> None:
    """Fit a reader and publish it. Raise TrainingError, ArtifactError, or Interrupted after Ctrl-C."""
    target.check_writable(READER_NAME)
    dataset = datasets.load(run.data)
    plan = Plan(seed=run.seed)
    plan = replace(plan.fine_tuning() if run.from_stable else plan, **run.overrides)
    start = _stable(target) if run.from_stable else None
    weights = read_weights(start, detector(), leading=0) if start else ()
    folder = make_folder(run.report or Path("runs", READER_NAME))
    click.echo(f"Device: {device.name()}")
    try:
        backup = keras.callbacks.BackupAndRestore(folder / "backup")
        network = fit(dataset.train, plan, [backup], weights)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; the same command goes on where it stopped.") from None
    pages = draw_test_pages(dataset.test, TEST_PAGES)
    # The finder's graph reads the weights at each call, so that it sees the folded threshold and slope.
    find = finder(network)
    finds = evaluation.score(pages, _find_all(find, pages))
    threshold = finds.threshold()
    _fold(network, threshold, finds.slope())
    lines = fit_line_weights(find, dataset.test)
    measured = {"drawn_pages": finds.to_document(threshold), "lines": lines.to_document()}
    card = _card(network, run, plan, measured) | {"started_from": start.card() if start else None}
    card = shipped.save(network, card, READER_NAME, folder)
    shown = pages[: sheets.COUNT]
    sheets.save(shown, _find_all(find, shown), folder / "pages.png")
    recall, precision = finds.recall(threshold), finds.precision(threshold)
    click.echo(
        f"Drawn pages: {recall:.1%} of {finds.digits:,} digits found and read right, {precision:.1%} of what "
        f"is found is right; {len(finds.empty):,} pages without a digit; {folder / 'pages.png'}"
    )
    least = min(target.gate.minimum(len(DIGITS.labels)), MIN_RECALL)
    if recall < least and not target.gate.force:
        raise NotPublishedError(
            f"not published: {recall:.4f} of the digits are read right, below the minimum of "
            f"{least} (see --min-accuracy and --force)"
        )
    target.publish(READER_NAME, partial(write_reader, network, card), click.echo)


def draw_test_pages(digits: Examples, count: int) -> list[Page]:
    """Return pages drawn from digits that no network is fitted on.

    They show no displays: empty ones are easier than sketches, and would lower the threshold of all pages.
    """
    return [*_draw_pages(digits, count, TEST_SEED, displays=0)]


def fit_line_weights(find: Finder, digits: Examples) -> line_weights.LineWeights:
    """Fit the weights of a reader's lines to pages drawn from digits that no network is fitted on."""
    return line_weights.fit_line_weights(
        _draw_pages(digits, LINE_PAGES, TEST_SEED + 1), lambda levels: find(levels[np.newaxis])[0]
    )


def _draw_pages(digits: Examples, count: int, seed: int, displays: float = DISPLAYS) -> Iterator[Page]:
    rng = np.random.default_rng(seed)
    writer = PageWriter(GlyphBank(digits, TEST_GLYPHS, rng), displays)
    return (writer.draw(rng) for _ in range(count))


def _stable(target: Target) -> Version:
    version = target.models.labelled(READER_NAME)
    if version is None:
        raise ModelError(
            f"{target.models.root} has no stable reader to start from; fit the first one without --from"
        )
    return version


def _find_all(find: Finder, pages: Sequence[Page]) -> list[Peaks]:
    return [peaks for page in pages for peaks in find(page.pixels[np.newaxis])]


def _fold(network: keras.Model, threshold: float, slope: float) -> None:
    """Scale the score's logit by the slope, and shift it so that the threshold becomes 0.5."""
    layer = network.get_layer("cells")
    kernel, bias = layer.get_weights()
    bias[0] = slope * (bias[0] - np.log(threshold / (1 - threshold)))
    kernel[..., 0] *= slope
    layer.set_weights([kernel, bias])


def _card(network: keras.Model, run: FitRun, plan: Plan, measured: dict[str, Any]) -> dict[str, Any]:
    """Return the model card; `measured` are its entries about drawn pages and lines."""
    return {
        "model": network.name,
        "origin": Origin.FITTED,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": network.count_params(),
        **measured,
        "fit": {**asdict(plan), "device": device.name(), "backend": keras.backend.backend()},
        "command": run.command,
        "source": provenance.describe(),
        "versions": versions(),
    }
