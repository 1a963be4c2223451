"""Ground floor of all packages of Digits.

artifact      versions on disk, model card, task card, models.config
images        any picture to what a model takes
reading       what the reader finds on a page to the numbers there
tfserving     TensorFlow Serving's protocol over gRPC, without TensorFlow
recognition   the one way from pictures to results
results       predictions and readings
votes         labels of inputs that callers label differently
errors        the errors of all packages
backends      what asyncio and blocking coroutines do in different ways
inputs        pictures as callers give them
"""
