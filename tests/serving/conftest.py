"""Fixtures of the services' tests."""

import shutil

import pytest


@pytest.fixture
def promtool() -> str:
    """Path of Prometheus's checker of rules."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    return program
