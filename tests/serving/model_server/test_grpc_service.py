"""What is particular to gRPC: addresses, deadlines, health, encryption."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests import certificates


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_addresses(server: Any, host: str) -> None:
    with grpc.insecure_channel(f"{host}:{server.port}") as channel:
        grpc.channel_ready_future(channel).result(5)


def test_health(server: Any) -> None:
    check = server.channel().unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=5) == b"\x08\x01"


def test_big_messages(server: Any) -> None:
    images = np.zeros((8000, 28, 28), np.uint8)
    outputs = server.predict("tf2", "images", images=images).outputs
    assert len(outputs["probabilities"].float_val) == 80_000


def test_deadlines(server: Any) -> None:
    request = PredictRequest(model_spec={"name": "tf2", "signature_name": "slow"})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request, 0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_connection_ends_at_its_age_and_its_calls_do_not(serve: Any, saved_models: Path) -> None:
    age = "grpc.max_connection_age_ms=300,grpc.max_connection_age_grace_ms=5000"
    server = serve(f"--model_base_path={saved_models / 'tf2'}", f"--grpc_channel_arguments={age}")
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        channel.subscribe(states.append)
        request = PredictRequest(model_spec={"name": "default", "signature_name": "slow"})
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
        PredictionServiceStub(channel).Predict(request, 10)
        server.wait_for(lambda: states[-1] is grpc.ChannelConnectivity.IDLE)
    assert grpc.ChannelConnectivity.READY in states


def test_encryption_of_both_sides(serve: Any, saved_models: Path, tmp_path: Path) -> None:
    own, client = (certificates.make(tmp_path, name) for name in ("server", "client"))
    config = certificates.ssl_config(tmp_path, own, client)
    server = serve(f"--model_base_path={saved_models / 'half_plus_two'}", f"--ssl_config_file={config}")
    roots, pair = own.certificate.read_bytes(), (client.key.read_bytes(), client.certificate.read_bytes())
    for known in (True, False):
        credentials = grpc.ssl_channel_credentials(roots, *(pair if known else ()))
        with grpc.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                PredictionServiceStub(channel).Predict(PredictRequest(model_spec={"name": "absent"}), 5)
            expected = grpc.StatusCode.NOT_FOUND if known else grpc.StatusCode.UNAVAILABLE
            assert caught.value.code() is expected


def test_channel_arguments_without_effect_are_named(serve: Any, saved_models: Path) -> None:
    base = f"--model_base_path={saved_models / 'half_plus_two'}"
    server = serve(base, "--grpc_channel_arguments=grpc.max_connection_age_ms=9000,grpc.so_reuseport=1")
    assert "grpc.so_reuseport has no effect here" in server.log.read_text()
    assert "grpc.max_connection_age_ms has" not in server.log.read_text()


def test_an_age_that_is_none_ends_the_start(serve: Any, saved_models: Path) -> None:
    flags = (
        f"--model_base_path={saved_models / 'half_plus_two'}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=x",
    )
    server = serve(*flags, wait=False)
    assert server.process.wait(30) == 255
    assert "grpc.max_connection_age_ms is no number of milliseconds: 'x'" in server.log.read_text()
