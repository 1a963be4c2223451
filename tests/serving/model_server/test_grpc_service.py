"""The gRPC transport: addresses, deadlines, health, encryption, channel arguments."""

import socket
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
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\x0a\x04none", timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


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


def test_mutual_tls_admits_only_clients_with_a_trusted_certificate(
    serve: Any, saved_models: Path, tmp_path: Path
) -> None:
    own, client, stranger = (certificates.make(tmp_path, name) for name in ("server", "client", "stranger"))
    config = certificates.ssl_config(tmp_path, own, client)
    server = serve(f"--model_base_path={saved_models / 'half_plus_two'}", f"--ssl_config_file={config}")
    roots = own.certificate.read_bytes()
    for pair, expected in ((client, "NOT_FOUND"), (stranger, "UNAVAILABLE"), (None, "UNAVAILABLE")):
        files = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else ()
        credentials = grpc.ssl_channel_credentials(roots, *files)
        with grpc.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
            assert failure(channel) is grpc.StatusCode[expected]
    assert failure(server.channel()) is grpc.StatusCode.UNAVAILABLE


def failure(channel: grpc.Channel) -> grpc.StatusCode:
    """The status of a call for a model that doesn't exist."""
    with pytest.raises(grpc.RpcError) as caught:
        PredictionServiceStub(channel).Predict(PredictRequest(model_spec={"name": "absent"}), 5)
    code: grpc.StatusCode = caught.value.code()
    return code


def test_an_invalid_certificate_ends_the_start(serve: Any, saved_models: Path, tmp_path: Path) -> None:
    config = tmp_path / "ssl.config"
    config.write_text('server_key: "none" server_cert: "none"')
    base = f"--model_base_path={saved_models / 'half_plus_two'}"
    assert "Failed to BuildAndStart gRPC server" in refused(
        serve(base, f"--ssl_config_file={config}", wait=False)
    )


def refused(server: Any) -> str:
    """The log of a server that can't start."""
    assert server.process.wait(60) == 255
    log: str = server.log.read_text()
    assert "Traceback" not in log
    return log


def test_channel_arguments_are_passed_to_grpc(serve: Any, saved_models: Path) -> None:
    arguments = "grpc.max_receive_message_length=100,grpc.max_connection_age_ms=ignored,grpc.so_reuseport=1"
    flags = (f"--model_base_path={saved_models / 'tf2'}", f"--grpc_channel_arguments={arguments}")
    server = serve(*flags)
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("default", pixels=np.zeros((1, 784), np.float32))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_channel_argument_without_a_value_ends_the_start(serve: Any, saved_models: Path) -> None:
    base = f"--model_base_path={saved_models / 'half_plus_two'}"
    log = refused(serve(base, "--grpc_channel_arguments=grpc.so_reuseport=1,grpc.x", wait=False))
    assert "--grpc_channel_arguments: 'grpc.x' is not of the form name=value" in log


def test_keepalive_pings_of_every_second_leave_a_connection_open(server: Any) -> None:
    options = (("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 2000))
    request = PredictRequest(model_spec={"name": "tf2", "signature_name": "wait"})
    request.inputs["seconds"].CopyFrom(tf.make_tensor_proto([5.0]))
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        grpc.channel_ready_future(channel).result(5)
        channel.subscribe(states.append)
        for _ in range(2):
            PredictionServiceStub(channel).Predict(request, 10)
    assert set(states) == {grpc.ChannelConnectivity.READY}


def test_a_left_over_socket_file_is_replaced(serve: Any, saved_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    server = serve(f"--model_base_path={saved_models / 'half_plus_two'}", f"--grpc_socket_path={path}")
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert failure(channel) is grpc.StatusCode.NOT_FOUND
    server.stop()
    assert not path.exists()


def test_another_file_is_not_replaced_by_a_socket(serve: Any, saved_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    base = f"--model_base_path={saved_models / 'half_plus_two'}"
    log = refused(serve(base, f"--grpc_socket_path={path}", wait=False))
    assert f"Failed to BuildAndStart gRPC server at unix:{path}" in log
    assert path.read_text() == "precious"
