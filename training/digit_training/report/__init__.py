"""Training report: one HTML page and two PNG plots."""
