"""Command line and configuration: flags, help, files, and starts that fail."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from digit_serving.model_server import config, flags
from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.cli import model_server
from digit_serving.model_server.errors import ServingError
from tests.processes import MODEL_SERVER, free_port
from tests.serving.model_server.conftest import ServerProcess
from tests.serving.model_servers import model_config


def test_parse_reads_values_of_every_type_and_keeps_defaults() -> None:
    options = flags.parse(
        ["--port=1", "--model_name=a=b", "--enable_batching", "--enable_model_warmup=False"]
    )
    assert (options.port, options.model_name, options.max_num_load_retries) == (1, "a=b", 5)
    assert (options.enable_batching, options.enable_model_warmup) == (True, False)


def test_parse_flags_without_effect_are_named_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    flags.parse(["--use_alts_credentials", "--num_load_threads=2"])
    (record,) = caplog.records
    message = "Flags without effect in the drop-in: --use_alts_credentials, --num_load_threads"
    assert (record.levelname, record.getMessage()) == ("WARNING", message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prot=1"], "unknown argument: --prot=1"),
        (["stray"], "unknown argument: stray"),
        (["-port=1"], "unknown argument: -port=1"),
        (["--model_name", "digits"], "unknown argument: --model_name; the form is --flag=value"),
        (["--port=one"], "invalid value 'one' for flag port; expected type: int"),
        (["--enable_batching=1"], "invalid value '1' for flag enable_batching; expected type: bool"),
    ],
)
def test_command_with_invalid_argument_exits_with_usage_error(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(model_server, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_command_prints_version_and_help() -> None:
    assert (
        f"TensorFlow Library: {version('tensorflow')}"
        in CliRunner().invoke(model_server, ["--version"]).output
    )
    lines = CliRunner().invoke(model_server, ["--help"]).output.splitlines()
    assert {"--host=", "--rest_api_port=0", "--enable_batching=false"} <= set(lines)
    ignored = lines[lines.index("Accepted and ignored:") :]
    assert len(lines) - 3 == 48, "TensorFlow Serving has 48 flags, the drop-in --host"
    assert "--num_load_threads" in ignored


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


@pytest.mark.parametrize("content", [b"model_config_list {", b"\xff"])
def test_read_invalid_file_raises(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "models.config"
    path.write_bytes(content)
    with pytest.raises(ServingError, match=f"Invalid protobuf file: '{path}'"):
        config.read(str(path), "ModelServerConfig")


def test_read_batching_without_enable_batching_raises() -> None:
    with pytest.raises(ServingError, match="--batching_parameters_file needs --enable_batching=true"):
        config.read_batching(flags.parse(["--batching_parameters_file=/b"]))


@pytest.mark.parametrize("sizes", ["allowed_batch_sizes: 4", "allowed_batch_sizes: 8 allowed_batch_sizes: 4"])
def test_batching_with_unfit_allowed_sizes_raises(sizes: str) -> None:
    parameters = text_format.Parse(
        f"max_batch_size {{ value: 8 }} {sizes}", config.read("", "BatchingParameters")
    )
    with pytest.raises(ServingError, match="allowed_batch_sizes"):
        Batcher(parameters)


def models(*entries: str) -> ModelServerConfig:
    return text_format.Parse(f"model_config_list {{ {' '.join(entries)} }}", ModelServerConfig())


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (models(*[model_config("m", Path("/m"))] * 2), "Illegal to list model m multiple times"),
        (models(model_config("m", Path("relative"))), "Expected model m to have an absolute path or URI"),
        (models('config { name: "m" base_path: "/m" }'), "Model m requests unsupported platform ''"),
        (ModelServerConfig(), "Cannot transition to requested config"),
    ],
)
def test_validate_invalid_configuration_raises(new: ModelServerConfig, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        config.validate(new, models(model_config("m", Path("/m"))))


def output_of_failed_start(*arguments: str) -> str:
    """Return the output of a server that fails to start."""
    command = [*MODEL_SERVER, f"--port={free_port()}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 255
    assert "Failed to start server. Error: " in result.stdout
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


@pytest.mark.original
def test_start_with_bad_config_file_exits_with_255(tmp_path: Path) -> None:
    path = tmp_path / "bad.config"
    path.write_text('improperly formatted file!\n{ name: "x" }')
    output = output_of_failed_start(f"--model_config_file={path}")
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in output
    assert f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{path}'" in output


@pytest.mark.e2e
@pytest.mark.original
def test_start_with_relative_base_path_exits_with_255() -> None:
    output = output_of_failed_start("--model_base_path=relative")
    assert "Expected model default to have an absolute path or URI" in output


@pytest.mark.e2e
@pytest.mark.original
def test_start_with_broken_model_exits_with_255(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    output = output_of_failed_start(f"--model_base_path={tmp_path / 'm'}", "--max_num_load_retries=0")
    assert "1 servable(s) did not become available: " in output
    assert "{name: default version: 1} due to error: " in output


@pytest.mark.e2e
def test_start_on_port_in_use_exits_with_255(server: ServerProcess, saved_models: Path) -> None:
    base = saved_models / "half_plus_two"
    output = output_of_failed_start(f"--port={server.port}", f"--model_base_path={base}")
    assert "The gRPC server can't listen on" in output
