"""Training: fits, evaluates and publishes models of handwritten digits."""
