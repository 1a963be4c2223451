"""gRPC channels to model servers: load balancing, retries, keepalive and reconnection."""

import json

import grpc
import grpc.aio

_SERVICE_CONFIG = {
    # round_robin spreads the calls over all addresses of a name and skips addresses that can't be reached.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            # Predictions are idempotent: a call that a terminating server drops goes to another one at once.
            # RESOURCE_EXHAUSTED is not: it may have cost the server work, or come again. Connection retries
            # the one refusal of this status that did not, which gRPC can't tell from others.
            "retryPolicy": {
                # 15, 60 and 240 ms: as long as a reconnection takes after a restart.
                "maxAttempts": 4,
                "initialBackoff": "0.015s",
                "maxBackoff": "0.25s",
                "backoffMultiplier": 4,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # A failure takes one token, a success returns a tenth; gRPC retries only above half of maxTokens: retries
    # must not worsen an outage of all servers. Waiting for its end is left to the callers.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # Largest request that gRPC buffers for a retry; the default is 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # An error message repeats the caller's label; percent-encoding in the trailers triples its bytes.
    ("grpc.max_metadata_size", 256 * 1024),
    ("grpc.absolute_max_metadata_size", 256 * 1024),
    # A hung server keeps its connections open. A keepalive ping after 1 s without data, with 2 s for its
    # answer, leaves 2 s of a deadline of 5 s for another server.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    # Bandwidth-estimation pings time out after a minute by default and block keepalive pings meanwhile.
    ("grpc.http2.ping_timeout_ms", 2000),
    # The default reconnect backoff grows to two minutes. 250 ms bound the time between the first gateway
    # process that reconnects and the last; each has its own channel.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # gRPC resolves the name again when a connection ends; the default allows that twice a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)


def check_target(target: str) -> str:
    """Return the target. Raise ValueError for a URL of HTTP."""
    if target.startswith(("http://", "https://")):
        raise ValueError(f"the model server's gRPC address is host:port, as 127.0.0.1:8500, not {target!r}")
    return target


def connect(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Create a blocking channel to host:port, unix:path, or another gRPC target, without connecting yet.

    gRPC finds new servers by resolving the name again when a server closes a connection: as it stops, or at
    the maximum connection age (`--grpc_channel_arguments=grpc.max_connection_age_ms=30000`).
    """
    if credentials:
        return grpc.secure_channel(check_target(target), credentials, options=_OPTIONS)
    return grpc.insecure_channel(check_target(target), options=_OPTIONS)


def connect_async(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """Create an asyncio channel, as `connect` does, for the running event loop."""
    if credentials:
        return grpc.aio.secure_channel(check_target(target), credentials, options=_OPTIONS)
    return grpc.aio.insecure_channel(check_target(target), options=_OPTIONS)
