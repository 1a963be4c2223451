"""Training room: fits, evaluates and publishes models of handwritten digits."""
