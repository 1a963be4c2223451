"""Version policies, and the order in which versions come and go."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.versions import State, Version, aspired, next_step


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
