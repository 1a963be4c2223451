"""Labelling page: keys, buttons, undo, skip, progress, permission and two people at once, in a real store."""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from digit_client import DIGITS, TaskCard
from digit_core.images import to_png
from digit_serving.feedback.store import FeedbackStore
from digit_serving.gateway.auth import KeyFile
from tests.e2e.page.accessibility import HAS_FOCUS_OUTLINE, VIEWS, assert_accessible, violations
from tests.processes import wait_until
from tests.serving.gateway.conftest import FASHION, SHAPES, StubModelServer, TaskModels, gateway_process
from tests.serving.gateway.test_labelling import sample

pytestmark = pytest.mark.e2e

WORDS = TaskCard("words", tuple(f"word-{number}" for number in range(40)), (28, 28), (0.0, 1.0))
LETTERS = replace(WORDS, name="letters", labels=("B", "A", "S"))

OpenLabelling = Callable[..., Page]


@dataclass(frozen=True)
class Labelling:
    """Gateway with a store of samples, and keys with and without the permission to label."""

    url: str
    store: FeedbackStore
    key: str
    other_key: str

    def add(self, *numbers: int, **fields: Any) -> None:
        """Store a sample of each number, the least confident first."""
        self.store.save([sample(number, number / 100, **fields) for number in numbers])

    def labels(self) -> dict[str, str | None]:
        """Return the labels by request ID."""
        return {record.request_id: record.label for record in self.store.records()}

    def expect(self, labels: Mapping[int, str | None]) -> None:
        """Wait for the labels of these samples, by number."""
        expected = {f"id-{number}": label for number, label in labels.items()}
        wait_until(lambda: expected.items() <= self.labels().items())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labelling]:
    folder = tmp_path_factory.mktemp("labelling")
    keys, store = KeyFile(folder / "keys"), f"sqlite:///{folder}/feedback.db"
    lab, shop = keys.add("lab", may_label=True), keys.add("shop")
    stub = StubModelServer()
    tasks = {task.name: {1: task} for task in (DIGITS, FASHION, SHAPES, WORDS, LETTERS)}
    stub.answer = TaskModels(**tasks)
    models = "fashion,shapes,words,letters"
    settings: dict[str, Any] = {"feedback": store, "api_keys": keys.path, "model_names": models}
    with gateway_process(stub.target, None, **settings) as process, closing(FeedbackStore(store)) as opened:
        yield Labelling(process.url, opened, lab, shop)
    stub.close()


@pytest.fixture
def labelling(gateway: Labelling) -> Labelling:
    """Gateway with an empty store."""
    gateway.store.delete(before=datetime.now(UTC) + timedelta(days=1))
    return gateway


@pytest.fixture
def open_labelling(new_page: Callable[..., Page], labelling: Labelling) -> OpenLabelling:
    """Function that opens the page with a key, by default one that may label."""

    def open_labelling(query: str = "", key: str = labelling.key, **options: Any) -> Page:
        page = new_page(**options)
        page.add_init_script(f"sessionStorage['digits-key'] ??= '{key}'")
        page.goto(f"{labelling.url}/label{query}")
        page.locator("body[data-ready]").wait_for()
        return page

    return open_labelling


def picture(page: Page) -> Any:
    return page.get_by_alt_text("Picture to label")


def number_of(page: Page) -> int:
    """Return the number of the sample that the page shows."""
    source = picture(page).get_attribute("src")
    pictures = {base64.b64encode(sample(number).input).decode(): number for number in range(40)}
    assert source
    return pictures[source.partition(",")[2]]


def press(page: Page, key: str) -> int:
    """Press a key, and return the number of the sample that the page showed before."""
    number = number_of(page)
    page.keyboard.press(key)
    return number


def expect_progress(page: Page, labelled: int, left: int) -> None:
    expect(page.locator("#progress")).to_have_text(f"{labelled} labelled today · {left} left")


def test_keys_label_pictures_once_and_progress_counts_them_until_the_end(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(*range(25))
    page = open_labelling()
    expect_progress(page, 0, 25)
    given: dict[int, str | None] = {}
    for count, label in enumerate("30-9712345", start=1):
        given[press(page, label)] = "" if label == "-" else label
        expect(page.locator("#last")).to_have_text(f"Last: {'no digit' if label == '-' else label}")
        expect_progress(page, count, 25 - count)
    labelling.expect(given)
    assert list(labelling.labels().values()).count(None) == 15
    page.reload()
    expect_progress(page, 10, 15)
    for left in reversed(range(15)):
        given[press(page, "1")] = "1"
        expect_progress(page, 25 - left, left)
    expect(page.get_by_text("Nothing is left to label.")).to_be_visible()
    page.keyboard.press("1")
    labelling.expect(given)
    assert len(given) == 25
    labelling.add(36)
    page.get_by_role("button", name="Look again").click()
    expect(picture(page)).to_be_visible()
    assert number_of(page) == 36


def test_undo_withdraws_the_label_and_the_next_one_replaces_it(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, 2, 3)
    page = open_labelling()
    first = press(page, "3")
    second = press(page, "4")
    assert press(page, "ArrowLeft") not in (first, second)
    assert press(page, "Control+z") == second
    assert number_of(page) == first
    expect_progress(page, 0, 3)
    labelling.expect({first: None, second: None})
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    press(page, "8")
    labelling.expect({first: "8", second: None})
    (record,) = (each for each in labelling.store.records() if each.label)
    assert (record.label, record.source) == ("8", "label")


def test_skipped_pictures_keep_no_label_and_come_again(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, 2, 3)
    page = open_labelling()
    skipped = press(page, "ArrowRight")
    expect(page.locator("#last")).to_have_text("Last: skipped")
    labelled = press(page, "5")
    press(page, "ArrowRight")
    expect(page.get_by_text("Nothing is left but 2 that you skipped.")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    assert number_of(page) not in (skipped, labelled)
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Look again").click()
    expect(picture(page)).to_be_visible()
    assert number_of(page) != labelled
    expect_progress(page, 1, 2)


def test_key_that_is_held_down_labels_one_picture(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, 2, 3)
    page = open_labelling()
    for _ in range(3):
        page.keyboard.down("3")
    page.keyboard.up("3")
    for key in ("x", "Alt+4", "Control+4", "Shift"):
        page.keyboard.press(key)
    expect_progress(page, 1, 2)


def test_key_without_permission_is_told_and_may_be_replaced(
    open_labelling: OpenLabelling, labelling: Labelling, expected_errors: list[str]
) -> None:
    expected_errors += ["403"]
    labelling.add(1)
    page = open_labelling(key=labelling.other_key)
    expect(page.get_by_text("This API key may not label answers.")).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()
    assert violations(page) == []
    page.get_by_role("button", name="Use another key").click()
    page.get_by_label("Labelling requires an API key that may label").fill(labelling.key)
    page.get_by_role("button", name="Use key").click()
    expect(picture(page)).to_be_visible()
    press(page, "1")
    labelling.expect({1: "1"})


def test_second_label_of_two_people_is_not_stored_and_told(
    open_labelling: OpenLabelling, labelling: Labelling, expected_errors: list[str]
) -> None:
    expected_errors += ["409"]
    labelling.add(1)
    one, other = open_labelling(), open_labelling()
    press(one, "3")
    labelling.expect({1: "3"})
    press(other, "8")
    expect(other.get_by_role("alert")).to_have_text(
        "This answer was labelled or replaced since it was shown; the new label was not stored."
    )
    expect(other.get_by_text("Nothing is left to label.")).to_be_visible()
    assert labelling.labels() == {"id-1": "3"}


def test_label_that_cannot_be_stored_comes_again_after_the_current_picture(
    open_labelling: OpenLabelling, labelling: Labelling, expected_errors: list[str]
) -> None:
    expected_errors += ["503"]
    labelling.add(1, 2, 3)
    page = open_labelling()
    problem = {"status": 503, "code": "feedback_unavailable", "detail": ""}
    page.route("**/v1/feedback/labels", lambda route: route.fulfill(status=503, json=problem))
    lost = press(page, "3")
    expect(page.get_by_role("alert")).to_have_text("The service is unavailable. Try again.")
    assert violations(page) == []
    page.unroute("**/v1/feedback/labels")
    expect_progress(page, 0, 3)
    assert press(page, "4") != lost
    assert press(page, "5") == lost
    expect(page.get_by_role("alert")).to_be_empty()
    labelling.expect({lost: "5"})


def test_other_task_has_a_key_for_every_label(open_labelling: OpenLabelling, labelling: Labelling) -> None:
    labelling.add(1, 2, 3, 4, model="fashion")
    page = open_labelling("?model=fashion")
    labels = page.get_by_role("group", name="Labels").get_by_role("button")
    expect(labels).to_have_count(10)
    expect(labels.first).to_have_text("t-shirt1")
    first = press(page, "2")
    second = press(page, "-")
    expect(page.locator("#last")).to_have_text("Last: none of them")
    third = press(page, "0")
    labelling.expect({first: "trouser", second: "", third: "boot"})
    page.get_by_role("button", name="Skip").click()
    page.get_by_role("button", name="Undo").click()
    expect(picture(page)).to_be_visible()
    labelling.add(5, model="letters")
    page.get_by_label("Model").select_option("letters")
    page.wait_for_url("**/label?model=letters")
    page.locator("body[data-ready]").wait_for()
    press(page, "b")
    labelling.expect({5: "B"})


def test_large_input_that_is_not_square_is_shown_whole_and_smooth_and_a_small_one_crisp(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1)
    labelling.add(2, model="shapes", input=to_png(np.zeros((224, 168, 3), np.uint8)))
    for query, rendering in (("", "pixelated"), ("?model=shapes", "auto")):
        page = open_labelling(query)
        expect(picture(page)).to_have_css("image-rendering", rendering)
        assert picture(page).bounding_box() == page.locator("#picture").bounding_box()
    expect(page.locator("#label-keys")).to_have_text("1 to 4")


def test_many_labels_are_searched_by_typing(open_labelling: OpenLabelling, labelling: Labelling) -> None:
    labelling.add(1, 2, model="words")
    page = open_labelling("?model=words", viewport={"width": 1440, "height": 900})
    number = number_of(page)
    page.keyboard.type("W")
    search = page.get_by_label("Search labels")
    expect(search).to_be_focused()
    assert page.evaluate(HAS_FOCUS_OUTLINE)
    page.keyboard.type("ORD-3")
    expect(page.get_by_role("group", name="Labels").get_by_role("button")).to_have_count(11)
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    labelling.expect({number: "word-31"})
    expect(search).to_have_value("")
    number = press(page, "-")
    labelling.expect({number: ""})


def test_page_opens_on_the_model_that_has_something_to_label(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, model="shapes")
    page = open_labelling()
    expect(page.get_by_label("Model")).to_have_value("shapes")
    press(page, "3")
    labelling.expect({1: "square"})
    labelling.add(2)
    page.reload()
    expect(page.get_by_label("Model")).to_have_value("digits")
    assert number_of(page) == 2


@pytest.mark.parametrize("model", ["digits", "words"])
def test_page_before_and_after_the_last_picture_is_accessible(
    open_labelling: OpenLabelling, labelling: Labelling, model: str
) -> None:
    labelling.add(1, model=model)
    page = open_labelling(f"?model={model}")
    assert_accessible(page)
    for width, _ in VIEWS:
        page.set_viewport_size({"width": width, "height": 800})
        for name in ("Skip", "Undo"):
            expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Nothing is left but 1 that you skipped.")).to_be_visible()
    assert_accessible(page)
