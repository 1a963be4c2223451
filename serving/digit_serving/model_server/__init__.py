"""Drop-in for `tensorflow_model_server`: the same flags, configuration files and APIs, in Python."""
