"""Fixtures of the gateway's tests that those of its features share."""

from tests.serving.gateway.conftest import no_labels, release, stub

__all__ = ["no_labels", "release", "stub"]
