"""Feedback on answers: the inputs of a model with their answers and, once people give them, their labels.

gateway ─ KeptAnswers: the answers of the last minutes, in memory
        └ FeedbackStore: what got a label or was sampled, in SQLite or PostgreSQL ─ digits feedback
"""
