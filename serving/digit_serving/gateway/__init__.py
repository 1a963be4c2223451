"""HTTP gateway: images in, predictions out, Flask in front of TensorFlow Serving."""
