"""TensorFlow Serving's gRPC protocol without TensorFlow (extra `[grpc]`).

`protos` has the messages, `codec` converts arrays to messages and back, `channel` creates gRPC channels,
`model_server` sends requests over them. `client` adds images (`pictures`), their `recognition`, and retries.
"""
