"""Pools: threads that call a model server in this process, and processes that end."""

import os
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyarrow import parquet

from digit_core.images import to_png
from digit_serving.errors import DigitServingError
from digit_serving.scoring.files import list_images
from digit_serving.scoring.pools import Batch, Pool, processes, score_batch
from digit_serving.scoring.rows import ResultsFolder
from digit_serving.scoring.scorer import Scorer
from tests.core.linear_model_server import LinearModelServer
from tests.processes import wait_until


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


def test_score_batch_of_a_failed_call_counts_and_quotes_its_error(
    server: LinearModelServer, digits: Any, tmp_path: Path
) -> None:
    (tmp_path / "7.png").write_bytes(to_png(digits.one(7)))
    images, _ = list_images(str(tmp_path))
    server.failures = [grpc.StatusCode.INTERNAL]
    batch = score_batch(
        Scorer(str(tmp_path), server.target, "digits", 1), ResultsFolder(str(tmp_path / "results")), images
    )
    assert batch.counts == {"service_error": 1}
    assert "injected" in str(batch.error)


def test_processes_one_that_dies_ends_the_run() -> None:
    dies: Any = os._exit
    with pytest.raises(DigitServingError, match="a worker process died"), processes(1) as pool:
        pool.submit(dies, ResultsFolder("unused"), 3).result()


def test_processes_interrupted_end_without_their_batches() -> None:
    hangs: Any = time.sleep

    def interrupt() -> None:
        with processes(None) as pool:
            assert pool.workers == os.cpu_count()
            wait_until(pool.submit(hangs, ResultsFolder("unused"), 60).running)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert time.monotonic() - started < 60


def test_batch_of_which_most_calls_failed_ends_the_run() -> None:
    counts: tuple[dict[str | None, int], ...] = (
        {None: 1, "service_error": 1},
        {None: 1, "not_an_image": 9, "not_found": 9},
    )
    for few in counts:
        Batch(Counter(few), "the model server is gone", 1.0).check()
    most = Batch(Counter({None: 1, "service_error": 2}), "the model server is gone", 1.0)
    with pytest.raises(DigitServingError, match="the model server is gone; run the command again to go on"):
        most.check()
