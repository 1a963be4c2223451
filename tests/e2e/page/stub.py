"""Gateway of any tasks inside the browser's routing: the page's files, and predictions by brightness.

It has no reader.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import werkzeug
from numpy.typing import NDArray
from playwright.sync_api import BrowserContext, Request, Route

import digit_serving.gateway
from digit_client import TaskCard
from digit_core import images

ORIGIN = "http://stub.test"
STATIC = Path(digit_serving.gateway.__file__).with_name("static")
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

Classify = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]
"""Probabilities of a prepared picture."""


class StubGateway:
    """Answers the page as the gateway does, with version 1 of each task's model; the first is the default.

    With `takes_feedback`, the service keeps the fields of each feedback.
    """

    def __init__(
        self, *tasks: TaskCard, classify: Classify | None = None, takes_feedback: bool = False
    ) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.requests: list[Request] = []
        self.feedback: list[dict[str, Any]] = []
        self._classify = classify
        self._takes_feedback = takes_feedback

    def serve(self, context: BrowserContext) -> None:
        """Answer the context's requests to ORIGIN."""
        context.route(f"{ORIGIN}/**", self._answer)

    def _answer(self, route: Route) -> None:
        self.requests.append(route.request)
        url = urlsplit(route.request.url)
        if not url.path.startswith("/v1/"):
            file = STATIC / (url.path.removeprefix("/static/").strip("/") or "index.html")
            return route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])
        name = parse_qs(url.query).get("model", [next(iter(self.tasks))])[0]
        if name not in self.tasks:
            problem = {"status": 404, "code": "model_not_found", "detail": f"No model is named {name}."}
            return route.fulfill(status=404, json=problem)
        task = self.tasks[name]
        if url.path == "/v1/read":
            problem = {"status": 404, "code": "reader_missing", "detail": "The service has no reader."}
            return route.fulfill(status=404, json=problem)
        if url.path == "/v1/feedback" and self._takes_feedback:
            self.feedback.append(fields_of(route.request))
            receipt = {"request_id": "feedback", "index": 0, "pictures": 1}
            return route.fulfill(json={"request_id": "feedback", "feedback": receipt})
        if url.path == "/v1/models":
            return route.fulfill(json=self._describe(task))
        return route.fulfill(json=self._predict(task, route.request))

    def _describe(self, task: TaskCard) -> dict[str, Any]:
        versions = [{"version": 1, "state": "AVAILABLE"}]
        return {
            "name": task.name,
            "versions": versions,
            "version_labels": {},
            "task": task.to_document(),
            "models": [*self.tasks],
            "feedback": self._takes_feedback,
        }

    def _predict(self, task: TaskCard, request: Request) -> dict[str, Any]:
        predictions = []
        for pixels in inputs_of(request, task):
            probabilities = self._probabilities(pixels, task)
            index = int(probabilities.argmax())
            image = base64.b64encode(images.to_png(pixels)).decode()
            predictions.append(
                {
                    "label": None if task.is_multi_label else task.labels[index],
                    "index": index,
                    "confidence": float(probabilities[index]),
                    "probabilities": probabilities.tolist(),
                    "refusal": None,
                    "image": image,
                }
            )
            if task.is_multi_label:
                named = np.array(task.labels)[probabilities >= task.thresholds]
                predictions[-1]["predicted_labels"] = named.tolist()
        model = {"name": task.name, "version": 1, "labels": list(task.labels)}
        return {"model": model, "predictions": predictions, "request_id": f"request-{len(self.requests)}"}

    def _probabilities(self, pixels: NDArray[np.uint8], task: TaskCard) -> NDArray[np.floating[Any]]:
        """Without `classify`, brighter pictures have later labels, and neighbours are likely, too."""
        if self._classify:
            return self._classify(pixels)
        place = pixels.mean() / 255 * (len(task.labels) - 1)
        weights = np.exp(-np.abs(np.arange(len(task.labels)) - place))
        probabilities: NDArray[np.floating[Any]] = weights / weights.sum()
        return probabilities


def inputs_of(request: Request, task: TaskCard) -> list[NDArray[np.uint8]]:
    """Return the prepared pictures of a request: its file, data URLs, or instances in the task's range."""
    body = request.post_data_buffer or b""
    if request.headers.get("content-type") != "application/json":
        return [images.prepare(images.decode(body), task)]
    document = json.loads(body)
    if "instances" in document:
        low, high = task.range
        instances = np.array(document["instances"])
        assert low <= instances.min() <= instances.max() <= high
        scaled = np.rint((instances - low) / (high - low) * 255)
        return [*scaled.astype(np.uint8).reshape(-1, *task.shape)]
    files = [base64.b64decode(url.partition(",")[2]) for url in document["images"]]
    return [images.prepare(images.decode(file), task) for file in files]


def fields_of(request: Request) -> dict[str, Any]:
    """Return the label and the boxes of a form with a file."""
    data, kind = request.post_data_buffer, request.headers["content-type"]
    with werkzeug.Request.from_values(method="POST", data=data, content_type=kind) as sent:
        assert [*sent.files] == ["image"]
        return {"label": sent.form["label"], "boxes": sent.form.getlist("box")}
