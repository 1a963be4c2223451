"""Connections to a model server, asyncio and blocking."""

from digit_client._async.connection import AsyncConnection
from digit_client._sync.connection import Connection
from digit_client.tfserving.calls import VersionStatus

__all__ = ["AsyncConnection", "Connection", "VersionStatus"]
