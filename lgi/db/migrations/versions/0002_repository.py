"""A job's repository in its own row, and the indexes for locked jobs and for the ends of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    last = _last_number(connection)
    op.add_column("job_queue", sa.Column("repository", sa.String(length=64), nullable=True))
    # A job that has none, which check-db complains of, keeps a name of its own that cannot be a directory's.
    queue = sa.table("job_queue", sa.column("job_id", sa.BigInteger), sa.column("repository", sa.String))
    names = sa.table("job_repositories", sa.column("job_id", sa.BigInteger), sa.column("name", sa.String))
    name = sa.select(names.c.name).where(names.c.job_id == queue.c.job_id).scalar_subquery()
    none = sa.literal("/", sa.String).concat(sa.cast(queue.c.job_id, sa.String(20)))
    connection.execute(sa.update(queue).values(repository=sa.func.coalesce(name, none)))
    op.drop_index("ix_job_queue_state_daemon_pulse", "job_queue")
    with op.batch_alter_table("job_queue", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("repository", existing_type=sa.String(length=64), nullable=False)
        batch.create_unique_constraint("uq_job_queue_repository", ["repository"])
    op.create_index(
        "ix_job_queue_state_lock_state_daemon_pulse",
        "job_queue",
        ["state", "lock_state", "daemon_pulse"],
        unique=False,
    )
    op.drop_table("job_repositories")
    op.create_index("ix_job_log_to_state_time", "job_log", ["to_state", "time"], unique=False)
    _keep_numbers(connection, last)


def _last_number(connection: sa.Connection) -> int | None:
    """The last number that SQLite has given to a job, which may have been deleted since."""
    if connection.dialect.name != "sqlite":
        return None
    last: int | None = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'job_queue'"))
    return last


def _keep_numbers(connection: sa.Connection, last: int | None) -> None:
    # SQLite has made the table anew, and numbers are never given out twice.
    if last is None:
        return
    connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'job_queue'"))
    connection.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES ('job_queue', :last)"), {"last": last})
