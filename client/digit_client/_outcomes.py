"""Outcomes of a call for many images, and the progress of its results."""

from collections.abc import Callable, Sized
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

from digit_core.errors import DigitError

_Item = TypeVar("_Item")

Progress: TypeAlias = bool | Callable[[int, int | None], object]
"""True for tqdm's bar, if tqdm is installed, or a function of the numbers of results so far and in all, which
is None if the images don't tell."""


class Outcomes(list[_Item], Generic[_Item]):
    """List of the results of a call for many images, in their order, with errors in the places of some."""

    def raise_for_errors(self) -> None:
        """Raise the first error of an image, if there is one; a note says how many there are."""
        errors = [each for each in self if isinstance(each, (DigitError, OSError))]
        if errors:
            errors[0].add_note(f"{len(errors)} of {len(self)} images have an error; this is the first.")
            raise errors[0]


class Counter:
    """Reports the number of results of a call to its `progress`."""

    def __init__(self, progress: Progress, images: object, parts: int) -> None:
        self._count, self._total = 0, len(images) * parts if isinstance(images, Sized) else None
        self._report = progress if callable(progress) else None
        self._bar: Any = None
        with suppress(ImportError):
            if progress is True:
                from tqdm.auto import tqdm

                self._bar = tqdm(total=self._total, unit="image")

    def add(self) -> None:
        """Count a result."""
        self._count += 1
        if self._bar is not None:
            self._bar.update()
        if self._report:
            self._report(self._count, self._total)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
