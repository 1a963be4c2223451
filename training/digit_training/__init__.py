"""Digits: train, serve and read handwritten digits."""
