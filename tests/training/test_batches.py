import numpy as np

from digit_training.batches import Batches
from digit_training.dataset import Dataset


def test_each_epoch_holds_every_example_once_in_another_order(dataset: Dataset) -> None:
    batches = Batches(dataset.train[:100], 32, seed=0)
    first = np.concatenate([batches[index][1] for index in range(len(batches))])
    batches.begin(1)
    second = np.concatenate([batches[index][1] for index in range(len(batches))])
    assert len(batches) == 4
    assert np.array_equal(np.bincount(first), np.bincount(dataset.train.labels[:100]))
    assert np.array_equal(np.bincount(first), np.bincount(second))
    assert not np.array_equal(first, second)


def test_a_batch_is_what_a_model_reads(dataset: Dataset) -> None:
    pixels, labels = Batches(dataset.train[:100], 32, seed=0)[3]
    assert (pixels.shape, labels.shape) == ((4, 784), (4,))
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_a_batch_is_the_same_whenever_it_is_read(dataset: Dataset) -> None:
    one, two = (Batches(dataset.train[:100], 32, seed=5) for _ in range(2))
    two[0], two[1]
    assert np.array_equal(one[2][0], two[2][0])
    two.begin(1)
    assert not np.array_equal(one[2][0], two[2][0])
    assert not np.array_equal(one[2][0], Batches(dataset.train[:100], 32, seed=6)[2][0])


def test_the_last_epochs_are_written_with_more_care(dataset: Dataset) -> None:
    examples = dataset.train[:500]
    batches = Batches(examples, len(examples), seed=0, careful_from=1)

    def departure() -> float:
        pixels, _ = batches[0]
        return float(np.abs(pixels - examples[batches.order].pixels).mean())

    free = departure()
    batches.begin(1)
    assert departure() < 0.9 * free


def test_the_last_epochs_may_be_of_the_first_examples_alone(dataset: Dataset) -> None:
    batches = Batches(dataset.train[:100], 32, seed=0, careful_from=1, first=80)
    assert np.array_equal(np.sort(batches.order), np.arange(100))
    batches.begin(1)
    assert len(batches.order) == 100
    assert np.array_equal(np.unique(batches.order), np.arange(80))
