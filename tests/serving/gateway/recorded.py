"""Recorded answers: what callers parse stays byte for byte, but for the bytes of PNG files.

`python -m tests.serving.gateway.recorded` rewrites `recorded.json` after an intended change.
"""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
from numpy.typing import NDArray

from digit_client import _api, _formats
from digit_core.artifact.task_card import CardInput, TaskCard
from digit_core.images import to_png
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.grpc_model_server import card_response, request_input
from tests.serving.gateway.helpers import IMAGE
from tests.serving.gateway.stub_model_server import SHAPES, StubModelServer, TaskModels, predict_response

RECORDED = Path(__file__).with_name("recorded.json")
"""Answers by the name of their case, and what `digits predict --json` prints of them."""

ROW = np.array([0.03, 0.01, 0.02, 0.7, 0.06, 0.08, 0.01, 0.05, 0.03, 0.01], np.float32)
"""Probabilities of a three, no short decimals as float64."""
SURE = np.array([0, 0, 0, 0.99, 0.01, 0, 0, 0, 0, 0], np.float32)
TAGS = TaskCard("tags", SHAPES.labels, CardInput(SHAPES.shape, SHAPES.range), threshold=(0.2, 0.3, 0.2, 0.5))
CAREFUL = TaskCard("careful", SHAPES.labels, CardInput(SHAPES.shape, SHAPES.range), refuse_below=0.9)


class Model:
    """Predict handler that answers the inputs with these probabilities, shifted by a class for each input.

    An input that is wider than high is no digit.
    """

    def __init__(
        self, row: NDArray[np.float32] = ROW, is_digit: float = 0.98, card: TaskCard | None = None
    ) -> None:
        self._row, self._is_digit, self.card = row, is_digit, card

    def __call__(self, request: PredictRequest, _: grpc.ServicerContext) -> PredictResponse:
        inputs = request_input(request).reshape(-1, *(self.card.shape if self.card else (28, 28)))
        rows = np.stack([np.roll(self._row, index) for index in range(len(inputs))])
        if self.card:
            return predict_response(rows, 3)
        sizes = [np.ptp(np.argwhere(each), axis=0) if each.any() else (0, 1) for each in inputs]
        shares = [self._is_digit if height >= width else 0.05 for height, width in sizes]
        return predict_response(rows, 3, np.array(shares, np.float32))

    def answer_card(self, _: PredictRequest, __: grpc.ServicerContext) -> PredictResponse:
        assert self.card
        return card_response(json.dumps(self.card.to_document()), 3)


def page(*columns: int) -> NDArray[np.uint8]:
    """Return two lines of strokes, dark on white, at these columns, with a point on the first line."""
    paper = np.full((240, 400), 255, np.uint8)
    for column in columns:
        for top in (20, 140):
            cv2.line(paper, (column, top), (column + 12, top + 70), 0, 12)
    paper[84:90, 90:96] = 0
    return paper


PICTURE = np.full(SHAPES.shape, 80, np.uint8)
MANY = np.array([0.35, 0.25, 0.3, 0.1], np.float32)
CASES: dict[str, tuple[str, NDArray[np.uint8] | list[NDArray[np.uint8]] | None, Any]] = {
    "digit": ("/v1/predict", IMAGE, Model()),
    "digits": ("/v1/predict", [IMAGE // 255, IMAGE // 255], Model()),
    "error in place": ("/v1/predict", [IMAGE // 255, IMAGE[1:]], Model()),
    "top": ("/v1/predict?top=3", IMAGE, Model()),
    "include": ("/v1/predict?include=image,labels", IMAGE, Model()),
    "top and include": ("/v1/predict?top=1&include=labels,image", IMAGE, Model()),
    "no digit": ("/v1/predict", IMAGE, Model(is_digit=0.1)),
    "several digits": ("/v1/predict", page(40, 140), Model()),
    "box": ("/v1/predict", np.minimum(page(140)[:120], np.linspace(150, 250, 400).astype(np.uint8)), Model()),
    "class": ("/v1/predict?include=layers,image", PICTURE, TaskModels(digits={3: SHAPES})),
    "unsure": ("/v1/predict", PICTURE, Model(MANY, card=CAREFUL)),
    "several labels": ("/v1/predict?include=labels", PICTURE, Model(MANY, card=TAGS)),
    "read": ("/v1/read", page(40, 140, 300), Model()),
    "read with images": ("/v1/read?include=image", page(40, 140), Model()),
    "read nothing": ("/v1/read", np.full((60, 60), 255, np.uint8), Model()),
    "read turned": ("/v1/read", np.rot90(page(40, 140)), Model(SURE, 0.99)),
    "read error in place": ("/v1/read", [IMAGE // 255, IMAGE[1:]], Model()),
    "models": ("/v1/models", None, TaskModels(digits={3: TAGS, 2: SHAPES})),
    "models of digits": ("/v1/models", None, Model()),
}


def record(stub: StubModelServer, case: str) -> dict[str, Any]:
    """Return the body of a case's answer, and what the client prints if it can parse the answer."""
    path, pictures, model = CASES[case]
    stub.answer, stub.answer_card = model, model.answer_card if getattr(model, "card", None) else None
    http = greenlet_loop.client(Settings(model_server=stub.target, default_label="", log_level="warning"))
    options: dict[str, Any] = {"headers": {"X-Request-ID": "id"}}
    if isinstance(pictures, list):
        options["json"] = {"instances": [picture.ravel().tolist() for picture in pictures]}
    elif pictures is not None:
        options |= {"data": to_png(pictures), "content_type": "image/png"}
    response = http.open(path, method="GET" if pictures is None else "POST", **options)
    assert response.status_code == 200, response.text
    recorded: dict[str, Any] = {"body": _without_png(response.text)}
    # Clients parse no answer without the probabilities, which `top` replaces.
    if pictures is not None and "top=" not in path:
        recorded["printed"] = [*map(_without_png, _printed(response.text))]
    return recorded


def _printed(body: str) -> list[str]:
    """Return what `digits predict --json` or `digits read --json` prints of each result in an answer."""
    document = json.loads(body)
    parse = _api.parse_predictions if "predictions" in document else _api.parse_readings
    indices = range(len(document.get("predictions") or document["readings"]))
    results = parse(document, indices=indices)
    return [_formats.format_json("a.png", each) for each in results if not isinstance(each, Exception)]


def _without_png(text: str) -> str:
    return re.sub(r'("image": ?")[^".]+"', r'\1PNG"', text)


def main() -> None:
    """Rewrite the recorded answers."""
    with closing(StubModelServer()) as stub:
        answers = {case: record(stub, case) for case in CASES}
    RECORDED.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
