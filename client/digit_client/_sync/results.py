# Generated from _async by client/generate_sync.py: change the source, then run the script.
"""Collection of the results of a call for many images."""

from contextlib import closing
from typing import TypeVar

from digit_client import _bulk
from digit_client._bulk import OnError
from digit_client._synchronization import Results

_Result = TypeVar("_Result")


def collect(results: Results[_Result], on_error: OnError) -> list[_Result]:
    """Return the results by their positions. Raise the first error that takes no picture's place, ValueError
    for an unknown `on_error`.
    """
    _bulk.check_on_error(on_error)
    collected = []
    with closing(results):
        for index, result in results:
            _bulk.raise_if_fatal(result, on_error)
            collected.append((index, result))
    return _bulk.in_order(collected)
