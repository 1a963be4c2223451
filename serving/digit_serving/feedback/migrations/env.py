"""Environment of Alembic: runs the migrations on the connection that `database` passes."""

from alembic import context

from digit_serving.feedback.database import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
