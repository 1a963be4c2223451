"""Task cards: TOML files, minimal cards of labels, and completion from the model."""

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from digit_core.artifact.task_card import DIGITS
from digit_training import cards
from digit_training.classifier import Convention
from digit_training.errors import CardError


def model_of(shape: tuple[int | None, ...], *first: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *first, layers.Flatten(), layers.Activation("softmax")])


LABELS = {"name": "flowers", "labels": ["daisy", "rose"]}


@pytest.mark.parametrize(
    ("stated", "shape", "expected"),
    [
        ({}, (18, 12, 3), ((18, 12, 3), (0, 255), "resize")),
        (
            {"input": {"shape": [18, 12, 1], "range": [0, 1]}, "prepare": {"kind": "none"}},
            (18, 12),
            ((18, 12, 1), (0, 1), "none"),
        ),
        ({"prepare": {"kind": "none"}}, (3, 18, 12), ((18, 12, 3), (0, 255), "none")),
        ({"prepare": {"kind": "digits"}}, (784,), (DIGITS.shape, (0, 255), "digits")),
    ],
    ids=["of the model", "of the card", "channels first", "of the digits"],
)
def test_complete_takes_from_the_model_what_the_card_leaves_out(
    stated: dict[str, Any], shape: tuple[int, ...], expected: tuple[Any, ...]
) -> None:
    task, _ = cards.complete({**LABELS, **stated}, model_of(shape, layers.Rescaling(1 / 255)))
    assert (task.shape, task.range, task.kind) == expected


def test_complete_keeps_only_multi_label_of_the_output() -> None:
    model, document = model_of((18, 12, 3), layers.Rescaling(1 / 255)), {**LABELS, "threshold": 0.25}
    task, convention = cards.complete({**document, "output": "multi-label"}, model)
    assert (task.threshold, convention.output) == ((0.25, 0.25), "multi-label")
    task, convention = cards.complete({**LABELS, "output": "logits", "output_name": "kind"}, model)
    assert (task.is_multi_label, convention) == (False, Convention("logits", "kind"))
    with pytest.raises(CardError, match="threshold needs output = 'multi-label'"):
        cards.complete(document, model)


def test_complete_makes_mean_deviation_and_order_of_colors_a_convention_of_the_model() -> None:
    pixels = {"range": [0, 255], "mean": [103.939, 116.779, 123.68], "std": 58}
    document = {**LABELS, "input": pixels, "prepare": {"color": "bgr"}}
    task, convention = cards.complete(document, model_of((18, 12, 3)))
    assert (task.range, task.prepare.color) == ((0, 255), "rgb")
    assert convention == Convention(mean=(103.939, 116.779, 123.68), std=(58.0,), is_bgr=True)


def test_with_entries_replaces_keys_within_tables() -> None:
    document = {**LABELS, "input": {"shape": [9, 9], "range": [0, 1]}}
    entries = {"name": "roses", "input": {"range": [-1, 1]}, "prepare": {"fit": "pad"}}
    assert cards.with_entries(document, entries) == {
        **document | entries,
        "input": {"shape": [9, 9], "range": [-1, 1]},
    }


@pytest.mark.parametrize(
    ("document", "shape", "message"),
    [
        (LABELS, (18, 12, 3), "first layers do not tell the range of its pixels: say .* --range 0,1"),
        (LABELS, (None, None, 3), r"takes \[n, any, any, 3\]: say by --shape, .* such as 224,224,3"),
        (LABELS, (500,), r"the model takes \[n, 500\]: say by --shape, .* such as 20,25"),
        (LABELS, (18, 12, 2), r"takes \[n, 18, 12, 2\], and a picture has 1, 3 or 4 channels"),
        ({**LABELS, "inptu": {"shape": [9, 9]}}, (None, None, 3), "unknown key 'inptu'"),
        ({**LABELS, "input": 3}, (18, 12, 3), r"\[input\] must be a table"),
        ({"name": "flowers"}, (18, 12, 3), "--range"),
        ({**LABELS, "output": "softmax"}, (18, 12, 3), "or multi-label, not 'softmax'"),
        ({**LABELS, "input": {"range": [0, 1], "mean": ["a"]}}, (18, 12, 3), "mean must be one number"),
        ({**LABELS, "input": {"range": [0, 1], "mean": [1, 2]}}, (18, 12, 3), "one for each of 3 channels"),
        ({**LABELS, "input": {"range": [0, 1], "std": 0}}, (18, 12, 3), "and std must not be 0"),
    ],
)
def test_complete_incomplete_or_invalid_card_raises_card_error(
    document: dict[str, Any], shape: tuple[int | None, ...], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        cards.complete(document, model_of(shape))


def test_named_after_keeps_what_a_name_may_have() -> None:
    assert cards.named_after(Path("my models/tulips & co (2).keras")) == {"name": "tulips-co-2"}
    assert cards.named_after(Path("Übung façade.keras")) == {"name": "Ubung-facade"}
    assert cards.named_after(Path("ß.keras")) == {"name": "model"}
