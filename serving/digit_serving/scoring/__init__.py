"""Bulk scoring: `digits score` classifies or reads every picture of a folder or bucket over Ray Data.

`files` lists the pictures, `worker` asks the model server about them, `results` keeps the rows, `run` spreads
the work over a Ray cluster, and `cli` is the command. (Extra `[score]`.)
"""
