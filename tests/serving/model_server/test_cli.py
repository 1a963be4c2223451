"""`digits model-server` without a server: errors, version and help."""

from importlib.metadata import version

from click.testing import CliRunner

from digit_serving.model_server.cli import model_server


def test_cli_unknown_flag_exits_with_usage_error() -> None:
    result = CliRunner().invoke(model_server, ["--model_nmae=x"])
    assert result.exit_code == 2
    assert "unknown argument: --model_nmae=x" in result.output


def test_cli_version_prints_tensorflow_version() -> None:
    result = CliRunner().invoke(model_server, ["--version"])
    assert result.exit_code == 0
    assert f"TensorFlow Library: {version('tensorflow')}" in result.output


def test_cli_help_lists_the_flags() -> None:
    output = CliRunner().invoke(model_server, ["--help"]).output
    assert "--host=\tstring\taddress to listen on" in output
    assert "\n--rest_api_port=0\tint\n" in output
    assert "\n--num_load_threads=0\tint\tignored\n" in output
