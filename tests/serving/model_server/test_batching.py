"""Batches: who shares one, how it is padded, and who is refused."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.config import read
from digit_serving.model_server.errors import ServingError

ROW = np.ones((1, 2))


def batcher(text: str) -> Batcher:
    return Batcher(text_format.Parse(text, read("", "BatchingParameters")))


class Doubler:
    """Remembers the sizes of its runs, the first of which may have to wait."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.started, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, inputs: list[Any]) -> list[Any]:
        self.sizes.append(len(inputs[0]))
        self.started.set()
        assert self.go.wait(10)
        return [array * 2 for array in inputs]


def test_one_run_for_all_who_wait() -> None:
    run, batches = Doubler(), batcher("max_batch_size { value: 6 } batch_timeout_micros { value: 10000000 }")
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(batches.run, "key", run, [np.full((2, 3), float(n))]) for n in range(3)]
    assert run.sizes == [6]
    for n, future in enumerate(futures):
        assert future.result()[0].tolist() == [[2.0 * n] * 3] * 2


def test_a_timeout_ends_the_wait() -> None:
    run, batches = Doubler(), batcher("batch_timeout_micros { value: 1000 }")
    assert batches.run("key", run, [ROW])[0].tolist() == [[2.0, 2.0]]


def test_other_keys_have_batches_of_their_own() -> None:
    run, batches = Doubler(), batcher("max_batch_size { value: 2 } batch_timeout_micros { value: 200000 }")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda key: batches.run(key, run, [ROW]), "ab"))
    assert run.sizes == [1, 1]


def test_padding_to_an_allowed_size() -> None:
    run = Doubler()
    batches = batcher("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8")
    [output] = batches.run("key", run, [np.arange(3.0)])
    assert (run.sizes, output.tolist()) == ([4], [0.0, 2.0, 4.0])


def test_a_full_queue() -> None:
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
    full = "UNAVAILABLE: The batch scheduling queue to which this task was submitted is full"
    assert [str(future.exception()) for future in done] == [full]
    for future in (running, *waiting):
        assert future.result()[0].tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([np.ones((9, 1))], "Task size 9 is larger than maximum input batch size 8"),
        ([np.float64(1.0)], "Batching Run.. input tensors must have at least one dimension"),
        ([np.ones(1), np.ones(2)], "Batching Run.. input tensors must have equal 0th-dimension size"),
    ],
)
def test_inputs_that_do_not_fit(inputs: list[Any], message: str) -> None:
    with pytest.raises(ServingError, match=f"INVALID_ARGUMENT: {message}"):
        batcher("max_batch_size { value: 8 }").run("key", Doubler(), inputs)


@pytest.mark.parametrize("outputs", [lambda _: [np.float64(1.0)], lambda inputs: [inputs[0][:0]]])
def test_outputs_that_can_not_be_shared_out(outputs: Callable[[list[Any]], list[Any]]) -> None:
    with pytest.raises(ServingError, match="FAILED_PRECONDITION: Batched output tensor"):
        batcher("").run("key", outputs, [ROW])


@pytest.mark.parametrize("sizes", ["allowed_batch_sizes: 4", "allowed_batch_sizes: 8 allowed_batch_sizes: 4"])
def test_sizes_that_do_not_fit(sizes: str) -> None:
    with pytest.raises(ServingError, match="allowed_batch_sizes"):
        batcher(f"max_batch_size {{ value: 8 }} {sizes}")


def test_a_failure_is_everyones() -> None:
    def fail(_: Any) -> list[Any]:
        raise ServingError("no")

    with pytest.raises(ServingError, match="no"):
        batcher("").run("key", fail, [ROW])
