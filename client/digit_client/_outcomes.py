"""Outcomes of a call for many images, and the progress of its results."""

from collections.abc import Callable, Iterable, Sequence, Sized
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from digit_core.errors import DigitError, how_to_install
from digit_core.options import nearest
from digit_core.results import Reading

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

_Item = TypeVar("_Item")

Progress: TypeAlias = bool | Callable[[int, int | None], object]
"""True for tqdm's bar, if tqdm is installed, or a function of the numbers of results so far and in all, which
is None if the images don't tell."""


class Outcomes(list[_Item], Generic[_Item]):
    """List of the results of a call for many images, in their order, with errors in the places of some."""

    def __init__(
        self, items: Iterable[_Item] = (), pictures: Sequence[object] = (), kind: Any = None
    ) -> None:
        super().__init__(items)
        self._pictures, self._kind = pictures, kind

    def to_arrow(self, sort: Literal["doubtful"] | None = None) -> "pa.Table":
        """Return a row for each result, as the function `to_arrow` does, with the paths of the call's images.

        (Extra `[arrow]`.)
        """
        _check_installed("pyarrow", "arrow")
        from digit_core.tables import to_arrow

        return to_arrow(self, self._pictures, sort, self._kind)  # type: ignore[arg-type]

    def to_frame(self, sort: Literal["doubtful"] | None = None) -> Any:
        """Return the rows of `to_arrow` as a data frame of pandas. (Extra `[frame]`.)"""
        _check_installed("pandas", "frame")
        return self.to_arrow(sort).to_pandas()

    def draw(self) -> "Image":
        """Return readings as one Pillow image: each picture with the boxes of its digits, and its text.

        Digits with a certainty below .9 have a question mark. Raise ValueError for more than 256 readings, or
        if the call had an array or an iterator. (Extra `[images]`.)
        """
        _check_installed("PIL", "images")
        from digit_core.drawing import draw_sheet

        if self and not self._pictures:
            raise ValueError("only the readings of a list of images can be drawn together")
        sources: list[Any] = [each[0] if isinstance(each, tuple) else each for each in self._pictures]
        parts = len(self) // max(1, len(sources))
        return draw_sheet([source for source in sources for _ in range(parts)], self)  # type: ignore[arg-type]

    def raise_for_errors(self) -> None:
        """Raise the first error of an image, if there is one; a note says how many there are."""
        errors = [each for each in self if isinstance(each, (DigitError, OSError))]
        if errors:
            errors[0].add_note(f"{len(errors)} of {len(self)} images have an error; this is the first.")
            raise errors[0]


class Form(Outcomes[Reading | DigitError | OSError]):
    """Readings of a form's fields, in their order, with errors in the places of some.

    The name of a field stands for its reading.
    """

    def __init__(self, fields: Iterable[tuple[str, Reading | DigitError | OSError]], picture: object) -> None:
        self._by_name = dict(fields)
        super().__init__(self._by_name.values(), [picture])

    def __getitem__(self, place: Any) -> Any:
        """Return the reading of the field of this name, or raise its error; a number is a place."""
        if not isinstance(place, str):
            return super().__getitem__(place)
        if place not in self._by_name:
            raise KeyError(f"no field {place!r}; {nearest(place, self._by_name)}")
        if isinstance(found := self._by_name[place], Exception):
            raise found
        return found

    def draw(self) -> "Image":
        """Return the picture with the boxes of all fields' digits, as a Pillow image. (Extra `[images]`.)"""
        _check_installed("PIL", "images")
        from digit_core.drawing import draw_form

        return draw_form(self._pictures[0], [each for each in self if isinstance(each, Reading)])  # type: ignore[arg-type]


def _check_installed(module: str, extra: str) -> None:
    if not find_spec(module):
        raise ModuleNotFoundError(f"this needs digits[{extra}]; {how_to_install(extra)}", name=module)


class Counter:
    """Reports the number of results of a call to its `progress`."""

    def __init__(self, progress: Progress, images: object, parts: int, kind: Any = None) -> None:
        self._count, self._total = 0, len(images) * parts if isinstance(images, Sized) else None
        self.pictures = tuple(images) if isinstance(images, Sequence) else ()
        """Images of the call; none of an array or an iterator."""
        self.kind = kind
        """Type of the results, Prediction or Reading, which the errors don't tell."""
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
