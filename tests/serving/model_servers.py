"""Model servers for tests: SavedModels to serve, cores in this process, and requests."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from digit_core.artifact.task_card import CardInput, TaskCard
from digit_core.tfserving.codec import CARD_INPUT, CARD_OUTPUT, CARD_SIGNATURE
from digit_serving.model_server import config, flags
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.server import create_core
from tests.processes import wait_until

POLL_SECONDS = 0.05
COLORS = TaskCard("colors", ("blue", "grün", "red", "yellow"), CardInput((6, 4, 3), (-1.0, 1.0)))
"""Task of a small classifier of colour pictures."""
_FLOATS = [tf.TensorSpec([None], tf.float32)]


@contextmanager
def running_core(*arguments: str, **options: Any) -> Iterator[ServerCore]:
    """Run a core with these flags, overridden by `options`, until the end of the block.

    The core polls its configuration file and its base paths every POLL_SECONDS.
    """
    parsed = flags.parse(arguments)
    vars(parsed).update(
        {"file_system_poll_wait_seconds": POLL_SECONDS, "model_config_file_poll_wait_seconds": POLL_SECONDS}
        | options
    )
    core = create_core(parsed)
    models = [model.name for model in config.read_models(parsed).model_config_list.config]
    try:
        yield core
    finally:
        parsed.file_system_poll_wait_seconds = parsed.model_config_file_poll_wait_seconds = 0
        time.sleep(2 * POLL_SECONDS)
        # The interpreter must not exit while the core's thread runs TensorFlow.
        wait_until(lambda: all(is_settled(core, model) for model in models))


def is_settled(core: ServerCore, model: str) -> bool:
    """True if no version of the model is being loaded or unloaded."""
    statuses = core.status(GetModelStatusRequest(model_spec={"name": model})).model_version_status
    return all(status.state in (status.AVAILABLE, status.END) for status in statuses)


def predict_request(
    model: str, signature: str = "", outputs: tuple[str, ...] = (), **inputs: Any
) -> PredictRequest:
    """Return a request for these outputs (default: all) of named arrays."""
    request = PredictRequest(output_filter=outputs)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def model_config(name: str, base_path: Path, extra: str = "") -> str:
    """Return an entry of models.config."""
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {extra} }}'


def save_half_plus(directory: Path, addend: float) -> None:
    """Save `y = x / 2 + addend` with TensorFlow 1, with a predict, a regress and a classify signature."""
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


def save_constant(directory: Path, value: float) -> None:
    """Save a model with TensorFlow 2 that answers `y` = `value` for each row of `x`."""
    root = tf.Module()
    root.value = tf.Variable(value)
    _save(directory, root, {"serving_default": (lambda x: {"y": tf.ones_like(x) * root.value}, _FLOATS)})


def save_classifier(directory: Path, task: TaskCard) -> None:
    """Save an unfitted classifier with the signatures of a published version, and a model card."""
    root, pixels = tf.Module(), int(np.prod(task.shape))
    weights = np.random.default_rng(0).normal(size=(pixels, len(task.labels))).astype(np.float32)
    root.weights = tf.Variable(weights / pixels)
    low, high = task.range
    document = json.dumps(task.to_document())

    def probabilities(pixels: Any) -> dict[str, Any]:
        rows = tf.reshape(pixels, [-1, root.weights.shape[0]])
        return {"probabilities": tf.nn.softmax(rows @ root.weights)}

    def images(images: Any) -> dict[str, Any]:
        return probabilities(tf.cast(images, tf.float32) * ((high - low) / 255.0) + low)

    def card(unused: Any) -> dict[str, Any]:
        return {CARD_OUTPUT: tf.fill(tf.shape(unused), document)}

    functions: dict[str, tuple[Callable[..., dict[str, Any]], list[tf.TensorSpec]]] = {
        "serving_default": (probabilities, [tf.TensorSpec([None, *task.instance_shape], tf.float32)]),
        "images": (images, [tf.TensorSpec([None, *task.shape], tf.uint8)]),
        CARD_SIGNATURE: (card, [tf.TensorSpec([None], tf.uint8, CARD_INPUT)]),
    }
    _save(directory, root, functions)
    (directory / "assets.extra").mkdir()
    (directory / "assets.extra" / "model.json").write_text(json.dumps({"task": task.to_document()}))


def save_perceptron(directory: Path) -> None:
    """Save an unfitted classifier of digits with TensorFlow 2, and signatures of many types."""
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

    def wait(seconds: Any) -> dict[str, Any]:
        end = tf.timestamp() + tf.cast(seconds[0], tf.float64)
        iterations = tf.while_loop(lambda _: tf.timestamp() < end, lambda count: count + 1, [0])[0]
        return {"y": seconds + 0.0 * tf.cast(iterations, tf.float32)}

    functions: dict[str, tuple[Callable[..., dict[str, Any]], list[tf.TensorSpec]]] = {
        "serving_default": (probabilities, [tf.TensorSpec([None, 784], tf.float32)]),
        "images": (images, [tf.TensorSpec([None, 28, 28], tf.uint8)]),
        "many": (many, [tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)]),
        "total": (lambda x: {"sum": tf.reduce_sum(x)}, _FLOATS),
        "numbers": (numbers, _FLOATS),
        "wait": (wait, _FLOATS),
        "echo": (lambda text: {"text": text}, [tf.TensorSpec([], tf.string)]),
        "short": (lambda x: {"y": tf.identity(x)}, [tf.TensorSpec([None], tf.uint16)]),
    }
    _save(directory, root, functions)


def _save(directory: Path, root: Any, functions: dict[str, Any]) -> None:
    signatures = {name: tf.function(f, input_signature=spec) for name, (f, spec) in functions.items()}
    tf.saved_model.save(root, str(directory), signatures)
