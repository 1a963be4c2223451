"""Version policies, and the order in which versions come and go."""

import shutil
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.manager import State, Version, aspired, next_step


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("", {30}),
        ("latest {}", {30}),
        ("latest { num_versions: 2 }", {30, 2}),
        ("all {}", {30, 2, 1}),
        ("specific { versions: 2 versions: 7 }", {2}),
    ],
)
def test_policies(tmp_path: Path, policy: str, wanted: set[int]) -> None:
    for name in ("1", "0002", "30", "tmp-40", "1_0", "x"):
        (tmp_path / name).mkdir()
    model = ModelConfig(base_path=str(tmp_path))
    text_format.Parse(policy, model.model_version_policy)
    assert aspired(model).keys() == wanted


def test_no_base_path() -> None:
    with pytest.raises(ServingError, match="Could not find base path /none for servable m"):
        aspired(ModelConfig(name="m", base_path="/none"))


def version(number: int, state: int, aspired: bool = True, retry_at: float = 0.0) -> Version:
    return Version("m", number, Path(), aspired, state, retry_at=retry_at)


@pytest.mark.parametrize(
    ("versions", "step"),
    [
        ([], None),
        ([version(2, State.START), version(1, State.START)], 2),
        ([version(2, State.START), version(1, State.AVAILABLE, False)], 2),
        ([version(2, State.AVAILABLE), version(1, State.AVAILABLE, False)], 1),
        ([version(2, State.END), version(1, State.AVAILABLE, False)], None),
        ([version(2, State.LOADING, retry_at=2.0), version(1, State.AVAILABLE, False)], None),
        ([version(2, State.LOADING, retry_at=0.5)], 2),
        ([version(2, State.AVAILABLE, False), version(1, State.AVAILABLE, False)], 1),
        (
            [version(3, State.START), version(2, State.AVAILABLE, False), version(1, State.AVAILABLE, False)],
            1,
        ),
        ([version(1, State.AVAILABLE, False)], 1),
        ([version(1, State.AVAILABLE)], None),
    ],
)
def test_steps(versions: list[Version], step: int | None) -> None:
    chosen = next_step(versions, now=1.0)
    assert (chosen and chosen.number) == step


FAST = ("--load_retry_interval_micros=1000", "--max_num_load_retries=1")
X = np.array([0.0], np.float32)


def entry(name: str, base: Path, extra: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {extra} }}'


def reload(server: Any, *entries: str, timeout: float = 10) -> Any:
    from google.protobuf import text_format

    text = f"config {{ model_config_list {{ {' '.join(entries)} }} }}"
    return server.models.HandleReloadConfigRequest(text_format.Parse(text, ReloadConfigRequest()), timeout)


def test_versions_come_and_go(serve: Any, constant: Any, tmp_path: Path) -> None:
    base = tmp_path / "model"
    constant(base, 1, 1.0)
    server = serve(f"--model_base_path={base}", *FAST)
    answers: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.extend(server.predict("default", x=X).outputs["y"].float_val)

    thread = threading.Thread(target=ask)
    thread.start()
    constant(base, 2, 2.0)
    server.wait_for(lambda: server.states("default") == {"2": "AVAILABLE", "1": "END"})
    _corrupt(base / "3")
    server.wait_for(lambda: server.states("default").get("3") == "END")
    assert server.states("default")["2"] == "AVAILABLE"
    status = server.models.GetModelStatus(
        GetModelStatusRequest(model_spec={"name": "default", "version": {"value": 3}}), 5
    ).model_version_status[0]
    assert (status.status.error_code, status.status.error_message) == (11, "Read less bytes than requested")
    shutil.rmtree(base / "3")
    shutil.rmtree(base / "2")
    server.wait_for(lambda: server.states("default")["1"] == "AVAILABLE")
    server.wait_for(lambda: server.states("default")["2"] == "END")
    stop.set()
    thread.join()
    assert set(answers) == {1.0, 2.0}
    assert len(answers) > 10


def test_reconfiguration(serve: Any, constant: Any, saved_models: Path, tmp_path: Path) -> None:
    base = tmp_path / "model"
    for version in (1, 2, 3):
        constant(base, version, float(version))
    server = serve(f"--model_base_path={base}", "--model_name=m", *FAST)
    assert server.states("m") == {"3": "AVAILABLE"}
    policy = "model_version_policy {{ {} }}".format
    label = 'version_labels {{ key: "stable" value: {} }}'.format
    reload(server, entry("m", base, policy("specific { versions: 1 versions: 2 }")))
    server.wait_for(lambda: server.states("m") == {"1": "AVAILABLE", "2": "AVAILABLE", "3": "END"})
    reload(server, entry("m", base, policy("latest { num_versions: 2 }")))
    server.wait_for(lambda: server.states("m") == {"1": "END", "2": "AVAILABLE", "3": "AVAILABLE"})
    reload(server, entry("m", base, policy("all {}") + label(2)))
    server.wait_for(lambda: set(server.states("m").values()) == {"AVAILABLE"})
    with pytest.raises(grpc.RpcError) as caught:
        reload(server, entry("m", base, policy("all {}") + label(9)))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert str(caught.value.details()).startswith(
        "Request to assign label to version 9 of model m, which is not"
    )
    assert server.rest("/v1/models/m/labels/stable:predict", {"instances": [0.0]}).json()["predictions"] == [
        2.0
    ]
    reload(server, entry("two", saved_models / "half_plus_two"))
    assert server.states("two") == {"123": "AVAILABLE"}
    server.wait_for(lambda: set(server.states("m").values()) == {"END"})
    reload(server, entry("m", base))
    assert server.states("m")["3"] == "AVAILABLE"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("m", Path("/m")), entry("m", Path("/m"))], "Illegal to list model m multiple times"),
        ([entry("m", Path("relative"))], "Expected model m to have an absolute path or URI"),
        (['config { name: "m" base_path: "/m" }'], "Illegal setting neither ModelServerConfig::model_type"),
        (
            ['config { name: "m" base_path: "/m" model_platform: "caffe" }'],
            "Model m requests unsupported platform caffe",
        ),
    ],
)
def test_configurations_that_are_refused(server: Any, entries: list[str], message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        reload(server, *entries)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value.details()).startswith(message)
    assert server.states("half_plus_two") == {"123": "AVAILABLE"}


def test_a_reload_without_models_is_refused(server: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.models.HandleReloadConfigRequest(ReloadConfigRequest(), 5)
    assert str(caught.value.details()).startswith("ServerModelConfig type not supported")


def test_a_new_model_that_does_not_load_fails_the_reload(
    serve: Any, saved_models: Path, tmp_path: Path
) -> None:
    base = saved_models / "half_plus_two"
    server = serve(f"--model_base_path={base}", "--model_name=two", *FAST)
    _corrupt(tmp_path / "bad" / "1")
    with pytest.raises(grpc.RpcError) as caught:
        reload(server, entry("two", base), entry("bad", tmp_path / "bad"))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert str(caught.value.details()).startswith(
        "1 servable(s) did not become available: {{{name: bad version: 1}"
    )
    assert server.states("two") == {"123": "AVAILABLE"}


def _corrupt(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"no protocol buffer")
