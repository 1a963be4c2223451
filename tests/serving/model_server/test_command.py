"""Command line and configuration: flags, help, files, and starts that fail."""

import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner

from digit_serving.errors import ServingError
from digit_serving.model_server import flags
from digit_serving.model_server.cli import model_server
from digit_serving.model_server.server import create_core
from tests.processes import MODEL_SERVER, free_port


def test_parse_reads_values_of_every_type_and_keeps_defaults() -> None:
    options = flags.parse(
        ["--port=1", "--model_name=a=b", "--enable_batching", "--enable_model_warmup=False"]
    )
    assert (options.port, options.model_name, options.max_num_load_retries) == (1, "a=b", 5)
    assert (options.enable_batching, options.enable_model_warmup) == (True, False)


def test_parse_flags_without_effect_are_named_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    flags.parse(["--use_alts_credentials", "--num_load_threads=2"])
    (record,) = caplog.records
    message = "The drop-in ignores these flags: --use_alts_credentials, --num_load_threads"
    assert (record.levelname, record.getMessage()) == ("WARNING", message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prot=1"], "unknown argument: --prot=1"),
        (["stray"], "unknown argument: stray"),
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
    output = CliRunner().invoke(model_server, ["--version"]).output
    assert f"TensorFlow Library: {tf.__version__}" in output
    lines = CliRunner().invoke(model_server, ["--help"]).output.splitlines()
    ignored = lines[lines.index("Accepted and ignored:") + 1 :]
    assert {"--host=", "--rest_api_port=0", "--enable_batching=false"} <= set(lines)
    assert "--num_load_threads" in ignored
    assert sum(line.startswith("--") for line in lines) == 48 + 1, "TensorFlow Serving's flags, and --host"


CONFIG = "--model_config_file={file}"
BATCHING = "--enable_batching --batching_parameters_file={file}"
MODEL = 'config { name: "m" base_path: "/m" model_platform: "tensorflow" }'
CAFFE = MODEL.replace("tensorflow", "caffe")


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        ("", "", "--model_base_path or --model_config_file is required"),
        ("--model_base_path=m", "", "Expected model default to have an absolute path or URI"),
        ("--model_config_file=/missing", "", "NOT_FOUND: /missing: No such file or directory"),
        (CONFIG, "model_config_list {", "Invalid protobuf file: "),
        (CONFIG, "\udcff", "Invalid protobuf file: "),
        (CONFIG, f"model_config_list {{ {MODEL} {MODEL} }}", "Illegal to list model m multiple times"),
        (CONFIG, f"model_config_list {{ {CAFFE} }}", "Model m requests unsupported platform 'caffe'"),
        ("--batching_parameters_file=/b", "", "--batching_parameters_file needs --enable_batching=true"),
        (BATCHING, "max_batch_size { value: 8 } allowed_batch_sizes: 4", "allowed_batch_sizes must increase"),
    ],
)
def test_start_with_bad_flag_or_file_raises(
    tmp_path: Path, arguments: str, content: str, message: str
) -> None:
    file = tmp_path / "file"
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(ServingError, match=message):
        create_core(flags.parse(arguments.format(file=file).split()))


@pytest.mark.e2e
@pytest.mark.original
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model_config_file={}/file", "Invalid protobuf file: '{}/file'"),
        ("--model_base_path={}", "{{name: default version: 1}} due to error: "),
    ],
)
def test_process_that_fails_to_start_exits_with_255(tmp_path: Path, flag: str, message: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "file").write_text("improperly formatted file!")
    command = [*MODEL_SERVER, f"--port={free_port()}", "--max_num_load_retries=0", flag.format(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 255
    assert "Failed to start server. Error: " in result.stdout
    assert message.format(tmp_path) in result.stdout
    assert "Traceback" not in result.stderr
