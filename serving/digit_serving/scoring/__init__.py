"""Bulk scoring: `digits score` classifies or reads every picture of a folder or bucket. (Extra `[score]`.)

`files` lists the pictures, `worker` asks the model server about a batch, `results` keeps the rows, `pools`
spreads the batches over processes or a Ray cluster, `job` is a run of all that, and `cli` the command.
"""
