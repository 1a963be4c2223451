"""Artifacts of models: task card and model card, versions on disk, and models.config.

The ground floor of training, releases, the model server and the gateway: no module here imports TensorFlow.
"""
