"""Recognition: the cascade of /v1/predict, and /v1/read, with a model server that gives `is_digit`."""

import base64
import io
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import ExifTags, Image
from werkzeug.test import TestResponse

from digit_client.images import decode, to_png
from digit_client.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import StubModelServer, TemplateModel, draw_number, npy

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
        assert set(prediction) == {"digit", "confidence", "probabilities"}

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
            "digit_client.images.normalise", lambda _: cv2.resize(255 - draw_cross(), (28, 28))
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
            Settings(model_server=stub.target, default_label="stable", canary_percent=100)
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
        assert document["model"] == {"name": "digits", "version": 1}
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
