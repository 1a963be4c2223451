"""The gateway: Flask, images over HTTP in, predictions out, TensorFlow Serving behind."""
