"""Response documents: predictions and readings as JSON values."""

import base64
from collections.abc import Collection, Iterable, Sequence
from heapq import nlargest

from digit_client import Digit, Line, Prediction, Reading, images
from digit_serving.gateway import schemas


def model_document(name: str, version: int, labels: Sequence[str]) -> schemas.Model:
    """Return the model that answered; `labels` names its classes in the order of the probabilities."""
    return {"name": name, "version": version, "labels": labels}


def prediction_documents(
    predictions: Sequence[Prediction], include: Collection[str], top: int | None
) -> list[schemas.Prediction]:
    """Return a document for each prediction of a request, without images.

    `labels` in `include` adds the probability of each label; `top` replaces the probabilities of all classes
    by this number of the most probable ones.
    """
    has_digit = predictions[0].has_digit_labels
    documents = []
    for prediction in predictions:
        document: schemas.Prediction = {
            "label": prediction.label,
            "index": prediction.index,
            "confidence": prediction.confidence,
        }
        if has_digit:
            document["digit"] = prediction.digit
        if prediction.is_digit is not None:
            document["is_digit"] = prediction.is_digit
        if top is None:
            document["probabilities"] = prediction.probabilities
        else:
            document["top"] = _most_probable(prediction, top)
        if "labels" in include:
            document["labels"] = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        documents.append(document)
    return documents


def reading_document(reading: Reading) -> schemas.Reading:
    """Return the document of a reading, without images."""
    return {"text": reading.text, "lines": [_line(line) for line in reading.lines]}


def add_images(
    documents: Iterable[schemas.Prediction] | Iterable[schemas.Digit], inputs: Iterable[images.Pixels]
) -> None:
    """Add the model's input, uint8 [h, w] or [h, w, c], to each document, as a PNG file in base64."""
    for document, pixels in zip(documents, inputs, strict=True):
        document["image"] = base64.b64encode(images.to_png(pixels)).decode()


def _most_probable(prediction: Prediction, count: int) -> list[schemas.RankedClass]:
    ranked = nlargest(count, enumerate(prediction.probabilities), key=lambda pair: pair[1])
    return [
        {"label": prediction.labels[index], "index": index, "probability": probability}
        for index, probability in ranked
    ]


def _line(line: Line) -> schemas.Line:
    return {"text": line.text, "box": line.box, "digits": [_digit(digit) for digit in line.digits]}


def _digit(digit: Digit) -> schemas.Digit:
    return {
        "digit": digit.digit,
        "confidence": digit.confidence,
        "probabilities": digit.probabilities,
        "box": digit.box,
    }
