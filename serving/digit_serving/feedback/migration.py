"""Migration of the store of an earlier release or build, whose tables are there beside those of today."""

from typing import Any

import sqlalchemy as sa

from digit_serving.feedback.records import digest_of
from digit_serving.feedback.table import UtcDateTime, pictures

REVISIONS = ("0001", "0002", "0003")
"""Revisions that are migrated: that of 0.1.0, and those of builds between it and the next release."""
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


def migrate(connection: sa.Connection, revision: str, upsert: sa.Insert) -> None:
    """Add what is seen of readings to 0003. Earlier inputs of models become pictures, and kept answers go.

    The upsert of pictures copies the stored inputs, labelled or not. The card of a model prepares its own
    inputs unchanged. A caller's newest label of an input stays.
    """
    if revision == "0003":
        connection.execute(sa.text(f"ALTER TABLE {pictures.name} ADD COLUMN reading JSON"))
        return
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
        "reading": None,
        "sent_at": row["answered_at"],
        "label": None if is_by_hand else row["label"],
        "hand_label": row["label"] if is_by_hand else None,
    }
