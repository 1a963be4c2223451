"""HTML report: sections, accessibility, escaping, special cases, saliency maps and axes of charts."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from PIL import Image

from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_training import models, report
from digit_training.data import Dataset, Examples, Labels
from digit_training.drawing.negatives import KINDS
from digit_training.evaluation import Accuracy, Evaluation, confusion_matrix, evaluate
from digit_training.export import model_card
from digit_training.fit import FitResult
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import FEEDBACK, TEST, Comparison, Comparisons
from digit_training.report import (
    MAX_MISTAKES,
    MAX_SHOWN_CLASSES,
    THUMBNAIL_SIDE,
    data_uri,
    render_page,
    saliency_data_uri,
    saliency_maps,
)
from tests.training.conftest import predict

pytestmark = pytest.mark.xdist_group("fits")


def decode_data_uri(uri: str) -> NDArray[np.uint8]:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_saliency_data_uri_is_blue_above_0_and_red_below() -> None:
    values = np.zeros((28, 28), np.float32)
    values[0, :3] = 1, -1, 4
    image = decode_data_uri(saliency_data_uri(values, limit=2)).astype(int)
    (blue, red, saturated), zero = image[0, :3], image[1, 1]
    assert blue[2] > blue[0] + 100
    assert red[0] > red[2] + 100
    assert (blue[3], red[3], saturated[3], zero[3]) == (127, 127, 255, 0)


@pytest.mark.parametrize("channels", [(1,), (3,)])
def test_data_uri_scales_large_pictures_down_and_keeps_colours(channels: tuple[int, ...]) -> None:
    images = np.zeros((2, 400, 200, *channels), np.uint8)
    images[1] = (200, 100, 50) if channels == (3,) else 200
    decoded = decode_data_uri(data_uri(images))
    assert decoded.shape[:2] == (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    assert decoded[0, -1].tolist() == ([200, 100, 50] if channels == (3,) else 200)
    assert not decoded[0, 0].any()
    small = images[:, :28, :28]
    assert np.array_equal(decode_data_uri(data_uri(small)).ravel(), np.hstack(list(small)).ravel())


SECTIONS = ["samples", "curves", "saliency", "confusion", "mistakes", "refusals", "reliability", "card"]
OF_ONE_OUTPUT = [name for name in SECTIONS if name != "refusals"]
OF_TWO_OUTPUTS = [name for name in SECTIONS if name != "saliency"]


class ParsedPage(HTMLParser):
    """Tags of a page in order, and the text of each section; asserts that every tag is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self.tags: list[tuple[str, str, dict[str, str | None]]] = []
        self.feed(html)
        assert not self.open

    @property
    def section(self) -> str:
        return list(self.sections)[-1] if "section" in self.open else ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections[str(dict(attrs)["id"])] = ""
        self.tags.append((self.section, tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((self.section, tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.section:
            self.sections[self.section] += data

    def count(self, section: str, tag: str) -> int:
        return sum(found[:2] == (section, tag) for found in self.tags)


def only_test(evaluation: Evaluation, labels: Labels) -> Comparisons:
    """Return the comparisons of a model without a served version."""
    right = evaluation.probabilities.argmax(axis=1) == labels
    return Comparisons(None, {TEST: Comparison(right, None)})


def render(
    fit: FitResult,
    dataset: Dataset,
    evaluation: Evaluation | None = None,
    comparisons: Comparisons | None = None,
    **changes: object,
) -> str:
    """Return the page of a fit, with changes of its model card."""
    evaluation = evaluation or evaluate(fit.model, dataset.test, DIGITS)
    test_pictures = LabelledPictures.of(dataset.test, DIGITS, dataset.describe())
    comparisons = comparisons or only_test(evaluation, dataset.test.labels)
    card = {**model_card(fit.model, DIGITS, test_pictures.description, evaluation, fit), **changes}
    return render_page(card, test_pictures, evaluation, comparisons, fit)


@pytest.fixture(scope="module")
def html(fitted: FitResult, dataset: Dataset) -> str:
    return render(fitted, dataset)


def test_render_page_of_perceptron_has_all_sections_and_the_whole_card(
    fitted: FitResult, dataset: Dataset, html: str
) -> None:
    parsed = ParsedPage(html)
    assert list(parsed.sections) == OF_ONE_OUTPUT
    images = {name: parsed.count(name, "img") for name in ("samples", "saliency", "mistakes")}
    assert images == {"samples": 10, "saliency": 10, "mistakes": MAX_MISTAKES}
    assert parsed.count("curves", "svg") == 2
    assert len(html) < 1_500_000
    assert f"<h1>{fitted.model.name}: " in html
    for text in ("fit.learning_rate", "versions.keras", "data.md5.test labels", dataset.md5["test labels"]):
        assert text in parsed.sections["card"]
    matrix = html.partition('<table class="confusion">')[2].partition("</table>")[0]
    counts = np.array([int(count) for count in re.findall(r"<td[^>]*>(\d+)</td>", matrix)]).reshape(10, 10)
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    assert np.array_equal(counts, confusion_matrix(dataset.test.labels, evaluation.probabilities))


def test_render_page_is_self_contained_and_describes_its_images(html: str) -> None:
    parsed = ParsedPage(html)
    assert "://" not in html
    assert "url(" not in html
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for _, tag, _ in parsed.tags}
    for _, tag, attributes in parsed.tags:
        assert str(attributes.get("src", "")).startswith("data:image/png;base64," if tag == "img" else "")
        assert tag != "img" or attributes["alt"]
        assert tag != "svg" or attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_render_page_of_two_outputs_shows_refusals(
    refusing: FitResult, refusing_evaluation: Evaluation, dataset: Dataset
) -> None:
    refusals = refusing_evaluation.refusals
    assert refusals
    parsed = ParsedPage(render(refusing, dataset, refusing_evaluation))
    assert list(parsed.sections) == OF_TWO_OUTPUTS
    assert parsed.count("curves", "circle") == 4
    assert f"{refusing.validation_examples} validation digits" in parsed.sections["curves"]
    text = " ".join(parsed.sections["refusals"].split())
    count = int(refusals.digits.refused.sum())
    assert (
        f"Refused wrongly: {count} of 1,000 test digits, {100 * refusals.digits.refused_share:.2f}%" in text
    )
    for name, kind in KINDS.items():
        held_out = " (held out)" if kind.is_held_out else ""
        assert f"{name}{held_out} {100 * refusals.negatives[name].refused_share:.0f}%" in text
    strips = sum(
        bool(scored.refused.any()) + bool((~scored.refused).any()) for scored in refusals.negatives.values()
    )
    assert parsed.count("refusals", "img") == min(count, MAX_MISTAKES) + strips


def test_render_page_of_interrupted_fit_says_so(fitted: FitResult, dataset: Dataset) -> None:
    perfect = Evaluation(1.0, 0.0, np.eye(10, dtype=np.float32)[dataset.test.labels], None)
    interrupted = replace(fitted, recipe=replace(fitted.recipe, epochs=9))
    assert "Interrupted</strong> after 3 of 9 epochs" in render(interrupted, dataset, perfect)
    assert "Interrupted" not in render(fitted, dataset, perfect)


def test_render_page_of_few_digits_and_no_mistakes_renders(fitted: FitResult, dataset: Dataset) -> None:
    few = replace(dataset, test=dataset.test[:3])
    perfect = Evaluation(1.0, 0.0, np.eye(10, dtype=np.float32)[few.test.labels], None)
    parsed = ParsedPage(render(replace(fitted, train=fitted.train[:3]), few, perfect))
    assert "every test picture correctly" in parsed.sections["mistakes"]
    assert parsed.count("samples", "img") == len(set(fitted.train.labels[:3].tolist()))


def render_task(task: TaskCard, probabilities: NDArray[np.float32], labels: NDArray[np.intp]) -> str:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), *task.shape), np.uint8)
    names = [f"{task.labels[label]}/{index}.jpg" for index, label in enumerate(labels.tolist())]
    test_pictures = LabelledPictures(
        Examples(images, labels),
        {"source": "<script>photos", "test": len(labels), "unreadable": 7, "refused": 1},
        names,
        [f"broken {number}: <damaged>" for number in range(7)],
        ["blank: nothing is written"],
        task,
    )
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    evaluation = Evaluation(accuracy, 0.1, probabilities, None)
    model = models.perceptron()
    card = model_card(model, task, test_pictures.description, evaluation)
    return render_page(card, test_pictures, evaluation, only_test(evaluation, labels))


def test_render_page_of_another_task_names_labels_and_pictures() -> None:
    task = TaskCard("flowers", ("daisy", "rose", "<tulip>"), CardInput((64, 48, 3), (-1.0, 1.0)))
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.2, 0.1, 0.7]], np.float32)
    html = render_task(task, probabilities, np.array([0, 1, 2]))
    parsed = ParsedPage(html)
    assert list(parsed.sections) == ["confusion", "mistakes", "reliability", "card"]
    text = " ".join(parsed.sections["mistakes"].split())
    assert "rose taken for <tulip> 70.0% confidentrose/1.jpg" in text
    assert "rose0 of 1 0.00%" in " ".join(parsed.sections["confusion"].split())
    assert parsed.count("mistakes", "img") == 1
    assert "<tulip>" not in html
    assert "<script" not in html
    assert "Left out as unreadable: 7" in html
    assert re.search(r"Left out as refused in serving: 1\s+\(blank: nothing is written\)", html)
    assert html.count("&lt;damaged&gt;") == 5
    assert "digit" not in html.replace("is_digit", "").replace("versions.digits", "")


def test_render_page_of_many_labels_shows_the_most_confused_pairs() -> None:
    count = 1000
    things = tuple(f"thing {number}" for number in range(count))
    task = TaskCard("things", things, CardInput((8, 8), (0.0, 1.0)))
    labels = np.arange(2 * count) % count
    answers = np.where(labels < 30, labels + 1, labels)
    html = render_task(task, np.eye(count, dtype=np.float32)[answers], labels)
    parsed = ParsedPage(html)
    text = " ".join(parsed.sections["confusion"].split())
    assert "thing 0thing 12 thing 1thing 22" in text
    assert "thing 00 of 2 0.00%" in text
    assert parsed.count("confusion", "tr") == 2 * (1 + MAX_SHOWN_CLASSES)
    assert len(html) < 500_000


def test_render_page_compares_with_the_served_version(fitted: FitResult, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    right = evaluation.probabilities.argmax(axis=1) == dataset.test.labels
    few = np.array([True, True, True, False]), np.array([False, False, True, True])
    comparisons = Comparisons("models/1", {TEST: Comparison(right, right), FEEDBACK: Comparison(*few)})
    numbers = {"train": {"inputs": 128}, "held_out": {"inputs": 4}}
    feedback = {"source": "sqlite:///<f>.db", "weight": 10, **numbers}
    html = render(fitted, dataset, evaluation, comparisons, feedback=feedback)
    text = " ".join(ParsedPage(html).sections["comparison"].split())
    assert "Held-out feedback4 75.00%50.00%21" in text
    assert "128 inputs of sqlite:///<f>.db trained the model, each 10 times; 4 were held out." in text
    assert "Test set1,000" in text


def test_saliency_maps_equal_the_finite_differences_of_the_scores(
    fitted: FitResult, dataset: Dataset
) -> None:
    values = saliency_maps(fitted.model, dataset.test)
    assert values is not None
    pixels, spread, step = dataset.test.pixels, dataset.test.pixels.std(axis=0), 1e-2

    def scores(pixels: np.ndarray) -> np.ndarray:
        logits = np.log(predict(fitted.model, pixels).astype(float)).mean(axis=0)
        return np.asarray(logits - logits.mean())

    for pixel in (14 * 28 + 14, 8 * 28 + 16):
        change = np.zeros(784, np.float32)
        change[pixel] = step * spread[pixel]
        slope = (scores(pixels + change) - scores(pixels - change)) / (2 * step)
        assert slope == pytest.approx(values.reshape(10, 784)[:, pixel], rel=0.02, abs=1e-3)
    # The corner never has ink.
    assert not values[:, 0, 0].any()


def test_saliency_maps_of_other_networks_are_none(dataset: Dataset) -> None:
    relu = keras.Sequential([keras.Input((784,)), layers.Dense(10, "relu"), layers.Dense(10, "softmax")])
    for model in (models.convnet(), relu):
        assert saliency_maps(model, dataset.test[:10]) is None


def test_learning_curves_have_a_line_for_training_and_one_for_validation() -> None:
    history = {"loss": [1.9, 0.4], "accuracy": [0.5, 0.9], "val_loss": [1.1, 0.3], "val_accuracy": [0.7, 0.9]}
    loss, accuracy = report.learning_curves(history)
    assert (loss.name, accuracy.name) == ("loss", "accuracy")
    assert loss.lines == {"training": [(1, 1.9), (2, 0.4)], "validation": [(1, 1.1), (2, 0.3)]}
    assert accuracy.lines["validation"] == [(1, 0.7), (2, 0.9)]
    assert (loss.y.low, loss.y.high, loss.x.ticks) == (0, 2, [1, 2])


def test_learning_curves_of_one_epoch_of_many_and_of_a_fit_that_diverges() -> None:
    loss, accuracy = report.learning_curves({"loss": [0.5], "accuracy": [1.0]})
    assert [loss.x.position(x) for x in (loss.x.low, 1, loss.x.high)] == [0, 0.5, 1]
    assert (loss.x.ticks, list(loss.lines)) == ([1], ["training"])
    assert accuracy.y.low < accuracy.y.high == pytest.approx(1)
    ticks = report.learning_curves({"loss": [0.5] * 150, "accuracy": [0.5] * 150})[0].x.ticks
    assert 3 <= len(ticks) <= 6
    assert all(tick == int(tick) and 1 <= tick <= 150 for tick in ticks)
    loss, _ = report.learning_curves({"loss": [0.5, math.nan, math.inf], "accuracy": [0.9, 0.1, 0.1]})
    assert (loss.lines, loss.x.high) == ({"training": [(1, 0.5)]}, 3)


@pytest.mark.parametrize("correct", [0, 1000])
def test_accuracy_axis_contains_the_intervals_and_ends_at_1(correct: int) -> None:
    accuracies = [Accuracy(correct, 1000), Accuracy(1000, 1000)]
    axis = report.accuracy_axis(accuracies)
    assert axis.low <= min(accuracy.interval[0] for accuracy in accuracies)
    assert axis.high == pytest.approx(1)
    assert 2 <= len(axis.ticks) <= 7
