# Generated from _async by client/generate_sync.py: change the source, then run the script.
"""Blocking clients and connection."""
