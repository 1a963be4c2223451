"""TensorFlow Serving's gRPC protocol without TensorFlow (extra `[grpc]`).

`protos` has the messages, `codec` converts arrays to messages and back, `calls` has channels, methods and
errors, `connection` sends requests.
"""
