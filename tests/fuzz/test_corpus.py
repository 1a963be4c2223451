"""What fuzzing starts from, and what it found, without the fuzzer."""

from pathlib import Path

import pytest

from digit_serving.gateway.request_parsing import ignore_doubts
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

_CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_was_found_is_found_again(name: str) -> None:
    # For this test only: pytest puts the filters back.
    ignore_doubts()
    kept = [path.read_bytes() for path in sorted((_CORPUS / name).glob("*"))]
    for data in (*seeds()[name], *kept):
        TARGETS[name](data)


def test_the_corpus_is_small() -> None:
    files = [path for path in _CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert {path.parent.name for path in files} <= TARGETS.keys()
