"""Migration of the store of an earlier release: inputs of models become pictures, and kept answers go."""

from typing import Any

import sqlalchemy as sa

from digit_serving.feedback.records import digest_of
from digit_serving.feedback.table import UtcDateTime

REVISIONS = ("0001", "0002")
"""Revisions that are migrated: that of 0.1.0, and that of builds between it and the next release."""
_PAGE_ROWS = 100
_SAME = ("model", "caller", "version", "predicted", "confidence", "request_id", "index", "position")
"""Columns with the same name and meaning."""
_records = sa.table(
    "feedback",
    *map(sa.column, (*_SAME, "input", "label", "source")),
    sa.column("held_out", sa.Boolean),
    sa.column("answered_at", UtcDateTime),
    sa.column("labelled_at", UtcDateTime),
)


def migrate(connection: sa.Connection, upsert: sa.Insert) -> None:
    """Copy the stored inputs by the upsert of pictures, labelled or not, and drop the earlier tables.

    The card of a model prepares its own inputs unchanged. A caller's newest label of an input stays.
    """
    query = sa.select(_records).order_by(sa.func.coalesce(_records.c.labelled_at, _records.c.answered_at))
    rows = connection.execute(query, execution_options={"yield_per": _PAGE_ROWS}).mappings()
    for page in rows.partitions():
        connection.execute(upsert, [*map(_to_picture, page)])
    connection.execute(sa.text("DROP TABLE feedback"))
    connection.execute(sa.text("DROP TABLE IF EXISTS kept"))


def _to_picture(row: sa.RowMapping) -> dict[str, Any]:
    """Return the row of the table of pictures."""
    is_by_hand = row["source"] == "label"
    return {name: row[name] for name in (*_SAME, "held_out")} | {
        "digest": digest_of(row["input"], None),
        "picture": row["input"],
        "box": None,
        "sent_at": row["answered_at"],
        "label": None if is_by_hand else row["label"],
        "hand_label": row["label"] if is_by_hand else None,
    }
