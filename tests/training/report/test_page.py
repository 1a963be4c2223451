"""."""

import base64
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from digit_training.data import Dataset
from digit_training.evaluation import Evaluation, confusion_matrix, evaluate
from digit_training.export import card
from digit_training.fit import Fit, fit
from digit_training.recipes import RECIPES
from digit_training.report.page import MISTAKES, digits, page, signed


def opened(address: str) -> NDArray[np.uint8]:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_digits_stand_side_by_side(dataset: Dataset) -> None:
    images = dataset.train.images[:3]
    assert np.array_equal(opened(digits(images)), np.hstack(list(images)))


def test_what_speaks_for_is_blue_and_against_is_red() -> None:
    values = np.zeros((28, 28), np.float32)
    values[0, :3] = 1, -1, 4
    picture = opened(signed(values, limit=2)).astype(int)
    (blue, red, strong), ground = picture[0, :3], picture[1, 1]
    assert blue[2] > blue[0] + 100
    assert red[0] > red[2] + 100
    assert (blue[3], red[3], strong[3], ground[3]) == (127, 127, 255, 0)


SECTIONS = ["samples", "curves", "evidence", "confusion", "mistakes", "reliability", "card"]


class Page(HTMLParser):
    """A page taken apart: its tags in order, the text in each section, and that every tag is closed."""

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
        return Counter((where, what) for where, what, _ in self.tags)[section, tag]


def report(fit: Fit, dataset: Dataset, evaluation: Evaluation | None = None) -> str:
    evaluation = evaluation or evaluate(fit.model, dataset.test)
    return page(fit, dataset, evaluation, card(fit.model, dataset, evaluation, fit))


@pytest.fixture(scope="module")
def html(fitted: Fit, dataset: Dataset) -> str:
    return report(fitted, dataset)


@pytest.fixture(scope="module")
def convnet(dataset: Dataset) -> Fit:
    """After a single epoch, some digits held out."""
    return fit(RECIPES["quick"].lasting(1), dataset.train[:1200], seed=0)


def test_a_perceptrons_report_has_every_section(html: str) -> None:
    parsed = Page(html)
    assert list(parsed.sections) == SECTIONS
    assert parsed.count("samples", "img") == 10
    assert parsed.count("curves", "svg") == 2
    assert parsed.count("evidence", "img") == 10
    assert parsed.count("mistakes", "img") == MISTAKES
    assert len(html) < 1_500_000


def test_it_opens_offline_and_runs_nothing(html: str) -> None:
    parsed = Page(html)
    assert "://" not in html
    assert "url(" not in html
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for _, tag, _ in parsed.tags}
    sources = [str(attributes["src"]) for _, _, attributes in parsed.tags if "src" in attributes]
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_every_picture_is_described(html: str) -> None:
    for _, tag, attributes in Page(html).tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_the_confusion_matrix_counts_the_test_digits(fitted: Fit, dataset: Dataset, html: str) -> None:
    matrix = html.partition('<table class="confusion">')[2].partition("</table>")[0]
    counts = np.array([int(count) for count in re.findall(r"<td[^>]*>(\d+)</td>", matrix)]).reshape(10, 10)
    evaluation = evaluate(fitted.model, dataset.test)
    assert np.array_equal(counts, confusion_matrix(dataset.test.labels, evaluation.probabilities))
    assert counts.trace() == round(1000 * evaluation.accuracy)


def test_the_card_is_there_in_full(fitted: Fit, dataset: Dataset, html: str) -> None:
    text = Page(html).sections["card"]
    for name in ("fit, learning rate", "versions, keras", "data, md5, test labels"):
        assert name in text
    assert dataset.md5["test labels"] in text
    assert f"{fitted.model.name} reads" in html


def test_what_comes_from_outside_is_escaped(fitted: Fit, dataset: Dataset) -> None:
    hostile = replace(dataset, source="<script>alert(1)</script>\"'&.npz")
    html = report(fitted, hostile)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert list(Page(html).sections) == SECTIONS


def test_a_convnet_after_one_epoch_has_no_evidence(convnet: Fit, dataset: Dataset) -> None:
    parsed = Page(report(convnet, dataset))
    assert list(parsed.sections) == [name for name in SECTIONS if name != "evidence"]
    assert parsed.count("curves", "circle") == 4
    assert "held out" in parsed.sections["curves"]


def test_an_interrupted_fit_says_so(fitted: Fit, dataset: Dataset, html: str) -> None:
    interrupted = replace(fitted, recipe=fitted.recipe.lasting(9))
    assert "Interrupted" not in html
    assert re.search(r"Interrupted</strong> after 3 of 9 epochs", report(interrupted, dataset))


def test_several_networks_are_told_of(fitted: Fit, dataset: Dataset) -> None:
    three = replace(fitted.recipe, networks=3)
    html = report(replace(fitted, recipe=three, networks=3), dataset)
    assert "<dt>Networks</dt><dd>3</dd><dd>of 3 epochs</dd>" in html
    assert "This is the first of 3 networks" in Page(html).sections["curves"]
    two = report(replace(fitted, recipe=three, networks=2), dataset)
    assert "Interrupted</strong> after 2 of 3 networks" in two


def test_no_mistakes_and_few_digits_are_no_error(fitted: Fit, dataset: Dataset) -> None:
    few = replace(dataset, train=dataset.train[:3], test=dataset.test[:3])
    perfect = Evaluation(1.0, 0.0, np.eye(10, dtype=np.float32)[few.test.labels])
    parsed = Page(report(fitted, few, perfect))
    assert parsed.count("mistakes", "img") == 0
    assert "every test digit right" in parsed.sections["mistakes"]
    assert parsed.count("samples", "img") == len(set(few.train.labels.tolist()))
