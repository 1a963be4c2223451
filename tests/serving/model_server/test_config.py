"""Configuration of the model server: files, flags and validation."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from digit_serving.model_server import config, flags
from digit_serving.model_server.errors import ServingError
from tests.serving.model_servers import model_config


def parse(*entries: str) -> ModelServerConfig:
    return text_format.Parse(f"model_config_list {{ {' '.join(entries)} }}", ModelServerConfig())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model_base_path or --model_config_file is required"),
        (["--model_config_file=/missing"], "NOT_FOUND: /missing: No such file or directory"),
    ],
)
def test_read_models_without_usable_flags_raises(arguments: list[str], message: str) -> None:
    with pytest.raises(ServingError, match=message):
        config.read_models(flags.parse(arguments))


def test_read_models_returns_the_model_of_the_flags() -> None:
    (model,) = config.read_models(
        flags.parse(["--model_name=m", "--model_base_path=/m"])
    ).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("m", "/m", "tensorflow")


@pytest.mark.parametrize("content", [b"model_config_list {", b"\xff"])
def test_read_invalid_file_raises(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "models.config"
    path.write_bytes(content)
    with pytest.raises(ServingError, match=f"Invalid protobuf file: '{path}'"):
        config.read(str(path), "ModelServerConfig")


def test_read_batching_without_enable_batching_raises() -> None:
    with pytest.raises(ServingError, match="--batching_parameters_file needs --enable_batching=true"):
        config.read_batching(flags.parse(["--batching_parameters_file=/b"]))
    assert config.read_batching(flags.parse([])) is None


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            parse(model_config("m", Path("/m")), model_config("m", Path("/m"))),
            "Illegal to list model m multiple times",
        ),
        (parse(model_config("m", Path("relative"))), "Expected model m to have an absolute path or URI"),
        (parse('config { name: "m" base_path: "/m" }'), "Model m requests unsupported platform ''"),
        (
            parse('config { name: "m" base_path: "/m" model_platform: "caffe" }'),
            "Model m requests unsupported platform 'caffe'",
        ),
        (ModelServerConfig(), "Cannot transition to requested config"),
    ],
)
def test_validate_invalid_configuration_raises(new: ModelServerConfig, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        config.validate(new, parse(model_config("m", Path("/m"))))


def test_validate_accepts_another_list_of_models() -> None:
    config.validate(parse(model_config("n", Path("/n"))), parse(model_config("m", Path("/m"))))
