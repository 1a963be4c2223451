"""Batch scoring: read the digit on every image below a folder, in restartable partitions.

python docs/examples/score_folder.py FOLDER RESULTS [ADDRESS OF THE MODEL SERVER]
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from digit_client import ImageError, ModelServerClient

PARTITION = 10_000
BATCH = 256

Row = tuple[str, int | None, float | None, str]


def main(folder: str, results: str, target: str = "127.0.0.1:8500") -> None:
    """Score the partitions without a result, one on each core."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    partitions = [paths[start : start + PARTITION] for start in range(0, len(paths), PARTITION)]
    files = [Path(results) / f"part-{number:05}.csv" for number in range(len(partitions))]
    Path(results).mkdir(parents=True, exist_ok=True)
    # Spawn: gRPC doesn't survive a fork.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for done in pool.map(partial(save, target=target), partitions, files):
            sys.stdout.write(f"{done}\n")


def save(paths: Sequence[Path], file: Path, target: str) -> Path:
    """Write the scores of a partition to a file, which appears when it is complete; return the file."""
    if not file.exists():
        unfinished = file.with_suffix(".unfinished")
        with unfinished.open("w", newline="") as output:
            csv.writer(output).writerows(score(paths, target))
        unfinished.rename(file)
    return file


def score(paths: Sequence[Path], target: str) -> Iterator[Row]:
    """Yield path, digit, confidence and error message of each image of a partition."""
    with ModelServerClient(target, timeout=60) as client:
        for start in range(0, len(paths), BATCH):
            yield from _predict_batch(client, list(paths[start : start + BATCH]))


def _predict_batch(client: ModelServerClient, paths: list[Path]) -> Iterator[Row]:
    while paths:
        try:
            predictions = client.predict_many(paths)
        except ImageError as error:
            # A broken image must not fail the whole batch.
            yield str(paths.pop(error.index or 0)), None, None, error.message
        else:
            for path, prediction in zip(paths, predictions, strict=True):
                yield str(path), prediction.digit, prediction.confidence, ""
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
