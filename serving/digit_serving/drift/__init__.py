"""Drift: `digits drift` compares the answers of the last days with those before, and with feedback.

prometheus ─ answers by label, confidence and version, as Prometheus counted them
feedback store ─ agreement of users' feedback with the answers
analysis ─ population stability index, verdicts and tables ─ report (HTML), gauges (Pushgateway)
"""
