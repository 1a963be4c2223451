"""Pools, with threads in place of processes and a model server in this process."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from digit_core.images import to_png
from digit_serving.errors import DigitServingError
from digit_serving.scoring.files import list_images
from digit_serving.scoring.pools import Batch, Pool, score_batch
from digit_serving.scoring.results import ResultsFolder
from digit_serving.scoring.scorer import Scorer
from tests.core.linear_model_server import LinearModelServer


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:500], digits.labels[:500]) as server:
        yield server


def test_pool_scores_every_picture_once_with_two_batches_a_worker_in_flight(
    server: LinearModelServer, digits: Any, tmp_path: Path
) -> None:
    photos, results = tmp_path / "photos", ResultsFolder(str(tmp_path / "results"))
    photos.mkdir()
    results.check_writable()
    for index in range(150):
        (photos / f"{index}.png").write_bytes(to_png(digits.images[index]))
    images, _ = list_images(str(photos))
    with ThreadPoolExecutor(1) as executor:
        calls: list[Future[Batch]] = []
        inflight: list[int] = []

        def submit(*arguments: Any) -> Future[Batch]:
            calls.append(executor.submit(score_batch, *arguments))
            inflight.append(sum(not call.done() for call in calls))
            return calls[-1]

        scorer = Scorer(str(photos), server.target, "digits", 1)
        batches = [*Pool(1, submit).score(images, 100, scorer, results)]
    # Small batches, so that a worker gets four of them.
    assert sorted(batch.counts.total() for batch in batches) == [36, 38, 38, 38]
    assert max(inflight) <= 2
    assert {code for batch in batches for code in batch.counts} == {None}
    paths = parquet.read_table(tmp_path / "results").column("path").to_pylist()
    assert sorted(paths) == sorted(images.column("path").to_pylist())


@pytest.mark.parametrize(
    ("counts", "fails"),
    [
        ({None: 1, "service_error": 1}, False),
        ({None: 1, "service_error": 2}, True),
        ({None: 1, "not_an_image": 9, "not_found": 9}, False),
    ],
    ids=["half", "most", "pictures"],
)
def test_batch_of_which_most_calls_failed_ends_the_run(counts: dict[str | None, int], fails: bool) -> None:
    batch = Batch(Counter(counts), "the model server is gone", 1.0)
    if not fails:
        batch.check()
        return
    with pytest.raises(DigitServingError, match="the model server is gone; run the command again to go on"):
        batch.check()
