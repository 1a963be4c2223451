"""Recognition: the cascade of /v1/predict, and /v1/read, with a model server that gives `is_digit`."""

import base64
import io
from dataclasses import replace
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import ExifTags, Image
from werkzeug.test import TestResponse

from digit_client import TaskCard
from digit_client.images import decode, prepare, to_png
from digit_client.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import (
    FASHION,
    SHAPES,
    StubModelServer,
    TaskModels,
    TemplateModel,
    draw_number,
    npy,
)

Pixels = NDArray[np.uint8]


@pytest.fixture
def model(stub: StubModelServer, digits: Any) -> TemplateModel:
    """Model of the stub: it recognises typical digits, and refuses everything else."""
    stub.answer = model = TemplateModel(digits)
    return model


@pytest.fixture
def http(stub: StubModelServer, model: TemplateModel) -> FlaskClient:
    return greenlet_loop.client(Settings(model_server=stub.target))


def post(http: FlaskClient, path: str, *pictures: Pixels) -> TestResponse:
    """Send pictures as PNG files, one as the body, several as a form."""
    files = [to_png(picture) for picture in pictures]
    if len(files) == 1:
        return http.post(path, data=files[0], content_type="image/png")
    return http.post(path, data={"image": [(io.BytesIO(file), "a.png") for file in files]})


def assert_refused(response: TestResponse, code: str, **fields: Any) -> str:
    """Return the detail of a problem with status 422, this code and these fields."""
    document: dict[str, Any] = response.get_json(force=True)
    assert (response.status_code, document["code"]) == (422, code), response.text
    assert document.items() >= fields.items()
    detail: str = document["detail"]
    return detail


def draw_cross() -> Pixels:
    """Return two crossed strokes, dark on white: no digit."""
    picture = np.full((200, 200), 255, np.uint8)
    cv2.line(picture, (50, 50), (150, 150), 0, 12)
    cv2.line(picture, (150, 50), (50, 150), 0, 12)
    return picture


def texts(response: TestResponse) -> list[str]:
    assert response.status_code == 200, response.text
    return [reading["text"] for reading in response.get_json()["readings"]]


class TestPredict:
    def test_predict_accepted_digit_needs_one_call(
        self, http: FlaskClient, model: TemplateModel, digits: Any
    ) -> None:
        (prediction,) = post(http, "/v1/predict", draw_number(digits, "3")).get_json()["predictions"]
        assert prediction["digit"] == 3
        assert 0.5 <= prediction["is_digit"] <= 1
        assert model.sizes == [1]

    def test_predict_model_without_is_digit_omits_it(self, stub_http: FlaskClient, digits: Any) -> None:
        (prediction,) = post(stub_http, "/v1/predict", digits.one(7)).get_json()["predictions"]
        assert set(prediction) == {"label", "index", "digit", "confidence", "probabilities"}

    def test_predict_number_is_refused_with_count(self, http: FlaskClient, digits: Any) -> None:
        response = post(http, "/v1/predict", draw_number(digits, "27"))
        detail = assert_refused(response, "several_digits", count=2, index=0)
        assert "/v1/read" in detail

    def test_predict_no_digit_is_refused(self, http: FlaskClient) -> None:
        assert_refused(post(http, "/v1/predict", draw_cross()), "no_digit", index=0)

    def test_predict_blank_picture_is_refused_without_call(
        self, http: FlaskClient, model: TemplateModel
    ) -> None:
        blank = np.full((100, 100), 255, np.uint8)
        assert_refused(post(http, "/v1/predict", blank), "no_digit", index=0)
        assert model.sizes == []

    def test_predict_refused_picture_among_several_has_its_index(
        self, http: FlaskClient, digits: Any
    ) -> None:
        three = draw_number(digits, "3")
        response = post(http, "/v1/predict", three, draw_number(digits, "27"), three)
        assert_refused(response, "several_digits", count=2, index=1)
        assert_refused(post(http, "/v1/predict", three, three, draw_cross()), "no_digit", index=2)

    def test_predict_second_call_rescues_digits(
        self, http: FlaskClient, model: TemplateModel, digits: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Normalisation that finds a cross instead of the digit.
        monkeypatch.setattr(
            "digit_client.images.preparation.normalise", lambda _: cv2.resize(255 - draw_cross(), (28, 28))
        )
        pictures = [draw_number(digits, "3"), draw_number(digits, "5")]
        response = post(http, "/v1/predict?include=image", *pictures)
        assert response.status_code == 200, response.text
        predictions = response.get_json()["predictions"]
        assert [prediction["digit"] for prediction in predictions] == [3, 5]
        assert len(model.sizes) == 2, "the refused pictures share a call"
        # Each image is the input of the second call that gave the answer.
        images = [decode(base64.b64decode(prediction["image"])) for prediction in predictions]
        again = http.post("/v1/predict", data=npy(np.stack(images)), content_type="application/x-npy")
        assert [prediction["digit"] for prediction in again.get_json()["predictions"]] == [3, 5]

    def test_predict_input_in_models_form_is_never_refused(
        self, http: FlaskClient, model: TemplateModel
    ) -> None:
        cross = np.zeros((28, 28), np.uint8)
        cross[4:24, 4:24] = np.maximum(np.eye(20), np.eye(20)[::-1]) * 255
        instances = http.post("/v1/predict", json={"instances": (cross.reshape(1, 784) / 255).tolist()})
        array = http.post("/v1/predict", data=npy(cross[None]), content_type="application/x-npy")
        for response in (instances, array):
            assert response.status_code == 200
            assert response.get_json()["predictions"][0]["is_digit"] < 0.5
        assert model.sizes == [1, 1]

    def test_predict_array_in_another_form_may_be_refused(self, http: FlaskClient) -> None:
        off_centre = np.pad(255 - cv2.resize(draw_cross(), (20, 20)), ((0, 8), (0, 8)))
        response = http.post("/v1/predict", data=npy(off_centre[None]), content_type="application/x-npy")
        assert_refused(response, "no_digit", index=0)

    def test_predict_second_call_goes_to_version_of_first(
        self, stub: StubModelServer, model: TemplateModel, digits: Any
    ) -> None:
        http = greenlet_loop.client(
            Settings(model_server=stub.target, default_label="stable", canary_share=1)
        )
        model.version = 8
        assert_refused(post(http, "/v1/predict", draw_number(digits, "27")), "several_digits")
        first, second = model.specs
        assert first.version_label == "canary"
        assert (second.version_label, second.version.value) == ("", 8)

    def test_predict_version_unloaded_between_calls_is_unavailable(
        self, stub: StubModelServer, http: FlaskClient, model: TemplateModel, digits: Any
    ) -> None:
        def answer_newest_only(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
            if request.model_spec.version.value:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
            return model(request, context)

        stub.answer = answer_newest_only
        response = post(http, "/v1/predict", draw_number(digits, "27"))
        assert (response.status_code, response.get_json(force=True)["code"]) == (503, "model_unavailable")


class TestRead:
    def test_read_number_returns_text_and_boxes(
        self, http: FlaskClient, model: TemplateModel, digits: Any
    ) -> None:
        response = post(http, "/v1/read", draw_number(digits, "2026"))
        document = response.get_json()
        assert document["model"] == {"name": "digits", "version": 1, "labels": list("0123456789")}
        assert document["request_id"] == response.headers["X-Request-ID"]
        (reading,) = document["readings"]
        (line,) = reading["lines"]
        assert reading["text"] == line["text"] == "2026"
        assert [digit["digit"] for digit in line["digits"]] == [2, 0, 2, 6]
        for position, digit in enumerate(line["digits"]):
            left, top, width, height = digit["box"]
            assert 112 * position <= left < left + width <= 112 * (position + 1)
            assert 0 <= top < top + height <= 112
            assert 0.9 < digit["confidence"] <= digit["probabilities"][digit["digit"]]
        assert len(model.sizes) == 1

    def test_read_lines_are_in_reading_order(self, http: FlaskClient, digits: Any) -> None:
        response = post(http, "/v1/read", draw_number(digits, "31", "70"))
        assert texts(response) == ["31\n70"]

    def test_read_every_body_format_gives_same_texts(self, http: FlaskClient, digits: Any) -> None:
        images = np.stack([digits.one(digit) for digit in (3, 5)])
        encoded = [base64.b64encode(to_png(image)).decode() for image in images]
        for response in (
            post(http, "/v1/read", *images),
            http.post("/v1/read", json={"images": encoded}),
            http.post("/v1/read", json={"instances": (images.reshape(-1, 784) / np.float32(255)).tolist()}),
            http.post("/v1/read", data=npy(images), content_type="application/x-npy"),
        ):
            assert texts(response) == ["3", "5"]

    def test_read_include_image_returns_input_of_each_digit(self, http: FlaskClient, digits: Any) -> None:
        response = post(http, "/v1/read?include=image", draw_number(digits, "27", "4"))
        (reading,) = response.get_json()["readings"]
        found = [digit for line in reading["lines"] for digit in line["digits"]]
        images = np.stack([decode(base64.b64decode(digit["image"])) for digit in found])
        assert images.shape == (3, 28, 28)
        again = http.post("/v1/predict", data=npy(images), content_type="application/x-npy").get_json()
        for digit, prediction in zip(found, again["predictions"], strict=True):
            assert prediction["probabilities"] == pytest.approx(digit["probabilities"], abs=1e-6)

    def test_read_boxes_refer_to_turned_picture_at_full_size(self, http: FlaskClient, digits: Any) -> None:
        # Larger JPEGs than segmentation needs are decoded downscaled.
        picture = np.pad(draw_number(digits, "27", scale=40), 200, constant_values=255)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        file = io.BytesIO()
        Image.fromarray(np.rot90(picture)).save(file, "JPEG", exif=exif)
        response = http.post("/v1/read", data=file.getvalue(), content_type="image/jpeg")
        assert texts(response) == ["27"]
        (line,) = response.get_json()["readings"][0]["lines"]
        for position, digit in enumerate(line["digits"]):
            left, top, width, height = digit["box"]
            assert 200 + 1120 * position <= left < left + width <= 200 + 1120 * (position + 1)
            assert 200 <= top < top + height <= 200 + 1120
            assert height > 600

    def test_read_no_digit_is_refused_with_index(self, http: FlaskClient, digits: Any) -> None:
        number = draw_number(digits, "27")
        assert_refused(post(http, "/v1/read", draw_cross()), "no_digit", index=0)
        assert_refused(post(http, "/v1/read", number, draw_cross()), "no_digit", index=1)

    def test_read_more_digits_than_max_digits_is_refused(
        self, stub: StubModelServer, model: TemplateModel, digits: Any
    ) -> None:
        http = greenlet_loop.client(Settings(model_server=stub.target, max_digits=2))
        assert texts(post(http, "/v1/read", draw_number(digits, "27"))) == ["27"]
        response = post(http, "/v1/read", draw_number(digits, "2"), draw_number(digits, "270"))
        assert_refused(response, "too_many_digits", index=1)

    def test_read_more_candidates_than_max_images_takes_several_calls(
        self, stub: StubModelServer, model: TemplateModel, digits: Any
    ) -> None:
        http = greenlet_loop.client(Settings(model_server=stub.target, max_images=2))
        response = post(http, "/v1/read", draw_number(digits, "2026"), draw_number(digits, "3"))
        assert texts(response) == ["2026", "3"]
        assert len(model.sizes) > 2
        assert max(model.sizes) <= 2

    def test_read_named_version_answers(self, http: FlaskClient, model: TemplateModel, digits: Any) -> None:
        response = post(http, "/v1/read?version=4", draw_number(digits, "27"))
        assert response.get_json()["model"]["version"] == 4
        assert [spec.version.value for spec in model.specs] == [4]

    def test_read_unusable_image_is_refused(self, http: FlaskClient) -> None:
        response = http.post("/v1/read", data=b"hello", content_type="image/png")
        assert (response.status_code, response.get_json(force=True)["code"]) == (400, "not_an_image")


LETTERS = TaskCard("letters", tuple("abcdefghij"), (28, 28), (0.0, 1.0), "digits")
"""Task that frames what is written, but reads no numbers."""
EXACT = replace(SHAPES, kind="none")


def photo(seed: int, height: int = 90, width: int = 120) -> Pixels:
    """Return a blurred colour picture, uint8 [h, w, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (width, height)), np.uint8)


class TestOtherTasks:
    """Tasks without a cascade: each request is one call."""

    @pytest.mark.parametrize("task", [FASHION, SHAPES, replace(SHAPES, fit="pad")], ids=str)
    def test_predict_files_are_prepared_as_the_card_says(
        self, stub: StubModelServer, http: FlaskClient, task: TaskCard
    ) -> None:
        stub.answer = models = TaskModels(digits={1: task})
        pictures = [photo(0), photo(1, 30, 200), photo(2, 400, 40)]
        response = post(http, "/v1/predict?include=image", *pictures)
        assert response.status_code == 200, response.text
        document = response.get_json()
        assert document["model"] == {"name": "digits", "version": 1, "labels": list(task.labels)}
        expected = np.stack([prepare(decode(to_png(picture)), task) for picture in pictures])
        (batch,) = models.inputs
        assert np.array_equal(batch, expected)
        for prediction, row in zip(document["predictions"], expected, strict=True):
            assert set(prediction) == {"label", "index", "confidence", "probabilities", "image"}
            assert prediction["label"] == task.labels[prediction["index"]]
            assert len(prediction["probabilities"]) == len(task.labels)
            assert np.array_equal(decode(base64.b64decode(prediction["image"])), row)

    def test_predict_files_for_large_model_are_sent_in_several_calls(
        self, stub: StubModelServer, http: FlaskClient
    ) -> None:
        task = replace(SHAPES, shape=(1400, 1400, 3))
        stub.answer = models = TaskModels(digits={1: task})
        greys = [0, 100, 255, 100, 0]
        pictures = [np.full((5, 5), grey, np.uint8) for grey in greys]
        response = post(http, "/v1/predict?include=image", *pictures)
        assert [len(batch) for batch in models.inputs] == [2, 2, 1]
        predictions = response.get_json()["predictions"]
        labels = ["circle", "cross", "star", "cross", "circle"]
        assert [prediction["label"] for prediction in predictions] == labels
        shown = [decode(base64.b64decode(prediction["image"]))[0, 0] for prediction in predictions]
        assert [pixel.tolist() if pixel.ndim else [int(pixel)] * 3 for pixel in shown] == [
            [grey] * 3 for grey in greys
        ]
        files = [to_png(picture) for picture in pictures[:3]] + [b"no picture"]
        form = {"image": [(io.BytesIO(file), "a.png") for file in files]}
        refused = http.post("/v1/predict", data=form)
        assert (refused.get_json()["code"], refused.get_json()["index"]) == ("not_an_image", 3)

    def test_predict_arrays_and_instances_reach_model_unchanged(
        self, stub: StubModelServer, http: FlaskClient
    ) -> None:
        stub.answer = models = TaskModels(digits={1: SHAPES})
        images = np.stack([np.full((64, 48, 3), grey, np.uint8) for grey in (0, 100, 255)])
        instances = images / np.float32(127.5) - 1
        array = http.post("/v1/predict?include=image", data=npy(images), content_type="application/x-npy")
        numbers = http.post("/v1/predict?include=image", json={"instances": instances.tolist()})
        assert [batch.dtype for batch in models.inputs] == [np.uint8, np.float32]
        assert np.array_equal(models.inputs[0], images)
        assert np.array_equal(models.inputs[1], instances)
        for response in (array, numbers):
            predictions = response.get_json()["predictions"]
            assert [prediction["label"] for prediction in predictions] == ["circle", "cross", "star"]
            shown = np.stack([decode(base64.b64decode(prediction["image"])) for prediction in predictions])
            assert np.array_equal(shown, images)

    def test_predict_large_file_is_prepared_alike(self, stub: StubModelServer, http: FlaskClient) -> None:
        stub.answer = models = TaskModels(digits={1: SHAPES})
        large = photo(3, 1200, 1000)
        assert post(http, "/v1/predict", large).status_code == 200
        assert np.array_equal(models.inputs[0][0], prepare(decode(to_png(large)), SHAPES))

    def test_predict_include_labels_and_top_select_the_classes(
        self, stub: StubModelServer, http: FlaskClient
    ) -> None:
        task = TaskCard("many", tuple(f"class {number}" for number in range(1000)), (8, 8), (0.0, 1.0))
        stub.answer = TaskModels(digits={1: task})
        response = post(http, "/v1/predict?include=labels&top=5", np.full((8, 8), 255, np.uint8))
        (prediction,) = response.get_json()["predictions"]
        assert "probabilities" not in prediction
        assert len(prediction["labels"]) == 1000
        assert prediction["labels"]["class 999"] == 1
        assert [entry["index"] for entry in prediction["top"]] == [999, 0, 1, 2, 3]
        assert prediction["top"][0] == {"label": "class 999", "index": 999, "probability": 1}

    def test_predict_letters_are_framed_and_never_segmented(
        self, stub: StubModelServer, http: FlaskClient, digits: Any
    ) -> None:
        stub.answer = models = TaskModels(digits={1: LETTERS})
        pictures = [draw_number(digits, "27"), draw_number(digits, "3")]
        response = post(http, "/v1/predict", *pictures)
        assert {prediction["label"] for prediction in response.get_json()["predictions"]} <= set(
            LETTERS.labels
        )
        assert "digit" not in response.get_json()["predictions"][0]
        (batch,) = models.inputs
        assert np.array_equal(batch, [prepare(decode(to_png(picture)), LETTERS) for picture in pictures])
        blank = np.full((50, 50), 255, np.uint8)
        assert_refused(post(http, "/v1/predict", draw_number(digits, "3"), blank), "no_digit", index=1)

    def test_predict_other_size_for_exact_task_is_refused(
        self, stub: StubModelServer, http: FlaskClient
    ) -> None:
        stub.answer = TaskModels(digits={1: EXACT})
        assert post(http, "/v1/predict", photo(0, 64, 48)).status_code == 200
        response = post(http, "/v1/predict", photo(0, 64, 48), photo(0, 48, 64))
        assert "48×64" in assert_refused(response, "wrong_shape", index=1)

    @pytest.mark.parametrize("task", [FASHION, LETTERS], ids=str)
    def test_read_other_task_is_not_supported(
        self, stub: StubModelServer, http: FlaskClient, task: TaskCard
    ) -> None:
        stub.answer = models = TaskModels(digits={1: task})
        response = post(http, "/v1/read", photo(0))
        document = response.get_json(force=True)
        assert (response.status_code, document["code"]) == (404, "reading_not_supported")
        assert "/v1/predict" in document["detail"]
        assert not models.inputs


class TestNewVersion:
    """A version of another task that takes over between two requests."""

    def test_predict_file_for_version_of_other_shape_is_answered(
        self, stub: StubModelServer, http: FlaskClient
    ) -> None:
        stub.answer = models = TaskModels(digits={1: FASHION})
        assert post(http, "/v1/predict", photo(0)).get_json()["model"]["version"] == 1
        models.tasks["digits"][2] = SHAPES
        calls = stub.calls
        document = post(http, "/v1/predict", photo(0)).get_json()
        assert document["model"] == {"name": "digits", "version": 2, "labels": list(SHAPES.labels)}
        assert stub.calls - calls == 2, "one call more: the refused one"
        assert np.array_equal(models.inputs[-1][0], prepare(photo(0), SHAPES))
        post(http, "/v1/predict", photo(0))
        assert stub.calls - calls == 3
        assert stub.card_calls == 2

    def test_predict_file_for_version_of_other_preparation_is_prepared_again(
        self, stub: StubModelServer, http: FlaskClient
    ) -> None:
        stub.answer = models = TaskModels(digits={1: SHAPES})
        post(http, "/v1/predict", photo(0))
        models.tasks["digits"][2] = padded = replace(SHAPES, fit="pad")
        document = post(http, "/v1/predict", photo(0)).get_json()
        assert document["model"]["version"] == 2
        assert models.versions == [("digits", 1), ("digits", 2), ("digits", 2)]
        assert np.array_equal(models.inputs[-1][0], prepare(photo(0), padded))

    def test_predict_file_for_version_of_other_labels_needs_no_further_call(
        self, stub: StubModelServer, http: FlaskClient
    ) -> None:
        stub.answer = models = TaskModels(digits={1: SHAPES})
        post(http, "/v1/predict", photo(0))
        models.tasks["digits"][2] = replace(SHAPES, labels=("a", "b"))
        document = post(http, "/v1/predict", photo(0)).get_json()
        assert document["model"]["labels"] == ["a", "b"]
        assert stub.calls == 2

    @pytest.mark.parametrize("task", [FASHION, SHAPES, LETTERS], ids=str)
    def test_predict_and_read_digits_for_version_of_other_task_are_answered_by_it(
        self, stub: StubModelServer, http: FlaskClient, model: TemplateModel, digits: Any, task: TaskCard
    ) -> None:
        number = draw_number(digits, "27")
        assert texts(post(http, "/v1/read", number)) == ["27"]
        stub.answer = TaskModels(digits={2: task})
        response = post(http, "/v1/predict", number)
        assert response.status_code == 200, response.text
        assert response.get_json()["predictions"][0]["label"] in task.labels
        stub.answer = model
        model.version = 3
        assert texts(post(http, "/v1/read", number)) == ["27"], "back again"
        stub.answer = TaskModels(digits={4: task})
        assert post(http, "/v1/read", number).status_code == 404

    def test_predict_blank_for_version_of_other_task_is_answered(
        self, stub: StubModelServer, http: FlaskClient, digits: Any
    ) -> None:
        blank = np.full((50, 50), 255, np.uint8)
        assert_refused(post(http, "/v1/predict", blank), "no_digit")
        stub.answer = TaskModels(digits={2: SHAPES})
        assert post(http, "/v1/predict", blank).get_json()["predictions"][0]["label"] == "star"

    def test_predict_array_of_new_shape_is_answered(self, stub: StubModelServer, http: FlaskClient) -> None:
        stub.answer = models = TaskModels(digits={1: FASHION})
        old, new = np.zeros((1, 28, 28), np.uint8), np.zeros((1, 64, 48, 3), np.uint8)

        def status(array: Pixels) -> int:
            return http.post("/v1/predict", data=npy(array), content_type="application/x-npy").status_code

        assert (status(old), status(new)) == (200, 422)
        models.tasks["digits"][2] = SHAPES
        assert (status(new), status(old)) == (200, 422)
        models.tasks["digits"][3] = FASHION
        assert (status(old), status(new)) == (200, 422)
