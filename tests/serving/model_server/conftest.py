"""SavedModels of TensorFlow 1 and 2, and model servers of them as real processes on loopback."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from tests.processes import DIGITS, accepts, free_port, wait_until


@dataclass
class Server:
    """A running model server; `predict` asks it over gRPC for the outputs of named arrays."""

    process: subprocess.Popen[bytes]
    port: int
    rest_port: int
    log: Path
    _channels: list[grpc.Channel] = field(default_factory=list)

    def channel(self) -> grpc.Channel:
        self._channels.append(grpc.insecure_channel(f"127.0.0.1:{self.port}"))
        return self._channels[-1]

    @property
    def prediction(self) -> Any:
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel())

    @property
    def models(self) -> Any:
        return model_service_pb2_grpc.ModelServiceStub(self.channel())

    def predict(self, model: str, signature: str = "", outputs: tuple[str, ...] = (), **inputs: Any) -> Any:
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name, request.model_spec.signature_name = model, signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return self.prediction.Predict(request, 10)

    def rest(self, path: str, body: Any = None) -> httpx.Response:
        url = f"http://127.0.0.1:{self.rest_port}{path}"
        if body is None:
            return httpx.get(url)
        return httpx.post(url, content=body) if isinstance(body, bytes) else httpx.post(url, json=body)

    def states(self, model: str) -> dict[str, str]:
        """The state of each version."""
        status = self.rest(f"/v1/models/{model}").json().get("model_version_status", [])
        return {entry["version"]: entry["state"] for entry in status}

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, self.process)

    def stop(self) -> int:
        for channel in self._channels:
            channel.close()
        self.process.terminate()
        return self.process.wait(20)


Serve = Callable[..., Server]


def _serve(stack: ExitStack, folder: Path, flags: tuple[str, ...], wait: bool) -> Server:
    port, rest_port, log = free_port(), free_port(), folder / "log"
    command = [*DIGITS, "model-server", f"--port={port}", f"--rest_api_port={rest_port}", *flags]
    with log.open("wb") as stderr:
        server = Server(subprocess.Popen(command, stderr=stderr), port, rest_port, log)
    stack.callback(server.stop)
    if wait:
        server.wait_for(lambda: accepts(rest_port))
    return server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a model server for one test."""
    with ExitStack() as stack:
        yield lambda *flags, wait=True: _serve(stack, tmp_path, flags, wait)


@pytest.fixture(scope="session")
def server(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of all models, for the tests that only ask."""
    folder = tmp_path_factory.mktemp("server")
    config = folder / "models.config"
    entries = "".join(
        f'config {{ name: "{path.name}" base_path: "{path}" model_platform: "tensorflow" '
        f"{EXTRA.get(path.name, '')} }}\n"
        for path in sorted(saved_models.iterdir())
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    monitoring = folder / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    flags = (
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models=true",
        f"--monitoring_config_file={monitoring}",
        f"--grpc_socket_path={folder / 'grpc.sock'}",
        "--enable_grpc_healthcheck_service",
        "--rest_api_enable_cors_support",
    )
    with ExitStack() as stack:
        yield _serve(stack, folder, flags, wait=True)


EXTRA = {"versions": 'model_version_policy { all {} } version_labels { key: "stable" value: 1 }'}


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: half_plus_two and half_plus_three as in TensorFlow 1, the rest of TensorFlow 2."""
    folder = tmp_path_factory.mktemp("saved_models")
    _save_half_plus(folder / "half_plus_two" / "00000123", 2.0)
    _save_half_plus(folder / "half_plus_three" / "00000123", 3.0)
    _save_tf2(folder / "tf2" / "1")
    for number in (1, 2):
        _save_constant(folder / "versions" / str(number), float(number))
    return folder


@pytest.fixture
def constant(tmp_path: Path) -> Callable[..., Path]:
    """Saves a version that answers `y` = `value` for each row of `x`, by a rename as one should."""

    def save(base: Path, version: int, value: float) -> Path:
        _save_constant(tmp_path / "new", value)
        base.mkdir(exist_ok=True)
        shutil.move(tmp_path / "new", tmp_path / "moving")
        return (tmp_path / "moving").rename(base / str(version))

    return save


def _save_half_plus(directory: Path, addend: float) -> None:
    """`y = x / 2 + addend` with variables and signatures of all three kinds, as TensorFlow 1 saves it."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        a, b = v1.get_variable("a", initializer=0.5), v1.get_variable("b", initializer=addend)
        examples = v1.placeholder(tf.string, name="tf_example")
        parsed = v1.parse_example(examples, {"x": v1.FixedLenFeature([1], tf.float32)})
        x = tf.reshape(parsed["x"], [-1, 1], name="x")
        y = tf.add(a * x, b, name="y")
        builder = v1.saved_model.builder.SavedModelBuilder(str(directory))
        info, define = (
            v1.saved_model.build_tensor_info,
            v1.saved_model.signature_def_utils.build_signature_def,
        )
        session.run(v1.global_variables_initializer())
        signatures = {
            "serving_default": define({"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"),
            "regress_x_to_y": define(
                {"inputs": info(examples)}, {"outputs": info(y)}, "tensorflow/serving/regress"
            ),
            "classify_x_to_y": define(
                {"inputs": info(examples)}, {"scores": info(y)}, "tensorflow/serving/classify"
            ),
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def _save_constant(directory: Path, value: float) -> None:
    root = tf.Module()
    root.value = tf.Variable(value)
    _save(directory, root, {"serving_default": (lambda x: {"y": tf.ones_like(x) * root.value}, X)})


def _save_tf2(directory: Path) -> None:
    """Signatures of many types; the default one makes probabilities of rows of 784 pixels."""
    root = tf.Module()
    root.weights = tf.Variable(np.random.default_rng(0).normal(size=(784, 10)).astype(np.float32) / 100)

    def probabilities(pixels: Any) -> dict[str, Any]:
        return {"probabilities": tf.nn.softmax(pixels @ root.weights)}

    def images(images: Any) -> dict[str, Any]:
        return probabilities(tf.reshape(tf.cast(images, tf.float32) / 255.0, [-1, 784]))

    def many(text: Any, number: Any) -> dict[str, Any]:
        return {"text": text, "raw_bytes": text, "double": number * 2, "odd": number % 2 == 1}

    def numbers(x: Any) -> dict[str, Any]:
        types = (tf.float16, tf.float64, tf.int8, tf.uint8, tf.int32, tf.uint32, tf.uint64, tf.complex64)
        return {dtype.name: tf.cast(x, dtype) for dtype in types}

    def slow(x: Any) -> dict[str, Any]:
        start = (0, tf.ones([400, 400]))
        _, matrix = tf.while_loop(lambda i, _: i < 400, lambda i, m: (i + 1, m @ m / 400.0), start)
        return {"y": x + 0.0 * matrix[0, 0]}

    def wait(seconds: Any) -> dict[str, Any]:
        end = tf.timestamp() + tf.cast(seconds[0], tf.float64)
        return {"turns": tf.while_loop(lambda _: tf.timestamp() < end, lambda turns: turns + 1, [0])[0]}

    functions = {
        "serving_default": (probabilities, [tf.TensorSpec([None, 784], tf.float32)]),
        "images": (images, [tf.TensorSpec([None, 28, 28], tf.uint8)]),
        "many": (many, [tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)]),
        "total": (lambda x: {"sum": tf.reduce_sum(x)}, X),
        "numbers": (numbers, X),
        "slow": (slow, X),
        "wait": (wait, X),
    }
    _save(directory, root, functions)


X = [tf.TensorSpec([None], tf.float32)]


def _save(directory: Path, root: Any, functions: dict[str, Any]) -> None:
    signatures = {name: tf.function(f, input_signature=spec) for name, (f, spec) in functions.items()}
    tf.saved_model.save(root, str(directory), signatures)
