"""Artifacts of models: task card and model card, versions on disk, and models.config.

Training, releases, the model server and the gateway share them; no module here imports TensorFlow.
"""
