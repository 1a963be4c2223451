"""Fuzz targets on their seeds and on the corpus of earlier failures, without the fuzzer."""

from pathlib import Path

import pytest

from digit_serving.gateway.parsing import silence_library_warnings
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, load

_CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.parametrize("name", TARGETS)
def test_target_seeds_and_corpus_raise_no_unexpected_error(name: str) -> None:
    # pytest restores the warning filters after the test.
    silence_library_warnings()
    corpus = [path.read_bytes() for path in sorted((_CORPUS / name).glob("*"))]
    target = load(name)
    for data in (*seeds()[name], *corpus):
        target(data)


def test_corpus_is_small_and_of_known_targets() -> None:
    files = [path for path in _CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert {path.parent.name for path in files} <= TARGETS.keys()
