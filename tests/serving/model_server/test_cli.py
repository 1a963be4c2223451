"""The subcommand, up to where the server begins."""

import subprocess
import sys
from importlib.metadata import version

from click.testing import CliRunner

from digit_serving.model_server.cli import model_server


def test_an_unknown_flag_is_refused() -> None:
    result = CliRunner().invoke(model_server, ["--model_nmae=x"])
    assert result.exit_code == 2
    assert "unknown argument: --model_nmae=x" in result.output


def test_version() -> None:
    result = CliRunner().invoke(model_server, ["--version"])
    assert result.exit_code == 0
    assert f"TensorFlow Library: {version('tensorflow')}" in result.output


def test_help_lists_the_flags() -> None:
    listed = CliRunner().invoke(model_server, ["--help"]).output
    assert "--host" in listed
    assert "--rest_api_port" in listed


def test_importing_the_command_leaves_tensorflow_alone() -> None:
    code = "import sys, digit_serving.model_server.cli; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
