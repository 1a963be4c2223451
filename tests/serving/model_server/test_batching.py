"""Batching: merging of requests, padding, and refusals."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from digit_client import TaskCard
from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.config import read
from digit_serving.model_server.errors import ServingError
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


def test_run_waiting_requests_share_a_batch() -> None:
    run, batches = Doubler(), batcher("max_batch_size { value: 6 } batch_timeout_micros { value: 10000000 }")
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(batches.run, "key", run, [np.full((2, 3), float(n))]) for n in range(3)]
    assert run.sizes == [6]
    for n, future in enumerate(futures):
        assert future.result()[0].tolist() == [[2.0 * n] * 3] * 2


def test_run_single_request_ends_at_timeout() -> None:
    run, batches = Doubler(), batcher("batch_timeout_micros { value: 1000 }")
    assert batches.run("key", run, [ROW])[0].tolist() == [[2.0, 2.0]]


def test_run_different_keys_have_separate_batches() -> None:
    run, batches = Doubler(), batcher("max_batch_size { value: 2 } batch_timeout_micros { value: 200000 }")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda key: batches.run(key, run, [ROW]), "ab"))
    assert run.sizes == [1, 1]


def test_run_pads_to_an_allowed_size() -> None:
    run = Doubler()
    batches = batcher("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8")
    [output] = batches.run("key", run, [np.arange(3.0)])
    assert (run.sizes, output.tolist()) == ([4], [0.0, 2.0, 4.0])


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
        ([np.float64(1.0)], "batched inputs must have at least one dimension"),
        ([np.ones(1), np.ones(2)], "batched inputs must have the same size in dimension 0"),
    ],
)
def test_run_unfit_inputs_raises(inputs: list[Any], message: str) -> None:
    with pytest.raises(ServingError, match=f"INVALID_ARGUMENT: {message}"):
        batcher("max_batch_size { value: 8 }").run("key", Doubler(), inputs)


@pytest.mark.parametrize("outputs", [lambda _: [np.float64(1.0)], lambda inputs: [inputs[0][:0]]])
def test_run_outputs_of_another_size_raises(outputs: Callable[[list[Any]], list[Any]]) -> None:
    with pytest.raises(ServingError, match="FAILED_PRECONDITION: batched outputs must have"):
        batcher("").run("key", outputs, [ROW])


@pytest.mark.parametrize("sizes", ["allowed_batch_sizes: 4", "allowed_batch_sizes: 8 allowed_batch_sizes: 4"])
def test_batcher_unfit_allowed_sizes_raises(sizes: str) -> None:
    with pytest.raises(ServingError, match="allowed_batch_sizes"):
        batcher(f"max_batch_size {{ value: 8 }} {sizes}")


def test_run_failing_model_raises() -> None:
    def fail(_: Any) -> list[Any]:
        raise ServingError("no")

    with pytest.raises(ServingError, match="no"):
        batcher("").run("key", fail, [ROW])


def test_predict_with_enable_batching_merges_requests(saved_models: Path, tmp_path: Path) -> None:
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 2 } batch_timeout_micros { value: 10000000 }")
    flags = (
        f"--model_base_path={saved_models / 'half_plus_two'}",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
    )

    def predict(x: float) -> list[float]:
        request = predict_request("default", x=np.array([x], np.float32))
        return list(core.predict(request, float("inf")).outputs["y"].float_val)

    with running_core(*flags) as core, ThreadPoolExecutor(2) as threads:
        # Without merging, each request would wait for ten seconds.
        assert list(threads.map(predict, (2.0, 4.0))) == [[3.0], [4.0]]


def test_predict_with_enable_batching_serves_task_cards_and_color_images(saved_models: Path) -> None:
    images = np.zeros((3, *COLORS.shape), np.uint8)
    with running_core(f"--model_base_path={saved_models / 'colors'}", "--enable_batching") as core:
        for count in (1, 2):
            request = predict_request("default", "card", unused=np.zeros(count, np.uint8))
            cards = core.predict(request, float("inf")).outputs["card"].string_val
            assert [TaskCard.from_document(json.loads(card)) for card in cards] == [COLORS] * count
        output = core.predict(predict_request("default", "images", images=images), float("inf")).outputs
        assert [dim.size for dim in output["probabilities"].tensor_shape.dim] == [3, len(COLORS.labels)]
