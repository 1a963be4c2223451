"""Batching: merging of requests, padding, and refusals."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from digit_serving.errors import ServingError
from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.config import read
from tests.serving.model_servers import COLORS, predict_request, running_core

ROW = np.ones((1, 2))


def batcher(text: str) -> Batcher:
    return Batcher(text_format.Parse(text, read("", "BatchingParameters")))


class Doubler:
    """Model that records the sizes of its runs, and blocks each run until `go` is set."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.started, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, inputs: list[Any]) -> list[Any]:
        self.sizes.append(len(inputs[0]))
        self.started.set()
        assert self.go.wait(10)
        return [array * 2 for array in inputs]


@pytest.mark.parametrize(
    ("parameters", "keys", "sizes"),
    [
        # Without merging, each request would wait for ten seconds.
        ("max_batch_size { value: 6 } batch_timeout_micros { value: 10000000 }", "aaa", [6]),
        ("max_batch_size { value: 4 } batch_timeout_micros { value: 200000 }", "ab", [2, 2]),
        ("batch_timeout_micros { value: 1000 }", "a", [2]),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8", "a", [4]),
    ],
    ids=["shared", "separate keys", "timeout", "padded"],
)
def test_run_merges_waiting_requests_with_the_same_key(parameters: str, keys: str, sizes: list[int]) -> None:
    run, batches = Doubler(), batcher(parameters)
    with ThreadPoolExecutor(len(keys)) as threads:
        inputs = [[np.full((2, 3), float(n))] for n in range(len(keys))]
        outputs = list(threads.map(lambda key, arrays: batches.run(key, run, arrays), keys, inputs))
    assert run.sizes == sizes
    assert [array.tolist() for [array] in outputs] == [[[2.0 * n] * 3] * 2 for n in range(len(keys))]


def test_run_with_full_queue_raises_unavailable() -> None:
    run = Doubler()
    text = "max_batch_size { value: 1 } max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }"
    batches = batcher(text)
    run.go.clear()
    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(batches.run, "key", run, [ROW])
        assert run.started.wait(10)
        others = [threads.submit(batches.run, "key", run, [ROW]) for _ in range(2)]
        done, waiting = wait(others, timeout=10, return_when=FIRST_COMPLETED)
        run.go.set()
    assert [str(future.exception()) for future in done] == ["UNAVAILABLE: the batching queue is full"]
    for future in (running, *waiting):
        assert future.result()[0].tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([np.ones((9, 1))], "9 rows exceed max_batch_size, 8"),
        ([np.float64(1.0)], "batched inputs must have the same number of rows, and at least one"),
        ([np.ones((0, 2))], "batched inputs must have the same number of rows, and at least one"),
        ([np.ones(1), np.ones(2)], "batched inputs must have the same number of rows, and at least one"),
    ],
)
def test_run_unfit_inputs_raises(inputs: list[Any], message: str) -> None:
    with pytest.raises(ServingError, match=f"INVALID_ARGUMENT: {message}"):
        batcher("max_batch_size { value: 8 }").run("key", Doubler(), inputs)


@pytest.mark.parametrize("outputs", [lambda _: [np.float64(1.0)], lambda inputs: [inputs[0][:0]]])
def test_run_outputs_of_another_size_raises(outputs: Callable[[list[Any]], list[Any]]) -> None:
    with pytest.raises(ServingError, match="FAILED_PRECONDITION: batched outputs must have"):
        batcher("").run("key", outputs, [ROW])


def test_predict_with_batching_merges_requests_of_the_same_shape(saved_models: Path, tmp_path: Path) -> None:
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 2 } batch_timeout_micros { value: 10000000 }")
    flags = ("--enable_batching", f"--batching_parameters_file={parameters}")

    def predict(x: np.ndarray[Any, Any]) -> list[float]:
        outputs = core.predict(predict_request("default", x=x), float("inf")).outputs
        return list(outputs["y"].float_val)

    requests = [np.full(shape, 2.0, np.float32) for shape in ((1, 1), (1, 2), (1, 1), (1, 2))]
    with (
        running_core(f"--model_base_path={saved_models / 'half_plus_two'}", *flags) as core,
        ThreadPoolExecutor(4) as threads,
    ):
        # Without merging, each request would wait for ten seconds.
        assert list(threads.map(predict, requests)) == [[3.0], [3.0, 3.0]] * 2


def test_predict_with_batching_serves_several_outputs_and_color_images(saved_models: Path) -> None:
    images = np.zeros((3, *COLORS.shape), np.uint8)
    with running_core(f"--model_base_path={saved_models / 'colors'}", "--enable_batching") as core:
        for count in (1, 2):
            request = predict_request("default", "card", unused=np.zeros(count, np.uint8))
            assert len(core.predict(request, float("inf")).outputs["card"].string_val) == count
        output = core.predict(predict_request("default", "images", images=images), float("inf")).outputs
    assert [dim.size for dim in output["probabilities"].tensor_shape.dim] == [3, len(COLORS.labels)]
