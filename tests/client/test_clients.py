"""All four clients, blocking and asyncio, of a gateway and of a model server: what they have in common."""

import asyncio
import inspect
import io
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import grpc
import httpx
import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from digit_client import (
    DIGITS,
    AsyncClient,
    AsyncModelServerClient,
    CallOptions,
    CardInput,
    Client,
    Field,
    ModelServerClient,
    ModelVersion,
    Prediction,
    Reading,
    ReadOptions,
    RetryPolicy,
    TaskCard,
)
from digit_client._client import ClientSettings
from digit_client._options import RequestOptions
from digit_core import errors
from digit_core.images import to_png
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.blocking import BlockingAsync
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model import LinearModel
from tests.core.linear_model_server import LinearModelServer

URL = "http://gateway.test"


@dataclass(frozen=True)
class GatewayTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """httpx transport that passes requests to the gateway's Flask application."""

    flask_client: FlaskClient

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.flask_client.open(
            request.url.raw_path.decode(),
            method=request.method,
            headers=request.headers.multi_items(),
            data=request.read(),
        )
        headers = list(response.headers.items())
        return httpx.Response(response.status_code, headers=headers, content=response.data)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await asyncio.to_thread(self.handle_request, request)


class Service:
    """Model server of a linear model, and a gateway in front of it."""

    def __init__(self, model_server: LinearModelServer, name: str) -> None:
        self.server, self.target, self.name = model_server, model_server.target, name
        # The searches for digits share a thread, and the machine with other tests.
        settings = Settings(model_server=self.target, model_name=name, default_label="", deadline=60)
        self.gateway = GatewayTransport(greenlet_loop.client(settings))


def to_gateway(service: Service, model: str | None = None) -> Any:
    http_client = httpx.Client(transport=service.gateway)
    return Client(URL, model=model, timeout=60, http_client=http_client)


def to_gateway_async(service: Service, model: str | None = None) -> Any:
    http_client = httpx.AsyncClient(transport=service.gateway)
    return BlockingAsync(AsyncClient, URL, model=model, timeout=60, http_client=http_client)


def to_model_server(service: Service, model: str | None = None) -> Any:
    return ModelServerClient(service.target, name=model or service.name, timeout=60)


def to_model_server_async(service: Service, model: str | None = None) -> Any:
    return BlockingAsync(AsyncModelServerClient, service.target, name=model or service.name, timeout=60)


Connect = Callable[..., Any]
"""Function that returns a client, the asyncio ones with blocking methods."""


@pytest.fixture(params=[to_gateway, to_gateway_async, to_model_server, to_model_server_async])
def connect(request: pytest.FixtureRequest) -> Connect:
    function: Connect = request.param
    return function


@pytest.fixture(scope="module")
def service(digits: Any) -> Iterator[Service]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000], with_is_digit=True) as server:
        yield Service(server, DIGITS.name)


@pytest.fixture
def client(connect: Connect, service: Service) -> Iterator[Any]:
    with connect(service) as client:
        yield client


@pytest.mark.e2e
@pytest.mark.parametrize("connect", [Client, partial(BlockingAsync, AsyncClient)])
def test_predict_and_read_gateway_process_answers(connect: Any, gateway: str, digits: Any) -> None:
    with connect(gateway) as client:
        assert client.predict(digits.one(7)).digit == 7
        assert client.read(draw_lines([digits.one(1), digits.one(7)])).text == "17"


@pytest.fixture
def mixed(digits: Any, number: np.ndarray, tmp_path: Path) -> list[Any]:
    """Sources of every kind: a digit, a number, blank, broken, and missing ones."""
    path = tmp_path / "three.png"
    path.write_bytes(to_png(draw_lines([digits.one(3)])))
    return [
        path,
        number,
        Image.fromarray(digits.one(4)),
        np.zeros((28, 28), np.uint8),
        to_png(number)[:200],
        tmp_path / "missing.png",
        b"no image",
        io.BytesIO(to_png(draw_lines([digits.one(7)]))),
    ]


def describe(outcome: Any) -> Any:
    """Return the digit or text, the refusal, or the type of the error."""
    if isinstance(outcome, Exception):
        return type(outcome)
    if isinstance(outcome, Reading):
        return outcome.refusal or outcome.text
    return (outcome.refusal, outcome.count) if outcome.refusal else outcome.digit


@pytest.mark.parametrize(
    ("method", "found"),
    [
        ("predict_many", [3, ("several_digits", 3), 4, ("no_digit", None), 7]),
        ("read_many", ["3", "17\n4", "4", "no_digit", "7"]),
    ],
)
def test_many_puts_each_outcome_in_its_place(
    client: Any, mixed: list[Any], method: str, found: list[Any]
) -> None:
    outcomes = getattr(client, method)(mixed, request_id="request-5")
    broken = [errors.TruncatedImageError, FileNotFoundError, errors.NotAnImageError]
    assert [describe(outcome) for outcome in outcomes] == [*found[:4], *broken, found[4]]
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, errors.ImageError):
            assert outcome.index == index
        if not isinstance(outcome, OSError):
            assert outcome.request_id == "request-5"
        # Frames would keep the picture's pixels in memory.
        assert getattr(outcome, "__traceback__", None) is None


def test_picture_on_which_the_model_fails_has_its_error_in_its_place(
    connect: Connect, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def classify(model: LinearModel, batch: Any) -> list[Prediction]:
        nan = (float("nan"),) * 10
        answers = zip(batch, original(model, batch), strict=True)
        return [each if row.any() else replace(each, probabilities=nan) for row, each in answers]

    original = LinearModel.classify
    monkeypatch.setattr(LinearModel, "classify", classify)
    black = np.zeros((28, 28), np.uint8)
    with (
        LinearModelServer(digits.images[:1000], digits.labels[:1000]) as server,
        connect(Service(server, DIGITS.name)) as client,
    ):
        three, failed = client.predict_many([digits.one(3), black])
        assert (three.digit, type(failed), failed.index) == (3, errors.InvalidOutputError, 1)
        with pytest.raises(errors.InvalidOutputError, match="not a probability distribution"):
            client.predict(black)


def test_failed_request_is_outcome_of_each_of_its_images(client: Any, service: Service, digits: Any) -> None:
    client.predict(digits.one(1))
    client = client.with_options(retries=RetryPolicy(max_attempts=1))
    service.server.failures = [grpc.StatusCode.INTERNAL]
    outcomes = dict(client.iter_predict(digits.images[:300], concurrency=1))
    assert all(isinstance(outcomes[index], errors.ServiceError) for index in range(256))
    assert all(isinstance(outcomes[index], Prediction) for index in range(256, 300))
    # Frames would keep the pictures in memory.
    assert outcomes[0].__traceback__ is None
    service.server.failures = [grpc.StatusCode.INTERNAL]
    many = client.predict_many(digits.images[:300], concurrency=1)
    assert [isinstance(each, errors.ServiceError) for each in many] == [True] * 256 + [False] * 44


def test_timeout_of_a_call_or_of_with_options_replaces_the_clients(
    client: Any, service: Service, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.predict(digits.one(1))
    monkeypatch.setattr(service.server, "delay", 0.15)
    for call in (partial(client.predict, timeout=0.05), client.with_options(timeout=0.05).predict):
        with pytest.raises(errors.DeadlineExceededError) as raised:
            call(digits.one(1), request_id="request-3")
        assert raised.value.request_id == "request-3"


def test_request_id_is_sent_with_each_call(
    client: Any, service: Service, digits: Any, number: np.ndarray
) -> None:
    assert client.read(number, request_id="request-2").request_id == "request-2"
    assert service.server.request_ids[-2:] == ["request-2", "request-2"]
    random = [client.predict(digits.one(1)).request_id for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in random)
    assert random[0] != random[1]
    assert service.server.request_ids[-2:] == random


@pytest.mark.parametrize("kind", [Client, AsyncClient, ModelServerClient, AsyncModelServerClient])
def test_client_of_environment_is_pickled_with_its_settings(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_URL", "http://user:secret@gateway.test/")
    monkeypatch.setenv("DIGITS_MODEL_SERVER", "server.test:8500")
    monkeypatch.setenv("DIGITS_TIMEOUT", "2.5")
    options: dict[str, Any] = {"name": "flowers"}
    shown = "'server.test:8500', name='flowers', timeout=2.5"
    if kind in (Client, AsyncClient):
        options = {"model": "flowers", "api_key": "secret", "default_headers": {"X-Tenant": "a"}}
        shown = "'http://gateway.test', model='flowers', timeout=2.5"
    client = kind(**options, retries=RetryPolicy(max_attempts=1))
    copy = pickle.loads(pickle.dumps(client))
    assert repr(copy) == repr(client) == f"{kind.__name__}({shown})"
    assert pickle.dumps(copy) == pickle.dumps(client)
    assert kind(timeout=1).timeout == 1


def test_client_of_another_address_raises_value_error() -> None:
    for url in ("localhost:8080", "ftp://127.0.0.1", "http://", "http://x:y"):
        with pytest.raises(ValueError, match="gateway's URL"):
            Client(url)
    with pytest.raises(ValueError, match=r"gRPC address must be host:port, such as 127\.0\.0\.1:8500"):
        ModelServerClient("http://127.0.0.1:8501")


def test_broken_picture_alone_is_raised_and_takes_its_place_among_many(client: Any, digits: Any) -> None:
    for one, many in ((client.predict, client.predict_many), (client.read, client.read_many)):
        with pytest.raises(errors.NotAnImageError) as raised:
            one(b"no image", request_id="request-6")
        assert (raised.value.index, raised.value.request_id) == (None, "request-6")
        with pytest.raises(FileNotFoundError):
            one("missing.png")
        _, missing, broken, url = many(
            [digits.one(1), "missing.png", b"no image", "HTTPS://digits.test/5.png"]
        )
        assert (type(missing), type(broken), broken.index) == (FileNotFoundError, errors.NotAnImageError, 2)
        assert "download HTTPS://digits" in str(url)


@pytest.mark.parametrize("method", ["predict", "read"])
def test_every_method_gives_the_results_of_the_model_server(
    client: Any, service: Service, digits: Any, number: np.ndarray, method: str
) -> None:
    pictures = [digits.one(3), number, np.zeros((28, 28), np.uint8), to_png(draw_lines([digits.one(8)]))]
    with to_model_server(service) as direct:
        expected = [getattr(direct, method)(picture, include="image").to_dict() for picture in pictures]
    each = [getattr(client, method)(picture, include="image") for picture in pictures]
    many = getattr(client, f"{method}_many")(pictures, include="image")
    found = dict(getattr(client, f"iter_{method}")(pictures, include="image"))
    for results in (each, many, [found[index] for index in range(4)]):
        assert_same([result.to_dict() for result in results], expected)


def assert_same(result: Any, expected: Any) -> None:
    """Compare results, of which floats depend on the size of the batch."""
    if isinstance(expected, dict):
        for name in {*result, *expected} - {"request_id", "request_index"}:
            assert_same(result[name], expected[name])
    elif isinstance(expected, list):
        for each, other in zip(result, expected, strict=True):
            assert_same(each, other)
    else:
        assert result == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


def test_predict_many_of_several_requests_is_in_order(client: Any, digits: Any) -> None:
    from_array = client.predict_many(digits.images[:300])
    assert np.mean([each.digit for each in from_array] == digits.labels[:300]) > 0.85
    from_files = client.predict_many(list(digits.images[:40]), concurrency=2)
    assert [each.digit for each in from_files] == [each.digit for each in from_array[:40]]
    # Pictures that are not in the model's form.
    large = np.kron(digits.typical(3, 2), np.ones((1, 2, 2), np.uint8))
    assert [prediction.digit for prediction in client.predict_many(large)] == [3, 3]
    assert [reading.text for reading in client.read_many(large)] == ["3", "3"]


def test_options_select_version_and_bar(client: Any, digits: Any) -> None:
    image = draw_lines([digits.one(3)])
    assert client.predict(image, version=1).model_version == 1
    assert client.predict(image, min_is_digit=1.0).refusal == "no_digit"
    assert client.predict(image, min_is_digit=0.0).digit == 3
    assert client.read(image, min_is_digit=0.0).text == "3"
    for method in (client.predict, client.read):
        with pytest.raises(errors.ModelNotFoundError) as raised:
            method(image, label="nonsense", request_id="request-4")
        assert raised.value.request_id == "request-4"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"expect": "#:#"}, "1:7"),
        ({"expect": "##", "check": "10..19"}, "17"),
        ({"expect": "date"}, "unexpected"),
        ({"expect": ["31", "17", "4096"]}, "17"),
        ({"min_confidence": 1}, "unsure"),
        ({"box": (30, 30, 170, 90), "expect": ["17"]}, "17"),
        ({"turn": "auto"}, "17\n4"),
    ],
)
def test_read_options_say_what_is_expected_and_where(
    client: Any, number: np.ndarray, options: dict[str, Any], found: str
) -> None:
    picture = np.rot90(number) if "turn" in options else number
    reading = client.read(picture, **options)
    assert describe(reading) == found
    assert reading.is_turned == ("turn" in options or None)
    assert bool(reading.candidates) is True
    many = client.read_many(np.stack([picture, picture]), **options)
    ((_, last),) = client.iter_read([to_png(picture)], **options)
    assert [describe(each) for each in (*many, last)] == [found] * 3


def test_read_many_picture_with_options_of_its_own_is_read_with_them(client: Any, number: np.ndarray) -> None:
    common, own, mistaken, both = client.read_many(
        [
            number,
            (to_png(number), {"expect": "##"}),
            (number, {"chekc": "luhn"}),
            (number, {"check": "4..4"}),
        ],
        expect="#",
    )
    assert [describe(each) for each in (common, own, both)] == ["4", "17", "4"]
    assert isinstance(mistaken, errors.InvalidOptionError)
    assert "did you mean `check`" in str(mistaken)


def test_read_several_boxes_have_a_reading_or_an_error_each(client: Any, number: np.ndarray) -> None:
    height, width = number.shape
    boxes = [(0, 0, width, height // 2), (0, height // 2, width, height // 2)]
    found = client.read_many([number, "missing.png", to_png(number)], box=boxes)
    assert [describe(each) for each in (*found[:2], *found[4:])] == ["17", "4"] * 2
    assert list(map(type, found[2:4])) == [FileNotFoundError] * 2


def test_read_box_outside_is_the_error_of_its_picture(client: Any, number: np.ndarray) -> None:
    large = np.pad(number, ((0, 0), (0, 400)), constant_values=255)
    outside, reading = client.read_many([number, large], box=(300, 40, 100, 80))
    assert (type(outside), outside.index) == (errors.ImageShapeError, 0)
    assert describe(reading) == "no_digit"


def test_read_form_has_named_fields_with_their_own_expectations(client: Any, number: np.ndarray) -> None:
    height, width = number.shape
    upper, lower = (0, 0, width, height // 2), (0, height // 2, width, height // 2)
    fields = {"upper": Field(upper, "##"), "lower": Field(lower, ["4", "5"]), "wrong": Field(upper, "####")}
    form = client.read_form(number, fields, min_confidence=0.1)
    assert [(each.field, describe(each), each.box) for each in form] == [
        ("upper", "17", upper),
        ("lower", "4", lower),
        ("wrong", "unexpected", upper),
    ]
    assert form["lower"] is form[1]
    assert form["wrong"].candidates
    with pytest.raises(KeyError, match="no field 'uper'; did you mean `upper`"):
        form["uper"]
    readings = client.read_many([number, to_png(number)], form=fields)
    assert [(each.field, each.text) for each in readings] == [(each.field, each.text) for each in form] * 2
    drawn = np.asarray(form.draw())
    assert drawn.shape == (*number.shape, 3)
    assert [bool((part != part[..., :1]).any()) for part in np.split(drawn, 2)] == [True, True]
    table = form.to_arrow()
    assert table["field"].to_pylist() == ["upper", "lower", "wrong"]
    assert table["box"][1].as_py() == dict(zip(("left", "top", "width", "height"), lower, strict=True))


def test_read_form_field_outside_is_the_error_of_this_field(client: Any, number: np.ndarray) -> None:
    height, width = number.shape
    form = client.read_form(number, {"all": {"box": (0, 0, width, height)}, "far": {"box": (999, 0, 9, 9)}})
    assert describe(form["all"]) == "17\n4"
    with pytest.raises(errors.ImageShapeError, match=r"field far: the box \[999, 0, 9, 9\] lies outside"):
        form["far"]
    with pytest.raises(errors.ImageShapeError, match="field far"):
        client.read_form(number, {"far": {"box": (999, 0, 9, 9)}})
    with pytest.raises(FileNotFoundError):
        client.read_form("missing.png", {"far": {"box": (999, 0, 9, 9)}})
    with pytest.raises(errors.NotAnImageError):
        client.read_form(b"text", {"far": Field((0, 0, 9, 9)), "near": Field((0, 0, 9, 9))})


def test_methods_unknown_option_raises_type_error_that_names_the_method(client: Any) -> None:
    predicting, reading = ["predict", "predict_many", "iter_predict"], ["read", "read_many", "iter_read"]
    methods = [(name, "versoin", [[b"image"]]) for name in (*predicting, *reading)]
    methods += [(name, "expect", [[b"image"]]) for name in predicting]
    methods += [(name, "versoin", []) for name in ("ready", "with_options")]
    for name, option, arguments in methods:
        message = rf"^(?!_)\w*Client\.{name}\(\) got an unexpected keyword argument '{option}'"
        with pytest.raises(TypeError, match=message):
            getattr(client, name)(*arguments, **{option: "##"})


def test_methods_invalid_arguments_raise_errors(client: Any) -> None:
    for method in (client.predict_many, client.read_many, client.iter_predict, client.iter_read):
        with pytest.raises(TypeError, match="put it in a list"):
            method("five.jpg")
    for method in (client.predict, client.predict_many, client.read, client.iter_read):
        with pytest.raises(ValueError, match="not both"):
            method([b"image"], version=1, label="stable")
        with pytest.raises(ValueError, match="from 0 to 1"):
            method([b"image"], min_is_digit=20)
    with pytest.raises(ValueError, match="character 3"):
        client.iter_read([b"image"], expect="##x")
    with pytest.raises(ValueError, match="`read_many` reads several"):
        client.read(b"image", box=[(0, 0, 9, 9)] * 2)
    with pytest.raises(ValueError, match="`read_form` a form"):
        client.read(b"image", form={"number": Field((0, 0, 9, 9))})
    with pytest.raises(ValueError, match="must be an object of 1 to 64 fields"):
        client.read_form(b"image", {})
    with pytest.raises(ValueError, match=r"form.number.chekc: there is no such option; did you mean `check`"):
        client.read_form(b"image", {"number": {"box": (0, 0, 9, 9), "chekc": "luhn"}})


def test_unknown_model_raises_model_not_found(connect: Connect, service: Service, digits: Any) -> None:
    with connect(service, "nonsense") as client:
        for method in (client.predict, client.read):
            with pytest.raises(errors.ModelNotFoundError):
                method(digits.one(1))


@pytest.mark.parametrize("connect", [to_gateway, to_gateway_async])
def test_models_of_gateway_lists_versions(connect: Connect, service: Service) -> None:
    with connect(service, DIGITS.name) as client:
        models = client.models()
    assert (models.name, models.versions) == ("digits", (ModelVersion(1, "AVAILABLE"),))
    assert models.task == DIGITS
    assert models.request_id
    with connect(service, "nonsense") as client, pytest.raises(errors.ModelNotFoundError):
        client.models()


COLORS = TaskCard("colors", ("red", "green", "blue"), CardInput((6, 8, 3), (-1.0, 1.0)))
GREEN = np.full((30, 20, 3), (0, 200, 0), np.uint8)


@pytest.fixture(scope="module", params=["resize", "none"])
def colors(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Service of a model of colors, which resizes pictures or takes those of its shape only."""
    images = np.zeros((3, *COLORS.shape), np.uint8)
    for color in range(3):
        images[color, :, :, color] = 255
    task = replace(COLORS, prepare=replace(COLORS.prepare, kind=request.param))
    with LinearModelServer(images, np.arange(3, dtype=np.uint8), task=task) as server:
        yield Service(server, "colors")


def test_other_task_is_answered_as_its_card_says(
    connect: Connect, colors: Service, request: pytest.FixtureRequest
) -> None:
    exact = np.random.default_rng(0).integers(0, 256, (5, *COLORS.shape), np.uint8)
    with connect(colors) as client:
        assert client.predict_many(exact) == client.predict_many(list(exact))
        with pytest.raises(errors.ReadingNotSupportedError):
            client.read(exact[0])
        outcomes = client.predict_many(np.stack([GREEN] * 2))
    if request.node.callspec.params["colors"] == "none":
        refused = [(type(outcome), outcome.index) for outcome in outcomes]
        assert refused == [(errors.ImageShapeError, 0), (errors.ImageShapeError, 1)]
        return
    for prediction in outcomes:
        assert (prediction.label, prediction.index, prediction.labels) == ("green", 1, COLORS.labels)
        assert (prediction.confidence, prediction.is_digit) == (max(prediction.probabilities), None)
        assert prediction.digit is None


def test_ready_tells_whether_the_model_is_served(connect: Connect, service: Service, client: Any) -> None:
    assert client.ready() is True
    if connect in (to_model_server, to_model_server_async):
        with connect(service, "unknown") as other:
            assert other.ready() is False


_OTHER_OPTIONS = {"feedback": RequestOptions, "models": RequestOptions, "with_options": ClientSettings}


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Client, AsyncClient), (ModelServerClient, AsyncModelServerClient)]
)
def test_clients_have_same_methods_with_typed_options(blocking: type, asynchronous: type) -> None:
    names = {name for name in dir(blocking) if not name.startswith("_")}
    assert names == {name for name in dir(asynchronous) if not name.startswith("_")}
    for function in (getattr(blocking, name) for name in names):
        if inspect.isfunction(function):
            parameters = inspect.signature(function).parameters
            assert parameters == inspect.signature(getattr(asynchronous, function.__name__)).parameters
            given = [each.annotation for each in parameters.values() if each.kind is each.VAR_KEYWORD]
            assert "concurrency" not in parameters or parameters["concurrency"].default == 32
            name = function.__name__
            options = _OTHER_OPTIONS.get(name, ReadOptions if "read" in name else CallOptions)
            assert given in ([], [Unpack[options]])
