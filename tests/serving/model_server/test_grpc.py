"""gRPC transport: methods, threads, TLS, channel arguments and addresses."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.errors import ServingError
from digit_serving.model_server import flags, grpc_service
from digit_serving.model_server.core import ServerCore
from tests import certificates
from tests.core.blocking import BlockingAsync
from tests.processes import free_port, wait_until
from tests.serving.model_server.conftest import ServeGrpc
from tests.serving.model_servers import COLORS, predict_request


def status_of_unknown_model(channel: grpc.Channel) -> grpc.StatusCode:
    """Return NOT_FOUND if the channel reaches a server."""
    with pytest.raises(grpc.RpcError) as caught:
        PredictionServiceStub(channel).Predict(PredictRequest(model_spec={"name": "absent"}), 5)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.fixture
def port(serve_grpc: ServeGrpc) -> Iterator[int]:
    """Port of a gRPC server of the core."""
    with serve_grpc() as port:
        yield port


def test_other_methods_are_unimplemented(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = PredictionServiceStub(channel)
        for call, request in (
            (stub.Classify, classification_pb2.ClassificationRequest()),
            (stub.Regress, regression_pb2.RegressionRequest()),
            (stub.MultiInference, inference_pb2.MultiInferenceRequest()),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(request, 5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_call_beyond_the_threads_is_refused_until_one_is_free(serve_grpc: ServeGrpc) -> None:
    with serve_grpc("--grpc_max_threads=2") as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = PredictionServiceStub(channel).Predict.future
        calls: list[Any] = []

        def are_threads_taken() -> bool:
            # An answered call may hold its thread for a moment: send anew what is refused.
            calls[:] = [waiting for waiting in calls if not waiting.done()]
            calls.extend(
                call(predict_request("tf2", "wait", seconds=[1.0]), 30) for _ in range(2 - len(calls))
            )
            status = status_of_unknown_model(channel)
            return status is grpc.StatusCode.RESOURCE_EXHAUSTED and not any(each.done() for each in calls)

        wait_until(are_threads_taken)
        assert [list(call.result().outputs["y"].float_val) for call in calls] == [[1.0]] * 2
        wait_until(lambda: status_of_unknown_model(channel) is grpc.StatusCode.NOT_FOUND)


def test_predict_serves_task_card_and_color_images(port: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, *COLORS.shape), np.uint8)
    deadline = time.monotonic() + 10
    with BlockingAsync(AsyncConnection, f"127.0.0.1:{port}") as connection:
        served = connection.served(ModelRef("colors"), deadline=deadline)
        assert served.card == COLORS
        predictions = connection.predict(images, served, deadline=deadline)
        assert [prediction.labels for prediction in predictions] == [COLORS.labels] * len(images)
        # The perceptron has no card: it is that of the digits.
        assert connection.served(ModelRef("tf2"), deadline=deadline).card.has_digit_labels


def test_predict_takes_messages_beyond_the_default_of_grpc(port: int) -> None:
    request = predict_request("tf2", "images", images=np.zeros((8000, 28, 28), np.uint8))
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", unlimited) as channel:
        outputs = PredictionServiceStub(channel).Predict(request, 10).outputs
    assert len(outputs["probabilities"].float_val) == 80_000


def test_predict_message_beyond_64_mebibytes_is_refused(port: int) -> None:
    request = predict_request("tf2", "images", images=np.zeros((85_600, 28, 28), np.uint8))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        PredictionServiceStub(channel).Predict(request, 10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "67108864" in str(caught.value.details())


@pytest.mark.parametrize("cancel", [True, False])
def test_predict_whose_caller_has_gone_while_it_waited_is_not_computed(
    port: int, core: ServerCore, cancel: bool
) -> None:
    # A smaller call would not wait.
    request = predict_request("tf2", "wait", seconds=np.zeros(40_000, np.float32))
    request.model_spec.version.value = 1

    def count(name: str, labels: str) -> float:
        found = re.search(
            rf"^:tensorflow:serving:{name}{{{labels}}} (\S+)$", core.metrics.page(), re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    def counts() -> tuple[float, float]:
        ended = count("request_count", 'model_name="tf2",status="DEADLINE_EXCEEDED"')
        return ended, count("runtime_latency_count", 'API="Predict",model_name="tf2",runtime="TF1"')

    ended, computed = counts()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        with core.budget.spend(core.budget.limit, lambda: 10.0):
            call = PredictionServiceStub(channel).Predict.future(request, 20 if cancel else 0.5)
            time.sleep(0.3)
            if cancel:
                call.cancel()
                time.sleep(0.3)
            else:
                assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: counts()[0] == ended + 1)
    assert counts() == (ended + 1, computed)


def test_mutual_tls_client_without_trusted_certificate_is_refused(
    serve_grpc: ServeGrpc, tmp_path: Path
) -> None:
    names = ("server", "client", "untrusted")
    server_pair, client, untrusted = (certificates.make(tmp_path, name) for name in names)
    config = certificates.ssl_config(tmp_path, server_pair, client)
    roots = server_pair.certificate.read_bytes()
    with serve_grpc(f"--ssl_config_file={config}") as port:
        for pair, expected in ((client, "NOT_FOUND"), (untrusted, "UNAVAILABLE"), (None, "UNAVAILABLE")):
            files = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else ()
            credentials = grpc.ssl_channel_credentials(roots, *files)
            with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
                assert status_of_unknown_model(channel) is grpc.StatusCode[expected]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert status_of_unknown_model(channel) is grpc.StatusCode.UNAVAILABLE


def test_channel_arguments_are_passed_to_grpc(serve_grpc: ServeGrpc) -> None:
    arguments = "grpc.max_receive_message_length=5,grpc.max_connection_age_ms=ignored,grpc.so_reuseport=1"
    with (
        serve_grpc(f"--grpc_channel_arguments={arguments}") as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        assert status_of_unknown_model(channel) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("port={used}", r"can't listen on \[::\]:"),
        ("ssl_config_file={file}", "can't listen on"),
        ("grpc_socket_path={file}", "can't listen on unix:"),
        ("grpc_channel_arguments=grpc.so_reuseport=1,grpc.x", "'grpc.x' is not of the form name=value"),
    ],
)
def test_start_with_unusable_flag_raises(
    port: int, core: ServerCore, tmp_path: Path, flag: str, message: str
) -> None:
    file = tmp_path / "file"
    file.write_text('server_key: "none" server_cert: "none"')
    arguments = [f"--port={free_port()}", "--" + flag.format(used=port, file=file)]
    with pytest.raises(ServingError, match=message):
        grpc_service.start(flags.parse(arguments), core)
    assert file.exists()


@pytest.mark.slow
def test_connection_with_keepalive_ping_every_second_stays_open(serve_grpc: ServeGrpc) -> None:
    keepalive = (("grpc.keepalive_time_ms", 1000), ("grpc.http2.max_pings_without_data", 0))
    states: list[grpc.ChannelConnectivity] = []
    with serve_grpc() as port, grpc.insecure_channel(f"127.0.0.1:{port}", keepalive) as channel:
        grpc.channel_ready_future(channel).result(5)
        channel.subscribe(states.append)
        PredictionServiceStub(channel).Predict(predict_request("tf2", "wait", seconds=[5.0]), 20)
    assert set(states) == {grpc.ChannelConnectivity.READY}
