"""Feedback: pictures with the labels that people give them, and samples of the traffic that wait for one.

gateway ─ FeedbackStore, in an SQLite file or in PostgreSQL ─ digits feedback, digits train, digits export
"""
