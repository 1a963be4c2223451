"""Canary: a version label answers a share of a model's requests, as a file says while it serves."""
