import shutil
from pathlib import Path

import pytest

from digit_training import sources
from digit_training.errors import DataError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of MNIST in a Keras cache that has none yet."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets" / "mnist.npz"


def test_the_cache_is_read_where_no_path_is_given(mnist_npz: Path, cache: Path) -> None:
    shutil.copy(mnist_npz, cache)
    dataset = sources.load(None)
    assert (dataset.source, dataset.offline, len(dataset.train)) == (str(cache), False, 4000)


def test_the_path_given_comes_before_the_cache(idx_folder: Path, mnist_npz: Path, cache: Path) -> None:
    shutil.copy(mnist_npz, cache)
    dataset = sources.load(idx_folder)
    assert (dataset.source, len(dataset.train)) == (str(idx_folder), 200)


def test_a_damaged_cache_is_named(mnist_npz: Path, cache: Path) -> None:
    cache.write_bytes(mnist_npz.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{cache} is truncated"):
        sources.load(None)
