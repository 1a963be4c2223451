"""Artifacts of models: task card and model card, versions on disk, models.config, and the feedback table.

The ground floor of training, releases, the model server and the gateway: no module here imports TensorFlow.
"""
