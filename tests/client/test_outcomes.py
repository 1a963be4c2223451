"""List of the results of a call for many images, and the progress of its results."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from digit_client._concurrency import Results, collect
from digit_client._outcomes import Counter, Outcomes
from digit_core import errors
from digit_core.results import Reading


def test_raise_for_errors_raises_the_first_with_the_number_of_all() -> None:
    assert Outcomes([1, 2]).raise_for_errors() is None  # type: ignore[func-returns-value]
    outcomes = Outcomes([1, FileNotFoundError("a.png"), errors.NotAnImageError("b.png"), 4])
    with pytest.raises(FileNotFoundError, match=r"a\.png") as raised:
        outcomes.raise_for_errors()
    assert raised.value.__notes__ == ["2 of 4 images have an error; this is the first."]


def test_to_frame_has_the_paths_of_the_call_and_begins_with_the_least_sure_if_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def readings() -> Results[Any]:
        yield 2, errors.NotAnImageError("the file is a text")
        yield 1, Reading("17", (), 7, confidence=0.5, refusal="unsure")
        yield 0, Reading("42", (), 7, confidence=0.9, refusal="unsure")

    images = [Path("a.png"), ("b.png", {"expect": "##"}), b"text"]
    outcomes = collect(readings(), Counter(False, images, 1))
    assert outcomes.to_arrow()["path"].to_pylist() == ["a.png", "b.png", None]
    frame = outcomes.to_frame(sort="doubtful")
    assert list(frame["text"].fillna("")) == ["", "17", "42"]
    assert list(frame["error_code"].fillna("")) == ["not_an_image", "", ""]
    assert collect(readings(), Counter(False, iter(images), 1)).to_frame()["path"].isna().all()
    errors_only = ((0, errors.NotAnImageError("the file is a text")) for _ in range(1))
    assert "text" in collect(errors_only, Counter(False, [b"text"], 1, Reading)).to_arrow().column_names
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs digits\[frame\]; install it: pip install"):
        outcomes.to_frame()


def test_counter_calls_the_function_with_the_numbers_of_results() -> None:
    reported: list[Any] = []

    def report(done: int, total: int | None) -> None:
        reported.append((done, total))

    for images in ([b"a", b"b"], iter([b"a", b"b"])):
        counter = Counter(report, images, 2)
        counter.add()
        counter.add()
        counter.close()
    assert reported == [(1, 4), (2, 4), (1, None), (2, None)]


def test_counter_shows_tqdms_bar_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            calls.append(options)

        def update(self) -> None:
            calls.append("update")

        def close(self) -> None:
            calls.append("close")

    module = ModuleType("tqdm.auto")
    module.tqdm = Bar  # type: ignore[attr-defined]
    for is_installed in (False, True):
        monkeypatch.setitem(sys.modules, "tqdm", ModuleType("tqdm") if is_installed else None)
        monkeypatch.setitem(sys.modules, "tqdm.auto", module if is_installed else None)
        counter = Counter(True, [b"a"], 1)
        counter.add()
        counter.close()
    assert calls == [{"total": 1, "unit": "image"}, "update", "close"]
