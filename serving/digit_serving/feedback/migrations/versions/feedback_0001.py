"""Create the tables of feedback and of kept answers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables. PostgreSQL's table of kept answers is unlogged: no WAL, emptied after a crash."""
    _create("feedback", sa.Column("digest", sa.Text, nullable=False))
    op.create_index("ix_feedback_digest", "feedback", ["digest"])
    _create("kept", prefixes=["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else [])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("kept")
    op.drop_table("feedback")


def _create(name: str, *more: sa.Column[str], prefixes: list[str] | None = None) -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        name,
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("caller", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("predicted", sa.Text, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("is_digit", sa.Double),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("answered_at", moment, nullable=False),
        sa.Column("held_out", sa.Boolean, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("labelled_at", moment),
        sa.Column("source", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("original", sa.LargeBinary),
        *more,
        prefixes=prefixes,
    )
    op.create_index(f"{name}_answered_at", name, ["answered_at"])
