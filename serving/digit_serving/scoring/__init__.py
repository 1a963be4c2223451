"""Bulk scoring: `digits score` classifies or reads every picture of a folder or bucket. (Extra `[score]`.)

`files` lists the pictures, the Scorer of `scorer` makes their rows, `pools` runs it in processes or on a Ray
cluster, `rows` keeps the rows, `job` is a run of all that, and `cli` the command.
"""
