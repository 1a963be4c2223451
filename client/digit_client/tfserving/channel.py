"""The way to the model servers behind one target: which gets a call, which the next try, which are dead."""

import json

import grpc
import grpc.aio

_SERVICE_CONFIG = {
    # Every address of the name gets its share; one that can't be reached gets none until it can again.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            # A prediction may be made twice, so what a server drops that dies goes to another one at once.
            # What an overloaded one refuses does not: it would be too much for the next one as well.
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 4,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # A failure takes one token, a success gives a tenth back, and with half of them gone nothing is sent
    # again: an outage of all is not made worse. Waiting for its end is the callers' part.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # The largest request that is kept to be sent again; by default none above 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The message of an error repeats the label that a caller named, each byte of which may take three.
    ("grpc.max_metadata_size", 256 * 1024),
    ("grpc.absolute_max_metadata_size", 256 * 1024),
    # A server that hangs closes no connection. It is asked for a sign of life when a call has waited for a
    # second, and has two to give it, so that of a deadline of five there are two left for another server.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    # The pings that measure the connection else wait for a minute, and hold those back meanwhile.
    ("grpc.http2.ping_timeout_ms", 2000),
    # gRPC waits up to two minutes before it tries a server again that was away. Each process has a channel of
    # its own, so that after this time at most all of a gateway's processes are ready where one is.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # It looks a name up when a connection ends, but no more than twice a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)


def connect(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Blocking gRPC channel to host:port, unix:path, or any other target; nothing is sent yet.

    gRPC looks a name up again when one of its servers closes a connection, by dying or because of the
    connection's age (`--grpc_channel_arguments=grpc.max_connection_age_ms=30000`): so new ones are found.
    """
    if credentials:
        return grpc.secure_channel(target, credentials, options=_OPTIONS)
    return grpc.insecure_channel(target, options=_OPTIONS)


def connect_async(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """asyncio gRPC channel, otherwise as `connect` makes it, for the event loop that runs."""
    if credentials:
        return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
    return grpc.aio.insecure_channel(target, options=_OPTIONS)
