import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_client.errors import DeadlineExceededError, UnavailableError
from digit_client.model_server import ModelServer
from digit_client.predictions import Prediction
from digit_client.protos import PredictRequest, PredictResponse
from digit_client.wire import ModelRef
from digit_serving import greenlets
from digit_serving.gateway import backlog
from digit_serving.gateway.backlog import Backlog
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.record import Record
from digit_serving.gateway.turns import Turns
from digit_serving.unary.channel import Channel
from tests import loop
from tests.processes import wait_until
from tests.serving.gateway.conftest import FaultyModelServer, answer

MODEL = ModelRef("digits")


def record(request_id: str) -> Record:
    now = time.perf_counter()
    return Record(request_id, "/v1/predict", "POST", started=now, begun=now)


def showing(*numbers: int) -> NDArray[np.uint8]:
    """Images whose first pixel tells what the server below is to answer."""
    batch = np.zeros((len(numbers), 28, 28), np.uint8)
    batch[:, 0, 0] = numbers
    return batch


class Server:
    """A model server that notes what it is asked, and answers only while `open` is set."""

    def __init__(self, faulty: FaultyModelServer) -> None:
        faulty.answer = self._answer
        self.faulty, self.open = faulty, Event()
        self.calls: list[tuple[int, str, str]] = []
        """Of each call the version, the first pixels, and the request ids."""
        self.fails = False

    def _answer(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        numbers = np.frombuffer(request.inputs["images"].tensor_content, np.uint8)[::784]
        ids = str(dict(context.invocation_metadata())["x-request-id"])
        self.calls.append((request.model_spec.version.value, bytes(numbers).hex(), ids))
        assert self.open.wait(5)
        if self.fails:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        return answer(np.eye(10, dtype=np.float32)[numbers])


@pytest.fixture
def server(faulty: FaultyModelServer) -> Iterator[Server]:
    server = Server(faulty)
    yield server
    server.open.set()


class Callers:
    """Requests that each have a thread of their own."""

    def __init__(self, server: Server, calls: int = 1, max_images: int = 256) -> None:
        self.connection = loop.call(ModelServer, server.faulty.target, Channel)
        self.backlog = Backlog(most=1000, patience=60)
        self.batcher = Batcher(self.connection, self.backlog, calls=calls, max_images=max_images)
        self.threads = ThreadPoolExecutor(150)

    def ask(self, *numbers: int, model: ModelRef = MODEL, timeout: float = 5.0) -> Future[list[Prediction]]:
        name = "+".join(map(str, numbers))
        asked = self.threads.submit(
            loop.call, self.batcher.predict, showing(*numbers), model, timeout=timeout, record=record(name)
        )
        # In the order in which the test asks.
        time.sleep(0.1)
        return asked


@pytest.fixture
def callers(server: Server) -> Iterator[Callers]:
    callers = Callers(server)
    yield callers
    server.open.set()
    callers.threads.shutdown()
    loop.call(callers.connection.close)


def digits(predictions: list[Prediction]) -> list[int]:
    return [prediction.digit for prediction in predictions]


def test_a_lone_request_is_asked_for_by_itself(server: Server, callers: Callers) -> None:
    server.open.set()
    assert digits(callers.ask(3, 1, 4).result()) == [3, 1, 4]
    assert digits(callers.ask(1).result()) == [1]
    assert server.calls == [(0, "030104", "3+1+4"), (0, "01", "1")]


def test_those_who_come_while_a_call_is_out_share_the_next(server: Server, callers: Callers) -> None:
    asked = [callers.ask(0), callers.ask(1, 2), callers.ask(3), callers.ask(4, 5, 6)]
    server.open.set()
    assert [digits(one.result()) for one in asked] == [[0], [1, 2], [3], [4, 5, 6]]
    assert server.calls == [(0, "00", "0"), (0, "010203040506", "1+2,3,4+5+6")]


def test_nobody_waits_for_all_whose_images_take_long_to_read(server: Server, callers: Callers) -> None:
    server.open.set()
    turns = Turns()

    def ask() -> list[Prediction]:
        turns.take()
        until = time.perf_counter() + 0.02
        while time.perf_counter() < until:
            pass
        return callers.batcher.predict(showing(7), MODEL, timeout=5, record=record("7"))

    async def ask_at_once() -> list[list[Prediction]]:
        return await asyncio.gather(*(greenlets.run(ask) for _ in range(30)))

    answers = loop.call(lambda: greenlets.wait_for(ask_at_once()))
    assert [digits(one) for one in answers] == [[7]] * 30
    _, images, _ = server.calls[0]
    assert len(bytes.fromhex(images)) < 15


def test_several_calls_may_be_out(server: Server) -> None:
    callers = Callers(server, calls=2)
    asked = [callers.ask(0), callers.ask(1), callers.ask(2), callers.ask(3)]
    wait_until(lambda: len(server.calls) == 2)
    server.open.set()
    assert [digits(one.result()) for one in asked] == [[0], [1], [2], [3]]
    assert [call[1] for call in server.calls[:2]] == ["00", "01"]


def test_a_call_holds_no_more_images_than_it_may(server: Server) -> None:
    callers = Callers(server, max_images=3)
    asked = [callers.ask(0), callers.ask(1, 1), callers.ask(2, 2), callers.ask(3, 3, 3, 3), callers.ask(4)]
    server.open.set()
    assert [digits(one.result()) for one in asked] == [[0], [1, 1], [2, 2], [3, 3, 3, 3], [4]]
    assert [call[1] for call in server.calls] == ["00", "0101", "0202", "03030303", "04"]


def test_a_call_holds_no_more_request_ids_than_grpc_takes(server: Server, callers: Callers) -> None:
    first = callers.ask(0)
    asked = [
        callers.threads.submit(
            loop.call,
            callers.batcher.predict,
            showing(5),
            MODEL,
            timeout=5.0,
            record=record(f"{number:0128}"),
        )
        for number in range(149)
    ]
    time.sleep(0.3)
    server.open.set()
    assert digits(first.result()) == [0]
    assert [digits(one.result()) for one in asked] == [[5]] * 149
    assert sum(len(bytes.fromhex(call[1])) for call in server.calls) == 150


def test_requests_for_other_models_go_by_themselves(server: Server, callers: Callers) -> None:
    asked = [callers.ask(0), callers.ask(1), callers.ask(2, model=ModelRef("digits", version=7))]
    wait_until(lambda: len(server.calls) == 2)
    server.open.set()
    assert [digits(one.result()) for one in asked] == [[0], [1], [2]]
    assert server.calls == [(0, "00", "0"), (7, "02", "2"), (0, "01", "1")]


def test_an_error_reaches_all_who_share_the_call(server: Server, callers: Callers) -> None:
    server.fails = True
    asked = [callers.ask(0), callers.ask(1), callers.ask(2)]
    server.open.set()
    for one in asked:
        with pytest.raises(UnavailableError):
            one.result()
    server.fails = False
    assert digits(callers.ask(3).result()) == [3]


def test_a_request_gives_up_at_its_deadline_and_others_go_on(server: Server, callers: Callers) -> None:
    first = callers.ask(0)
    impatient, patient = callers.ask(1, timeout=0.2), callers.ask(2)
    with pytest.raises(DeadlineExceededError):
        impatient.result()
    server.open.set()
    assert digits(first.result()) == [0]
    assert digits(patient.result()) == [2]
    assert [call[1] for call in server.calls] == ["00", "02"]


def test_other_requests_are_worked_on_while_a_call_takes_long(
    server: Server, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_LOOK_SECONDS", 60)
    went_on: list[bool] = []

    def go_on() -> bool:
        went_on.append(True)
        return True

    def have_another_wait() -> None:
        while not callers.backlog.is_long:
            callers.backlog.begin()
        callers.backlog.wait(go_on, lambda: None)

    loop.call(have_another_wait)
    asked = callers.ask(1)
    wait_until(lambda: bool(went_on))
    server.open.set()
    assert digits(asked.result()) == [1]


def test_a_call_that_hangs_ends_at_the_deadline(server: Server, callers: Callers) -> None:
    asked = [callers.ask(0, timeout=0.3), callers.ask(1, timeout=0.3), callers.ask(2, timeout=0.3)]
    for one in asked:
        with pytest.raises(DeadlineExceededError):
            one.result(timeout=2)
    server.open.set()
    assert digits(callers.ask(3).result()) == [3]
