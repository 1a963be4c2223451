"""The drop-in for `tensorflow_model_server`: the same flags, files and answers, in Python."""
