"""Alembic's entry: `support_desk.migrate` hands over a connection that already holds the lock."""

from alembic import context

from support_desk.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot alter a column in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
