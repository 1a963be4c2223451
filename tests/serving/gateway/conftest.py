"""Fixtures of the gateway's tests: its application in process and as a process, and a stub model server."""

import base64
import io
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray

from digit_core.artifact.task_card import READER_NAME, TaskCard
from digit_core.images import to_png
from digit_core.tfserving import codec
from digit_core.tfserving.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)
from digit_serving.feedback.store import FeedbackStore
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.bridge import Receive, Scope, Send
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.component_reader import answer_page, encode
from tests.core.linear_model_server import DT_STRING
from tests.processes import answers, free_port, running, wait_until

FIVE = Path(__file__).parents[3] / "docs" / "five.jpg"
"""Photograph of a handwritten five."""
IMAGE = np.eye(28, dtype=np.uint8) * 255
"""Diagonal stroke, uint8 [28, 28]."""

FASHION = TaskCard(
    "fashion",
    ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    (28, 28),
    (0.0, 1.0),
)
"""Task of small grey pictures with ten names."""
SHAPES = TaskCard("shapes", ("circle", "cross", "square", "star"), (64, 48, 3), (-1.0, 1.0))
"""Task of colour pictures of another shape, range and number of classes."""

StartGateway = Callable[..., FlaskClient]
Answer = Callable[[PredictRequest, grpc.ServicerContext], PredictResponse]
"""Predict handler of the stub."""


class ManualClock:
    """Clock in seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class GatewayProcess:
    """Gateway process that listens on loopback."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def gateway_process(
    model_server: str, environment: Mapping[str, str] | None = None, **settings: object
) -> Iterator[GatewayProcess]:
    """Run a gateway process; yield it once /livez answers.

    By default it has one worker, and its model server no labels. `settings` are fields of Settings,
    `environment` is passed on as it is.
    """
    port = free_port()
    settings = {"port": port, "model_server": model_server, "workers": 1, "default_label": ""} | settings
    variables = {f"DIGITS_{name.upper()}": str(value) for name, value in settings.items()}
    with running("gateway", environment={**variables, **(environment or {})}) as process:
        gateway = GatewayProcess(port, process)
        wait_until(lambda: answers(f"{gateway.url}/livez"), process)
        yield gateway


def npy(array: NDArray[Any]) -> bytes:
    """Return the array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def request_context(request_id: str = "id", waited: float = 0.0, deadline: float = 60.0) -> RequestContext:
    """Create the context of a prediction request that arrived `waited` seconds ago, of `deadline` in all."""
    arrived = time.monotonic() - waited
    return RequestContext(request_id, "/v1/predict", "POST", arrived, arrived, arrived + deadline)


def predict_response(
    probabilities: NDArray[np.float32], version: int = 1, is_digit: NDArray[np.float32] | None = None
) -> PredictResponse:
    """Build a model server's response: probabilities float32 [n, 10], and optionally is_digit float32 [n]."""
    outputs = {codec.OUTPUT: probabilities}
    return outputs_response(
        outputs if is_digit is None else outputs | {codec.IS_DIGIT_OUTPUT: is_digit}, version
    )


def outputs_response(outputs: dict[str, NDArray[np.float32]], version: int = 1) -> PredictResponse:
    """Build a model server's response of these outputs."""
    response = PredictResponse()
    response.model_spec.version.value = version
    for name, output in outputs.items():
        encode(output, response.outputs[name])
    return response


def answer(digit: int, version: int = 1, is_digit: float | None = None) -> Answer:
    """Return a Predict handler that answers every image with this digit."""

    def predict(request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
        count = request.inputs["images"].tensor_shape.dim[0].size
        shares = None if is_digit is None else np.full(count, is_digit, np.float32)
        return predict_response(np.eye(10, dtype=np.float32)[[digit] * count], version, shares)

    return predict


predict_sevens = answer(7)


def predict(http: FlaskClient, *pictures: NDArray[Any], query: str = "", request_id: str = "id-1") -> Any:
    """Send pictures as files, by default a diagonal stroke; return the answer."""
    files = [base64.b64encode(to_png(picture)).decode() for picture in pictures or (IMAGE,)]
    headers = {"X-Request-ID": request_id}
    response = http.post(f"/v1/predict{query}", json={"images": files}, headers=headers)
    assert response.status_code == 200, response.text
    return response.get_json()


def card_response(card: str, version: int = 1) -> PredictResponse:
    """Build a model server's response to a request for a task card, the text of a JSON document."""
    response = PredictResponse()
    response.model_spec.version.value = version
    tensor = response.outputs[codec.CARD_OUTPUT]
    tensor.dtype = DT_STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(card.encode())
    return response


def request_input(request: PredictRequest) -> NDArray[Any]:
    """Return a request's input, of either signature."""
    (tensor,) = request.inputs.values()
    dtype = np.uint8 if "images" in request.inputs else np.float32
    return np.frombuffer(tensor.tensor_content, dtype).reshape([dim.size for dim in tensor.tensor_shape.dim])


class TemplateModel:
    """Predict handler that matches images with typical digits; it gives `is_digit`, and `version` answers.

    `sizes` and `specs` are the number of images and the model of each request.
    """

    def __init__(self, digits: Any, version: int = 1) -> None:
        typical = np.stack([digits.typical(digit, 5) for digit in range(10)])
        self._templates = unit_rows(typical).reshape(10, 5, 784)
        self.version = version
        self.sizes: list[int] = []
        self.specs: list[ModelSpec] = []

    def __call__(self, request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
        pixels = request_input(request).reshape(-1, 784)
        if pixels.dtype == np.uint8:
            pixels = pixels / np.float32(255)
        self.sizes.append(len(pixels))
        self.specs.append(request.model_spec)
        # float64: a black image would overflow below.
        rows = unit_rows(pixels).astype(np.float64)
        correlations = np.einsum("ip,dtp->idt", rows, self._templates).max(axis=2)
        scores = np.exp(40 * (correlations - correlations.max(axis=1, keepdims=True)))
        probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
        is_digit = 1 / (1 + np.exp(-100 * (correlations.max(axis=1) - 0.9)))
        version = request.model_spec.version.value or self.version
        return predict_response(probabilities, version, is_digit.astype(np.float32))


NETWORK = {"name": "perceptron", "accuracy": 0.9}
LAYERS = {
    "00_Conv2D": np.array([[[[4, 0], [0, -1]], [[0, 2], [0, 0]]]], np.float32),
    "01_Dense": np.array([[0.5, 1, 0]], np.float32),
}
"""Network and activations of all versions of TaskModels."""


class TaskModels:
    """Predict handler of models with task cards, by name and version in `tasks`; the newest one answers.

    Like TensorFlow Serving it refuses input of another shape. The mean of an image decides its class: black
    is the first one, white the last one. `inputs` are the inputs of the calls, `versions` what answered them.
    """

    def __init__(self, **tasks: dict[int, TaskCard]) -> None:
        self.tasks = tasks
        self.labels: dict[str, int] = {}
        """Version labels, the same for all models."""
        self.inputs: list[NDArray[Any]] = []
        self.versions: list[tuple[str, int]] = []

    def resolve(self, spec: ModelSpec, context: grpc.ServicerContext) -> int:
        """Return the version that answers; abort if there is none."""
        versions = self.tasks.get(spec.name, {})
        if spec.version_label and spec.version_label not in self.labels:
            message = f"Unrecognized servable version label: {spec.version_label}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        version = self.labels.get(spec.version_label) or spec.version.value or max(versions, default=0)
        if version not in versions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {spec.name}")
        return version

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        spec = request.model_spec
        version = self.resolve(spec, context)
        task = self.tasks[spec.name][version]
        if spec.signature_name == codec.CARD_SIGNATURE:
            response = card_response(json.dumps(task.to_document()), version)
            response.outputs[codec.NETWORK_OUTPUT].string_val.append(json.dumps(NETWORK).encode())
            return response
        if spec.signature_name == codec.LAYERS_SIGNATURE:
            return outputs_response(LAYERS, version)
        batch = request_input(request)
        is_images = spec.signature_name == "images"
        if batch.shape[1:] != (task.shape if is_images else task.instance_shape):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")
        self.inputs.append(batch)
        self.versions.append((spec.name, version))
        low, high = (0, 255) if is_images else task.range
        shares = (batch.reshape(len(batch), -1).mean(axis=1) - low) / (high - low)
        classes = np.minimum(shares * len(task.labels), len(task.labels) - 1).astype(int)
        return predict_response(np.eye(len(task.labels), dtype=np.float32)[classes], version)


def draw_number(digits: Any, *lines: str, scale: int = 4) -> NDArray[np.uint8]:
    """Return dark typical digits on white, each in a square of 28 times `scale` pixels."""
    rows = [np.hstack([digits.one(int(digit)) for digit in line]) for line in lines]
    width = max(row.shape[1] for row in rows)
    ink = np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]))) for row in rows])
    large = cv2.resize(ink, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.asarray(255 - large, np.uint8)


def unit_rows(images: NDArray[Any]) -> NDArray[np.float32]:
    """Blur images of 784 pixels, and scale each to the length 1: float32 [n, 784].

    Blurred images correlate even if their strokes are a pixel apart.
    """
    squares = images.reshape(-1, 28, 28).astype(np.float32)
    rows = np.stack([cv2.GaussianBlur(square, (5, 5), 0) for square in squares]).reshape(-1, 784)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """ASGI application that sends the request's body back."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def write_traffic(folder: Path, **shares: float) -> Path:
    """Write models.traffic.json with the shares of the model digits, and return its path."""
    file = folder / "models.traffic.json"
    file.write_text(json.dumps({"digits": shares}))
    return file


class StubModelServer:
    """gRPC model server; a test sets the handler `answer` of predictions and reads what arrived.

    Its models have no task card, unless `answer` is a TaskModels. `answer_card`, if set, answers requests for
    a card.
    """

    def __init__(self) -> None:
        self.answer: Answer = predict_sevens
        self.answer_card: Answer | None = None
        self.metadata: dict[str, Any] = {}
        self.calls = 0
        """Predictions asked."""
        self.card_calls = 0
        """Task cards asked."""
        self.pages = 0
        """Pages on which the reader was asked to find digits."""
        self.has_reader = True
        self.state = ModelVersionStatus.AVAILABLE
        """State of all versions."""
        self.failed: list[int] = []
        """Further versions, which failed to load."""
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
        self._server.add_generic_rpc_handlers((self,))  # type: ignore[arg-type]
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return the handler of a method, as grpc.GenericRpcHandler does."""
        methods: dict[str, tuple[Callable[..., Any], Any]] = {
            "Predict": (self._predict, PredictRequest),
            "GetModelMetadata": (self._metadata, GetModelMetadataRequest),
            "GetModelStatus": (self._status, GetModelStatusRequest),
        }
        answer, request = methods[details.method.rpartition("/")[2]]
        return grpc.unary_unary_rpc_method_handler(
            answer, request.FromString, lambda response: response.SerializeToString()
        )

    def _predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        if request.model_spec.signature_name == codec.CARD_SIGNATURE:
            return self._card(request, context)
        if request.model_spec.signature_name == codec.LAYERS_SIGNATURE:
            return self._other_signature(request, context)
        if request.model_spec.name == READER_NAME:
            self.pages += 1
            if not self.has_reader:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(reader)")
            return answer_page(request)
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        return self.answer(request, context)

    def _card(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        self.card_calls += 1
        if self.answer_card:
            return self.answer_card(request, context)
        return self._other_signature(request, context)

    def _other_signature(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        if isinstance(self.answer, TaskModels):
            return self.answer(request, context)
        message = f'Serving signature name: "{request.model_spec.signature_name}" not found in signature def'
        raise context.abort(grpc.StatusCode.FAILED_PRECONDITION, message)

    def _metadata(
        self, request: GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        response = GetModelMetadataResponse()
        response.model_spec.version.value = 1
        if isinstance(self.answer, TaskModels):
            response.model_spec.version.value = self.answer.resolve(request.model_spec, context)
        return response

    def _status(
        self, request: GetModelStatusRequest, context: grpc.ServicerContext
    ) -> GetModelStatusResponse:
        versions = [1]
        if isinstance(self.answer, TaskModels):
            versions = list(self.answer.tasks.get(request.model_spec.name, {}))
        if not versions:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        response = GetModelStatusResponse()
        for version in versions:
            response.model_version_status.add(version=version, state=self.state)
        for version in self.failed:
            status = response.model_version_status.add(version=version, state=ModelVersionStatus.END)
            status.status.error_message = "Data loss"
        return response

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture(scope="module", autouse=True)
def no_labels() -> Iterator[None]:
    """Let gateways ask the newest version by default: the model servers of most tests have no labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS_DEFAULT_LABEL", "")
        yield


@pytest.fixture(scope="session")
def http(model_server: str) -> FlaskClient:
    """Test client of the gateway in front of a real model server."""
    return greenlet_loop.client(Settings(model_server=model_server, default_label=""))


@pytest.fixture(scope="session")
def offline_http() -> FlaskClient:
    """Test client of a gateway whose model server is unreachable."""
    return greenlet_loop.client(Settings(model_server="127.0.0.1:1", deadline=0.5))


@pytest.fixture
def start_gateway(model_server: str) -> StartGateway:
    """Function that creates a gateway with these settings and returns a test client of it."""
    return lambda **settings: greenlet_loop.client(Settings(model_server=model_server, **settings))


@pytest.fixture
def stub() -> Iterator[StubModelServer]:
    server = StubModelServer()
    yield server
    server.close()


@pytest.fixture
def release(stub: StubModelServer) -> Iterator[threading.Event]:
    """Event for which the stub's predictions wait, at most for ten seconds."""
    event = threading.Event()

    def wait(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        event.wait(10)
        return predict_sevens(request, context)

    stub.answer = wait
    yield event
    event.set()


@pytest.fixture
def stub_http(stub: StubModelServer) -> FlaskClient:
    """Test client of the gateway in front of the stub."""
    return greenlet_loop.client(Settings(model_server=stub.target))


@pytest.fixture
def hasty_http(stub: StubModelServer) -> FlaskClient:
    """As `stub_http`, with a deadline of half a second."""
    return greenlet_loop.client(Settings(model_server=stub.target, deadline=0.5))


@pytest.fixture
def feedback_url(tmp_path: Path) -> str:
    """URL of a store of feedback that does not exist."""
    return f"sqlite:///{tmp_path / 'feedback.db'}"


@pytest.fixture
def start_feedback(stub: StubModelServer, feedback_url: str) -> Iterator[StartGateway]:
    """Function that starts a gateway in front of the stub, with feedback, and returns a test client of it."""
    with ExitStack() as stack:

        def start(**settings: Any) -> FlaskClient:
            values: dict[str, Any] = {"model_server": stub.target, "feedback": feedback_url}
            values |= {"feedback_open": True, **settings}
            return stack.enter_context(greenlet_loop.keeping(Settings(**values)))

        yield start


@pytest.fixture
def feedback_http(start_feedback: StartGateway) -> FlaskClient:
    """Test client of the gateway in front of the stub, with feedback."""
    return start_feedback()


@pytest.fixture
def feedback_store(feedback_url: str) -> FeedbackStore:
    """Store of feedback, empty."""
    return FeedbackStore(feedback_url)


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    """File of API keys that does not exist."""
    return KeyFile(tmp_path / "keys")


@pytest.fixture
def start_labelling(start_feedback: StartGateway, key_file: KeyFile) -> StartGateway:
    """Function that starts a gateway with these settings; its test client has a key that may label."""
    headers = {"HTTP_AUTHORIZATION": f"Bearer {key_file.add('lab', may_label=True)}"}

    def start(**settings: Any) -> FlaskClient:
        client = start_feedback(**({"api_keys": key_file.path, "feedback_open": False} | settings))
        client.environ_base |= headers
        return client

    return start


@pytest.fixture
def label_http(start_labelling: StartGateway) -> FlaskClient:
    """Test client, with a key that may label, of a gateway in front of the stub."""
    return start_labelling()
