"""Labelling page: keys, buttons, undo, skip and permission, in a real store."""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from digit_client import DIGITS, CardInput, TaskCard
from digit_core.feedback.records import Seen
from digit_core.feedback.store import FeedbackStore
from digit_core.images import to_png
from digit_core.results import Box
from digit_serving.gateway.auth import KeyFile
from tests.e2e.page.accessibility import VIEWS, assert_accessible, violations
from tests.processes import gateway_process, wait_until
from tests.records import START, sample, sample_reading
from tests.serving.gateway.stub_model_server import FASHION, SHAPES, StubModelServer, TaskModels

pytestmark = pytest.mark.e2e

WORDS = TaskCard("words", tuple(f"word-{number}" for number in range(40)), CardInput((28, 28), (0.0, 1.0)))
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
        """Return the labels by hand, by request ID."""
        return {record.request_id: record.hand_label for record in self.store.records()}

    def expect(self, labels: Mapping[int, str | None]) -> None:
        """Wait for the labels of these samples, by number."""
        expected = {f"request-{number}": label for number, label in labels.items()}
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
    with gateway_process(stub.target, None, **settings) as process:
        yield Labelling(process.url, FeedbackStore(store), lab, shop)
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
    pictures = {base64.b64encode(sample(number).picture).decode(): number for number in range(40)}
    assert source
    return pictures[source.partition(",")[2]]


def press(page: Page, key: str) -> int:
    """Press a key, wait for another picture or the end, and return the number of the sample before."""
    number = number_of(page)
    source = picture(page).get_attribute("src")
    page.keyboard.press(key)
    other = "source => document.querySelector('#picture img')?.src !== source"
    page.wait_for_function(other, arg=source)
    return number


def expect_left(page: Page, left: int) -> None:
    expect(page.locator("#progress")).to_have_text(f"{left} left")


def test_keys_label_pictures_once_until_the_end(open_labelling: OpenLabelling, labelling: Labelling) -> None:
    labelling.add(*range(25))
    page = open_labelling()
    expect_left(page, 25)
    given: dict[int, str | None] = {}
    for count, label in enumerate("30-9712345", start=1):
        given[press(page, label)] = "" if label == "-" else label
        expect(page.locator("#last")).to_have_text(f"Last: {'no digit' if label == '-' else label}")
        expect_left(page, 25 - count)
    labelling.expect(given)
    for left in reversed(range(15)):
        given[press(page, "1")] = "1"
        expect_left(page, left)
    expect(page.get_by_text("Nothing is left to label.")).to_be_visible()
    page.keyboard.press("1")
    labelling.expect(given)
    assert len(given) == 25
    labelling.add(36)
    page.get_by_role("button", name="Look again").click()
    expect(picture(page)).to_be_visible()
    assert number_of(page) == 36


def test_undo_withdraws_the_last_label_and_the_next_one_replaces_it(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, 2, 3)
    page = open_labelling()
    first = press(page, "3")
    press(page, "ArrowLeft")
    assert number_of(page) == first
    expect_left(page, 3)
    labelling.expect({first: None})
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    press(page, "8")
    labelling.expect({first: "8"})


def test_skipped_pictures_come_again_and_a_key_that_is_held_down_labels_one(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, 2, 3, 4)
    page = open_labelling()
    press(page, "ArrowRight")
    labelled = press(page, "5")
    for _ in range(2):
        press(page, "ArrowRight")
    expect(page.get_by_text("Nothing is left but 3 that you skipped.")).to_be_visible()
    page.get_by_role("button", name="Look again").click()
    expect(picture(page)).to_be_visible()
    assert number_of(page) != labelled
    expect_left(page, 3)
    for _ in range(3):
        page.keyboard.down("3")
    page.keyboard.up("3")
    expect_left(page, 2)
    for key in ("x", "Alt+4", "Control+4", "Shift"):
        page.keyboard.press(key)
    expect_left(page, 2)


def test_key_without_permission_is_told_and_may_be_replaced(
    open_labelling: OpenLabelling, labelling: Labelling, expected_errors: list[str]
) -> None:
    expected_errors += ["403"]
    labelling.add(1)
    page = open_labelling(key=labelling.other_key)
    expect(page.get_by_text("This API key may not label pictures.")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Use another key").click()
    page.get_by_label("Labelling requires an API key that may label").fill(labelling.key)
    page.get_by_role("button", name="Use key").click()
    expect(picture(page)).to_be_visible()
    press(page, "1")
    labelling.expect({1: "1"})


def test_picture_that_is_gone_is_told_and_the_next_one_shown(
    open_labelling: OpenLabelling, labelling: Labelling, expected_errors: list[str]
) -> None:
    expected_errors += ["404"]
    labelling.add(1)
    page = open_labelling()
    labelling.store.delete(request_id="request-1")
    press(page, "8")
    expect(page.get_by_role("alert")).to_contain_text("No such picture is stored")
    expect(page.get_by_text("Nothing is left to label.")).to_be_visible()


def test_picture_of_a_label_that_cannot_be_stored_stays(
    open_labelling: OpenLabelling, labelling: Labelling, expected_errors: list[str]
) -> None:
    expected_errors += ["503"]
    labelling.add(1, 2, 3)
    page = open_labelling()
    problem = {"status": 503, "code": "feedback_unavailable", "detail": ""}
    page.route("**/v1/feedback/labels?*", lambda route: route.fulfill(status=503, json=problem))
    number = number_of(page)
    page.keyboard.press("3")
    expect(page.get_by_role("alert")).to_have_text("The service is unavailable. Try again.")
    assert violations(page) == []
    page.unroute("**/v1/feedback/labels?*")
    expect_left(page, 3)
    assert press(page, "5") == number
    expect(page.get_by_role("alert")).to_be_empty()
    labelling.expect({number: "5"})


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
    page.get_by_role("button", name="Undo").click()
    expect_left(page, 2)
    assert number_of(page) == third
    labelling.add(5, model="letters")
    page.get_by_label("Model").select_option("letters")
    page.wait_for_url("**/label?model=letters")
    page.locator("body[data-ready]").wait_for()
    press(page, "b")
    labelling.expect({5: "B"})


def test_one_of_many_labels_is_chosen_by_its_name(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, 2, model="words")
    page = open_labelling("?model=words", viewport={"width": 1440, "height": 900})
    number = number_of(page)
    name = page.get_by_role("combobox", name="Label")
    name.fill("word-311")
    name.press("Enter")
    expect_left(page, 2)
    name.fill("word-31")
    name.press("Enter")
    labelling.expect({number: "word-31"})
    expect(name).to_have_value("")


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
    page.get_by_role("button", name="Skip").click()
    expect(page.get_by_text("Nothing is left but 1 that you skipped.")).to_be_visible()
    assert_accessible(page)


def add_reading(
    labelling: Labelling, candidates: list[str], confidence: float = 0.5, width: int = 100
) -> None:
    """Store a reading of two digits, and the whole with these candidates."""
    whole, *parts = sample_reading("17", sent_at=START, caller=f"caller-{width}")
    reading = Seen(boxes=[(10, 10, 20, 20), (width - 30, 10, 20, 20)], candidates=candidates)
    picture = to_png(np.full((40, width), 200, np.uint8))
    labelling.store.save([*parts, replace(whole, picture=picture, reading=reading, confidence=confidence)])


def expect_numbers(labelling: Labelling, *expected: str | None) -> None:
    """Wait for these labels of the readings."""

    def labels() -> set[str | None]:
        return {record.hand_label for record in labelling.store.records() if record.reading}

    wait_until(lambda: labels() == {*expected})


def test_candidate_of_a_number_has_a_key_and_none_is_preselected(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    candidates = ["17", "<b>1</b>", "117"]
    add_reading(labelling, candidates, 0.1)
    labelling.add(30)
    page = open_labelling()
    buttons = page.get_by_role("group", name="Labels").get_by_role("button")
    expect(buttons).to_have_text([f"{text}{key}" for text, key in zip(candidates, "abc", strict=True)])
    expect(page.get_by_role("textbox", name="Number")).to_have_value("")
    assert page.evaluate("document.activeElement === document.body")
    assert_accessible(page)
    page.keyboard.press("c")
    expect(page.locator("#last")).to_have_text("Last: 117")
    # A digit comes next, whose keys are its labels.
    expect(buttons).to_have_count(10)
    expect(page.get_by_role("textbox", name="Number")).to_be_hidden()
    page.keyboard.press("c")
    expect_left(page, 1)
    expect_numbers(labelling, "117")
    page.keyboard.press("ArrowLeft")
    expect(buttons).to_have_count(3)
    page.keyboard.press("a")
    expect_numbers(labelling, "17")
    assert {"1", "7"} <= {record.hand_label for record in labelling.store.records()}


def test_number_is_typed_and_stored_by_enter(open_labelling: OpenLabelling, labelling: Labelling) -> None:
    for number, width in enumerate((100, 120, 140)):
        add_reading(labelling, [], number / 10, width)
    page = open_labelling()
    field = page.get_by_role("textbox", name="Number")
    page.keyboard.press("Enter")
    expect_left(page, 3)
    page.keyboard.type("12/3")
    for _ in range(2):
        page.keyboard.press("Enter")
    expect_left(page, 2)
    expect(field).to_have_value("")
    page.keyboard.type("4x")
    page.keyboard.press("Enter")
    assert field.evaluate("field => field.validity.valid") is False
    expect_left(page, 2)
    page.keyboard.press("Escape")
    expect(field).to_have_value("")
    page.keyboard.press("-")
    expect_left(page, 1)
    field.fill("5")
    for _ in range(2):
        page.get_by_role("button", name="Store").click()
    expect(page.get_by_text("Nothing is left to label.")).to_be_visible()
    expect_numbers(labelling, "123", "", "5")


def test_number_of_another_length_is_asked_for_once(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    add_reading(labelling, ["17", "77"])
    page = open_labelling()
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(
        "The picture seems to show 2 digits. Press Enter again to store 1."
    )
    assert violations(page) == []
    page.keyboard.type("23")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Press Enter again to store 123.")
    expect_left(page, 1)
    page.keyboard.press("Enter")
    expect(page.locator("#last")).to_have_text("Last: 123")
    expect_numbers(labelling, "123")


@pytest.mark.parametrize("box", [None, (2, 3, 20, 6)])
def test_single_digit_of_a_refused_reading_is_asked_for_once(
    open_labelling: OpenLabelling, labelling: Labelling, box: Box | None
) -> None:
    whole, *_ = sample_reading("17", sent_at=START)
    labelling.store.save([replace(whole, box=box, predicted="", reading=Seen(boxes=[], candidates=[]))])
    page = open_labelling()
    expect(page.locator("#picture i")).to_have_count(1 if box else 0)
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Press Enter again to store 1.")
    page.keyboard.press("Enter")
    expect(page.locator("#last")).to_have_text("Last: 1")
    expect_numbers(labelling, "1")


def test_page_of_digits_links_to_the_labels(open_labelling: OpenLabelling) -> None:
    page = open_labelling()
    page.goto(page.url.removesuffix("label"))
    page.get_by_role("link", name="Label pictures").click()
    expect(page).to_have_title("Label pictures")


def test_digits_of_a_number_are_outlined_in_a_picture_as_wide_as_the_column(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    add_reading(labelling, ["1", "17"])
    page = open_labelling()
    image: Any = picture(page).bounding_box()
    assert image == page.locator("#picture").bounding_box()
    assert image["width"] / image["height"] == pytest.approx(2.5, rel=0.01)
    first, last = (each.bounding_box() for each in page.locator("#picture i").all())
    assert first
    assert last
    assert first["x"] - image["x"] == pytest.approx(image["width"] * 0.1, abs=1)
    assert last["x"] - image["x"] == pytest.approx(image["width"] * 0.7, abs=1)
    for outline in (first, last):
        assert outline["y"] - image["y"] == pytest.approx(image["height"] * 0.25, abs=1)
        assert outline["height"] == pytest.approx(image["height"] * 0.5, abs=1)
    for width, _ in VIEWS:
        page.set_viewport_size({"width": width, "height": 800})
        for name in ("Store", "Skip", "Undo"):
            expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)


def test_part_that_the_label_is_about_is_outlined(
    open_labelling: OpenLabelling, labelling: Labelling
) -> None:
    labelling.add(1, picture=to_png(np.zeros((50, 100), np.uint8)), box=(25, 10, 20, 30))
    page = open_labelling()
    image: Any = picture(page).bounding_box()
    outline: Any = page.locator("#picture i").bounding_box()
    assert outline["x"] - image["x"] == pytest.approx(image["width"] * 0.25, abs=1)
    # The picture lies in the middle of a square.
    assert outline["y"] - image["y"] == pytest.approx(image["height"] * 0.35, abs=1)
    assert outline["height"] == pytest.approx(image["height"] * 0.3, abs=1)
