"""Feedback on answers: the inputs of a model with their answers and, once people give them, their labels.

gateway ─ FeedbackStore, in an SQLite file or in PostgreSQL ─ digits feedback
          ├ kept: the answers of the last minutes
          └ feedback: what got a label or was sampled
"""
