"""Task cards: TOML files, minimal cards of labels, and completion from the model."""

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from digit_core.artifact.task_card import DIGITS
from digit_training import cards
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
        ({"prepare": {"kind": "digits"}}, (784,), (DIGITS.shape, (0, 255), "digits")),
    ],
    ids=["of the model", "of the card", "of the digits"],
)
def test_complete_takes_from_the_model_what_the_card_leaves_out(
    stated: dict[str, Any], shape: tuple[int, ...], expected: tuple[Any, ...]
) -> None:
    task = cards.complete({**LABELS, **stated}, model_of(shape, layers.Rescaling(1 / 255)), "probabilities")
    assert (task.shape, task.range, task.kind) == expected


def test_complete_keeps_only_multi_label_of_the_output() -> None:
    model, document = model_of((18, 12, 3), layers.Rescaling(1 / 255)), {**LABELS, "threshold": 0.25}
    assert cards.complete(document, model, "multi-label").thresholds == (0.25, 0.25)
    assert not cards.complete({**LABELS, "output": "logits"}, model, "logits").is_multi_label
    with pytest.raises(CardError, match="threshold needs output = 'multi-label'"):
        cards.complete(document, model, "probabilities")
    assert cards.output_of({"output": "multi-label"}) == "multi-label"
    with pytest.raises(CardError, match="or multi-label, not 'softmax'"):
        cards.output_of({"output": "softmax"})


@pytest.mark.parametrize(
    ("document", "shape", "message"),
    [
        (LABELS, (18, 12, 3), "first layers do not tell the range of its pixels: state range under .input."),
        (LABELS, (None, None, 3), r"the model takes \[n, any, any, 3\]: state shape under .input."),
        (LABELS, (784,), r"the model takes \[n, 784\]: state shape under .input."),
        ({**LABELS, "input": {"range": [0, 1], "size": 3}}, (18, 12, 3), "unknown key 'size'"),
        ({**LABELS, "inptu": {"shape": [9, 9]}}, (None, None, 3), "unknown key 'inptu'"),
        ({**LABELS, "input": 3}, (18, 12, 3), "'input' must be a table"),
        ({"name": "flowers"}, (18, 12, 3), "state range"),
    ],
)
def test_complete_incomplete_or_invalid_card_raises_card_error(
    document: dict[str, Any], shape: tuple[int | None, ...], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        cards.complete(document, model_of(shape), "probabilities")


def test_minimal_is_named_after_the_file_and_splits_labels() -> None:
    assert cards.minimal(Path("my models/tulips & co (2).keras"), "a, b,c") == {
        "name": "tulips-co-2",
        "labels": ["a", "b", "c"],
    }
    assert cards.minimal(Path("ß.keras"), "a,b")["name"] == "model"
