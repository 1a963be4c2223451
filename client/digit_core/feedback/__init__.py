"""Feedback store, which gateways write and training reads. Needs the extra feedback."""
