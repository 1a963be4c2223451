"""Feedback: what gateways write into a store, and training reads. Needs the extra feedback."""
