"""Bulk scoring in Spark: each task runs the Scorer of `digits score`.

python docs/examples/score_with_spark.py FOLDER RESULTS [ADDRESS OF THE MODEL SERVER] [VERSION]
"""

import sys
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from digit_serving.scoring.files import list_images
from digit_serving.scoring.rows import PREDICTIONS
from digit_serving.scoring.scorer import Scorer


def main(source: str, results: str, target: str = "127.0.0.1:8500", version: str = "1") -> None:
    """Write a row for each picture in the folder or bucket, as Parquet files in a new folder."""
    scorer = Scorer(source, target, "digits", int(version))

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from scorer(pa.Table.from_batches([batch])).to_batches()

    spark = SparkSession.builder.appName("score").getOrCreate()
    images, _ = list_images(source)
    pictures = spark.createDataFrame(images)
    columns = spark.createDataFrame(PREDICTIONS.empty_table()).schema
    pictures.mapInArrow(score, columns).write.parquet(results)


if __name__ == "__main__":
    main(*sys.argv[1:])
