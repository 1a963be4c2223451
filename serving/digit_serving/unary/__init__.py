"""gRPC's unary calls over blocking sockets, for both ends: a tenth of what a call costs with grpcio."""
