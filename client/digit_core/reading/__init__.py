"""Readings: from what the reader finds on a page to the numbers that stand there.

    grey page ─ the reader ─▶ peaks ─ lines ─▶ uint8 [k, 28, 28] ─ the digits' model ─▶ predictions
    ─ lines ─▶ lines of digits ─ certainty, viterbi, text ─▶ Reading

`boxes` is the geometry of both, `expectations` has what a caller knows of the text. This module imports
nothing, so that `peaks` needs NumPy only, and `tfserving` no OpenCV.
"""
