"""TensorFlow Serving over gRPC, without TensorFlow (extra `[grpc]`)."""
