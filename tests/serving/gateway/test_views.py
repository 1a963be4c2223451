"""Answers: the contract of /v1/predict and /v1/read, a result or an error in the place of each picture."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from werkzeug.test import TestResponse

from digit_core.artifact.task_card import CardInput, TaskCard
from digit_core.images import decode, to_png
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.drawn_numbers import draw_number
from tests.serving.gateway import recorded
from tests.serving.gateway.helpers import MetricsDelta, assert_problem, npy, write_traffic
from tests.serving.gateway.stub_model_server import LAYERS, SHAPES, StubModelServer, TaskModels, TemplateModel

Pixels = NDArray[np.uint8]


@pytest.fixture
def model(stub: StubModelServer, digits: Any) -> TemplateModel:
    """Model of the stub: it recognises typical digits, and takes everything else for no digit."""
    stub.answer = model = TemplateModel(digits)
    return model


@pytest.fixture
def http(stub: StubModelServer, model: TemplateModel) -> FlaskClient:
    return create(stub, max_digits=4, max_pixels=2_000_000)


def create(stub: StubModelServer, **settings: Any) -> FlaskClient:
    """Return a test client of a gateway whose model has no label, on a machine that may be busy."""
    values: dict[str, Any] = {"default_label": "", "deadline": 60, **settings}
    return greenlet_loop.client(Settings(model_server=stub.target, **values))


def cross() -> Pixels:
    """Return two crossed strokes, dark on white: no digit."""
    picture = np.full((200, 200), 255, np.uint8)
    cv2.line(picture, (50, 50), (150, 150), 0, 12)
    cv2.line(picture, (150, 50), (50, 150), 0, 12)
    return picture


def pictures(digits: Any) -> dict[str, bytes]:
    """Return a file of each kind."""
    return {
        "digit": to_png(draw_number(digits, "3")),
        "cross": to_png(cross()),
        "number": to_png(draw_number(digits, "27")),
        "blank": to_png(np.full((100, 100), 255, np.uint8)),
        "long": to_png(draw_number(digits, "12345")),
        "no image": b"hello",
        "truncated": to_png(cross())[:60],
        "too large": to_png(np.zeros((1500, 1500), np.uint8)),
        "empty": b"",
    }


PREDICTED: dict[str, dict[str, Any]] = {
    "digit": {"digit": 3, "label": "3", "index": 3, "refusal": None},
    "cross": {"digit": None, "label": None, "refusal": "no_digit"},
    "number": {"digit": None, "label": None, "refusal": "several_digits", "count": 2},
    "blank": {"digit": None, "label": None, "refusal": "no_digit"},
    "long": {"digit": None, "label": None, "refusal": "several_digits", "count": 5},
}
"""Fields of predictions, by the kind of the picture."""
READ = {"digit": "3", "cross": "", "number": "27", "blank": ""}
"""Texts of readings."""
FAILED = {
    "no image": (400, "not_an_image"),
    "truncated": (400, "truncated_image"),
    "too large": (422, "image_too_large"),
    "empty": (400, "not_an_image"),
}
"""Status and code of errors of `/v1/predict`."""
READ_FAILED = FAILED | {"long": (422, "too_many_digits")}


def form(*files: bytes) -> dict[str, Any]:
    return {"data": {"image": [(io.BytesIO(file), "a.png") for file in files]}}


def json_images(*files: bytes) -> dict[str, Any]:
    return {"json": {"images": [base64.b64encode(file).decode() for file in files]}}


def results(response: TestResponse) -> list[Any]:
    """Return the results and errors of a response, in order."""
    assert response.status_code == 200, response.text
    document = response.get_json()
    assert document["request_id"] == response.headers["X-Request-ID"]
    found: list[Any] = document["predictions" if "predictions" in document else "readings"]
    return found


def post(http: FlaskClient, path: str, *arrays: Pixels) -> list[Any]:
    """Send pictures as a form of PNG files; return the results."""
    return results(http.post(path, **form(*map(to_png, arrays))))


def post_npy(http: FlaskClient, array: Pixels, path: str = "/v1/predict") -> TestResponse:
    return http.post(path, data=npy(array), content_type="application/x-npy")


def shown(result: dict[str, Any]) -> Pixels:
    """Return the model's input that a result includes."""
    return decode(base64.b64decode(result["image"]))


def assert_failed(result: dict[str, Any], status: int, code: str) -> None:
    assert set(result) == {"error"}
    problem = result["error"]
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"].endswith(".")


def answered(response: TestResponse, files: dict[str, bytes], failed: Any) -> dict[str, Any]:
    """Check that the files that fail have their errors in their places; return the other results by kind."""
    found = dict(zip(files, results(response), strict=True))
    for kind, error in failed.items():
        assert_failed(found.pop(kind), *error)
    return found


@pytest.mark.parametrize("pack", [form, json_images])
def test_each_picture_of_a_batch_has_its_result(http: FlaskClient, digits: Any, pack: Any) -> None:
    files = pictures(digits)
    predictions = answered(http.post("/v1/predict", **pack(*files.values())), files, FAILED)
    for kind, result in predictions.items():
        assert result.items() >= PREDICTED[kind].items(), kind
        assert len(result["probabilities"]) == 10
        assert result["confidence"] == result["probabilities"][result["index"]]
        assert (result["is_digit"] >= 0.345) == (result["refusal"] != "no_digit")
    readings = answered(http.post("/v1/read", **pack(*files.values())), files, READ_FAILED)
    assert {kind: reading["text"] for kind, reading in readings.items()} == READ
    for reading in readings.values():
        assert reading["refusal"] == (None if reading["text"] else "no_digit")
        assert bool(reading["lines"]) == bool(reading["text"])


@pytest.mark.parametrize(("path", "failed"), [("/v1/predict", FAILED), ("/v1/read", READ_FAILED)])
def test_picture_that_is_the_body_keeps_its_status(
    http: FlaskClient, digits: Any, path: str, failed: dict[str, tuple[int, str]]
) -> None:
    for kind, file in pictures(digits).items():
        response = http.post(path, data=file)
        if kind in failed:
            assert_problem(response, *failed[kind])
        else:
            (result,) = results(response)
            assert "error" not in result
        (alone,) = results(http.post(path, **form(file)))
        assert ("error" in alone) is (kind in failed), "a form of one is a batch"


def test_batch_without_a_usable_picture_names_the_model(http: FlaskClient) -> None:
    for path in ("/v1/predict", "/v1/read"):
        response = http.post(path, **form(b"no image", b"no image"))
        assert [result["error"]["code"] for result in results(response)] == ["not_an_image"] * 2
        model = {"name": "digits", "version": 1, "labels": list("0123456789")}
        assert response.get_json()["model"] == model


def test_text_that_is_no_base64_has_an_error_in_its_place(http: FlaskClient, digits: Any) -> None:
    file = base64.b64encode(to_png(digits.one(3))).decode()
    bad, good = results(http.post("/v1/predict", json={"images": ["*", file]}))
    assert (bad["error"]["code"], good["digit"]) == ("not_an_image", 3)


def test_min_is_digit_decides_on_refusals(http: FlaskClient, digits: Any) -> None:
    (prediction,) = post(http, "/v1/predict?min_is_digit=1", draw_number(digits, "3"))
    assert (prediction["digit"], prediction["refusal"]) == (None, "no_digit")


def test_predict_second_call_goes_to_version_of_first(
    stub: StubModelServer, model: TemplateModel, digits: Any, tmp_path: Path
) -> None:
    shares = write_traffic(tmp_path, canary=1)
    http = create(stub, default_label="stable", models_traffic=shares)
    model.version = 8
    (prediction,) = post(http, "/v1/predict", draw_number(digits, "27"))
    assert prediction["refusal"] == "several_digits"
    first, second = model.specs
    assert first.version_label == "canary"
    assert (second.version_label, second.version.value) == ("", 8)


@pytest.mark.parametrize(
    ("query", "body", "text", "refusal"),
    [
        ({"expect": "####", "check": "2000..3000"}, {}, "2743", None),
        ({"expect": "##:##", "check": "2000..3000"}, {}, "", "unexpected"),
        ({"expect": "####", "check": "..2000"}, {}, "", "unexpected"),
        ({}, {"expect": ["1031", "2743"]}, "2743", None),
        ({"min_confidence": "1"}, {}, "", "unsure"),
    ],
)
def test_read_expected_returns_what_fits_or_what_was_seen(
    http: FlaskClient,
    digits: Any,
    query: dict[str, str],
    body: dict[str, Any],
    text: str,
    refusal: str | None,
) -> None:
    sent = json_images(to_png(draw_number(digits, "2743")))["json"] | body
    (reading,) = results(http.post("/v1/read", query_string=query, json=sent))
    assert (reading["text"], reading["refusal"], bool(reading["lines"])) == (text, refusal, bool(text))
    assert reading["candidates"][0]["text"] == (text or "2743")


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"expect": "##x"}, "Parameter `expect`: character 3 of the pattern"),
        ({"expect": "date", "check": "luhn"}, "Parameter `expect`: `date` has its own check"),
        ({"expect": "####", "check": "crc"}, "Parameter `check`: the check must be one of luhn, mod11"),
        ({"min_confidence": "1.1"}, "Parameter `min_confidence`"),
        ({"min_is_digit": "nan"}, "Parameter `min_is_digit`"),
        ({"turn": "90"}, "Parameter `turn`"),
        ({"box": "1,2,3"}, "Parameter `box`: a box has four numbers"),
    ],
)
def test_read_parameter_that_is_mistaken_is_refused_with_its_place(
    http: FlaskClient, query: dict[str, Any], place: str
) -> None:
    response = http.post("/v1/read", query_string=query, **form(b""))
    assert place in assert_problem(response, 400, "invalid_selection")["detail"]


def test_member_that_is_mistaken_or_not_taken_is_refused(http: FlaskClient) -> None:
    for path, member, place in (
        ("/v1/read", {"expect": ["1024", "10 31"]}, "Field `expect`: number 2 of the list"),
        (
            "/v1/read",
            {"expect": 10.24},
            "Field `expect`: must be a pattern of at most 200 characters, or a list of texts",
        ),
        ("/v1/read?check=luhn", {"expect": ["1024"]}, "a check goes with a pattern"),
        ("/v1/predict", {"expect": ["1024"]}, "Field `expect`: there is no such option; known: "),
        ("/v1/read", {"min_confidense": 0.5}, "did you mean `min_confidence`?"),
    ):
        response = http.post(path, json={"images": [""]} | member)
        assert place in assert_problem(response, 400, "invalid_selection")["detail"]


@pytest.mark.parametrize(
    ("options", "text", "refusal"),
    [
        ({"expect": "####"}, "2743", None),
        ({"expect": "#####"}, "", "unexpected"),
        ({"expect": "1031\r\n2743\r\n"}, "2743", None),
        ({"expect": ["1031", "2743"]}, "2743", None),
        ({"box": ["200,0,160,160"], "expect": "##"}, "43", None),
    ],
)
def test_read_fields_of_a_form_are_options(
    http: FlaskClient, digits: Any, options: dict[str, Any], text: str, refusal: str | None
) -> None:
    sent = form(to_png(draw_number(digits, "2743")))
    sent["data"] |= options
    (reading,) = results(http.post("/v1/read", **sent))
    assert (reading["text"], reading["refusal"]) == (text, refusal)


@pytest.mark.parametrize("filename", ['; filename="a.png"', ""], ids=["file", "field"])
def test_form_with_a_part_without_a_name_is_refused(http: FlaskClient, digits: Any, filename: str) -> None:
    picture = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    unnamed = f"\r\n--b\r\nContent-Disposition: form-data{filename}\r\n\r\nx\r\n--b--\r\n"
    body = picture + to_png(digits.one(3)) + unnamed.encode()
    response = http.post("/v1/read", data=body, content_type="multipart/form-data; boundary=b")
    code = "malformed_body" if filename else "invalid_selection"
    assert "``" in assert_problem(response, 400, code)["detail"]


def test_form_with_an_unknown_field_or_file_is_refused(http: FlaskClient, digits: Any) -> None:
    for name, value, code, message in (
        ("expct", "####", "invalid_selection", "did you mean `expect`?"),
        ("mask", (io.BytesIO(b"mask"), "mask.png"), "malformed_body", "file part named `mask`"),
    ):
        sent = form(to_png(digits.one(3)))
        sent["data"][name] = value
        assert message in assert_problem(http.post("/v1/read", **sent), 400, code)["detail"]


def test_read_boxes_have_a_reading_each_in_pixels_of_the_picture(http: FlaskClient, digits: Any) -> None:
    number, digit = to_png(draw_number(digits, "2743")), to_png(draw_number(digits, "5"))
    parts = {"box": ["200,0,160,160", "40,0,80,160"]}
    found = results(http.post("/v1/read", query_string=parts, **form(number, digit)))
    assert [reading.get("text") for reading in found] == ["43", "2", None, "5"]
    assert_failed(found[2], 422, "wrong_shape")
    for place, each in zip((2, 3), found[0]["lines"][0]["digits"], strict=True):
        left, _, width, _ = each["box"]
        assert 40 + 80 * place <= left < left + width <= 120 + 80 * place


def test_read_form_has_a_reading_with_the_name_of_each_field(http: FlaskClient, digits: Any) -> None:
    number = to_png(draw_number(digits, "2743"))
    fields: dict[str, Any] = {
        "right": {"box": [200, 0, 160, 160], "expect": "##"},
        "left": {"box": [40, 0, 80, 160], "expect": ["2", "3"]},
        "outside": {"box": [900, 0, 8, 8]},
    }
    as_form = form(number)
    as_form["data"]["form"] = json.dumps(fields)
    as_json = json_images(number)
    as_json["json"]["form"] = fields
    for sent in (as_form, as_json):
        # The test client sorts the members of JSON.
        left, outside, right = sorted(
            results(http.post("/v1/read", **sent)), key=lambda each: each.get("field", "outside")
        )
        assert [(each["field"], each["text"], each["box"]) for each in (right, left)] == [
            ("right", "43", [200, 0, 160, 160]),
            ("left", "2", [40, 0, 80, 160]),
        ]
        assert right["lines"][0]["digits"][0]["box"][0] >= 200
        assert_failed(outside, 422, "wrong_shape")
        assert outside["error"]["detail"].startswith("The field outside: the box")
    fields["left"]["expekt"] = "#"
    problem = assert_problem(http.post("/v1/read", **as_json), 400, "invalid_selection")
    assert "Field `form.left.expekt`: there is no such option; did you mean `expect`?" in problem["detail"]
    in_query = http.post("/v1/read", query_string={"form": json.dumps(fields)}, data=number)
    assert "in the body" in assert_problem(in_query, 400, "invalid_selection")["detail"]


def test_read_box_outside_is_the_error_of_its_part(http: FlaskClient, digits: Any) -> None:
    number = to_png(draw_number(digits, "27"))
    outside = {"box": "240,0,10,10"}
    problem = assert_problem(http.post("/v1/read", query_string=outside, data=number), 422, "wrong_shape")
    assert "box [240, 0, 10, 10] lies outside of the picture, which has 240×160 pixels" in problem["detail"]


def test_read_more_parts_than_digits_are_refused(
    stub: StubModelServer, model: TemplateModel, digits: Any
) -> None:
    http = create(stub, max_digits=3)
    file = to_png(draw_number(digits, "27"))
    parts = {"box": ["0,0,112,112", "112,0,112,112"]}
    assert len(results(http.post("/v1/read", query_string=parts, **form(file)))) == 2
    asked = stub.pages
    response = http.post("/v1/read", query_string=parts, **form(file, file))
    assert "this request has 4" in assert_problem(response, 413, "too_many_images")["detail"]
    assert stub.pages == asked


def test_read_boxes_of_an_array_are_refused(http: FlaskClient, digits: Any) -> None:
    response = post_npy(http, draw_number(digits, "27")[np.newaxis], "/v1/read?box=0,0,112,112")
    assert "needs image files" in assert_problem(response, 400, "invalid_selection")["detail"]


def test_read_turned_returns_the_number_of_the_picture_turned_back(http: FlaskClient, digits: Any) -> None:
    (reading,) = post(http, "/v1/read?turn=auto", np.rot90(draw_number(digits, "2743")))
    assert (reading["text"], reading["is_turned"], reading["orientation"]) == ("2743", True, 90)
    assert reading["text_as_sent"] not in ("2743", None)


def test_read_include_opinions_returns_what_each_network_alone_takes_a_digit_for(
    http: FlaskClient, digits: Any
) -> None:
    (reading,) = post(http, "/v1/read?include=opinions", draw_number(digits, "27"))
    for digit, seen in zip(reading["lines"][0]["digits"], (2, 7), strict=True):
        # The classes of this test's reader are uniform, which is no opinion.
        assert set(digit["opinions"]) == {"classifier"}
        assert digit["opinions"]["classifier"]["digit"] == seen


def test_read_more_digits_than_max_images_takes_several_calls(
    stub: StubModelServer, model: TemplateModel, digits: Any
) -> None:
    http = create(stub, max_images=2)
    found = post(http, "/v1/read", draw_number(digits, "2026"), draw_number(digits, "3"))
    assert [reading["text"] for reading in found] == ["2026", "3"]
    assert len(model.sizes) > 2
    assert max(model.sizes) <= 2


def test_without_reader_predicts_and_says_what_reading_needs(
    stub: StubModelServer, model: TemplateModel, digits: Any
) -> None:
    stub.reader_error = grpc.StatusCode.NOT_FOUND
    http = create(stub)
    three, number = draw_number(digits, "3"), draw_number(digits, "27")
    assert [each["refusal"] for each in post(http, "/v1/predict", three, number)] == [None, "no_digit"]
    response = http.post("/v1/read", **form(to_png(number)))
    assert "digits train" in assert_problem(response, 404, "reader_missing")["detail"]
    assert stub.pages == 2
    # The alert ReaderMissing counts them.
    exposition = http.get("/metrics").text
    lost = 'digits_model_failures_total{asked="reader",code="model_not_found",model="digits"} 2.0'
    assert lost in exposition
    assert 'digits_stage_duration_seconds_count{stage="find"} 2.0' in exposition
    stub.reader_error = grpc.StatusCode.INTERNAL
    assert_problem(http.post("/v1/read", **form(to_png(number))), 502, "model_server_error")


def test_predict_files_for_large_model_are_sent_in_several_calls(
    stub: StubModelServer, http: FlaskClient
) -> None:
    large = replace(SHAPES, input=replace(SHAPES.input, shape=(1400, 1400, 3)))
    stub.answer = models = TaskModels(digits={1: large})
    found = post(http, "/v1/predict", *(np.full((5, 5), grey, np.uint8) for grey in (0, 100, 255)))
    assert len(models.inputs) > 1
    assert [prediction["label"] for prediction in found] == ["circle", "cross", "star"]


def test_predict_include_layers_shows_maps_beside_each_other_and_units_as_pixels(
    stub: StubModelServer, http: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.array([[[[2, 0], [-2, 0]]]], np.float32)
    monkeypatch.setitem(LAYERS, "01_Dense_weights", weights)
    stub.answer = TaskModels(digits={1: SHAPES})
    (prediction,) = post(http, "/v1/predict?include=layers", np.zeros(SHAPES.shape, np.uint8))
    maps, units = prediction["layers"]
    assert (maps["name"], maps["shape"], maps["peak"]) == ("Conv2D", [2, 2, 2], 4)
    assert (units["name"], units["shape"], units["peak"]) == ("Dense", [3], 1)
    assert shown(maps).tolist() == [[255, 0, 0, 0, 0, 0], [0, 0, 0, 127, 0, 0], [0] * 6]
    assert shown(units).tolist() == [[127, 255, 0]]
    assert "weights" not in maps
    assert shown({"image": units["weights"]}).tolist() == [[255, 1, 128, 128, 128, 128], [128] * 6]
    response = http.post("/v1/predict?include=layers", **form(b"x", b"y"))
    assert "needs a request with one image" in assert_problem(response, 400, "invalid_selection")["detail"]


def test_predict_images_of_many_labels_are_limited(stub: StubModelServer) -> None:
    names = tuple(f"class {number}" for number in range(2000))
    stub.answer = TaskModels(many={1: TaskCard("many", names, CardInput((8, 8), (0.0, 255.0)))})
    http = create(stub, model_name="many")
    assert len(post(http, "/v1/predict", *[np.zeros((8, 8), np.uint8)] * 131)) == 131
    response = http.post("/v1/predict", **form(*[b"x"] * 132))
    detail = assert_problem(response, 413, "too_many_images")["detail"]
    assert detail == "A request to a model of 2,000 labels may hold 131 images, not 132."


def test_predict_multi_label_counts_each_label(stub: StubModelServer, http: FlaskClient) -> None:
    stub.answer = TaskModels(digits={1: replace(SHAPES, threshold=(0.5, 0.5, 0.5, 0.0))})
    delta = MetricsDelta(http)
    (prediction,) = post(http, "/v1/predict", np.zeros((9, 9), np.uint8))
    assert prediction["predicted_labels"] == ["circle", "star"]
    for label in ("circle", "star"):
        assert delta("digits_predictions_total", model="digits", label=label) == 1


def test_predict_include_layers_of_version_without_them_is_empty(http: FlaskClient) -> None:
    (prediction,) = post(http, "/v1/predict?include=layers", np.zeros((28, 28), np.uint8))
    assert prediction["layers"] == []


def test_read_other_task_is_not_supported(stub: StubModelServer, http: FlaskClient) -> None:
    stub.answer = models = TaskModels(digits={1: SHAPES})
    response = http.post("/v1/read", **form(to_png(cross())))
    assert "/v1/predict" in assert_problem(response, 404, "reading_not_supported")["detail"]
    assert not models.inputs


@pytest.mark.parametrize("case", recorded.CASES)
def test_answers_are_those_recorded(stub: StubModelServer, case: str) -> None:
    expected = json.loads(recorded.RECORDED.read_text())[case]
    hint = f"If you intended the change, run python -m {recorded.__name__} and review the difference."
    assert recorded.record(stub, case) == expected, hint
