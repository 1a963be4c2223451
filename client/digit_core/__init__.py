"""Foundation that all packages of Digits share.

artifact      versions on disk, model card, task card, models.config
images        from any picture to a model's input
reading       from what the reader finds on a page to the numbers there
tfserving     TensorFlow Serving's protocol over gRPC, without TensorFlow
recognition   the one way from pictures to results
results       predictions and readings
options       the options of a call
feedback      pictures with the labels that callers give them
errors        the errors of all packages
backends      the differences of asyncio and blocking coroutines
inputs        pictures as callers give them
schema        JSON Schema of annotated types
"""
