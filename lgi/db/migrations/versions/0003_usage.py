"""What the files of jobs take, of each job and of each user, and the keys of submissions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    connection = op.get_bind()
    last = _last_number(connection)
    # Files that are there already count from the next check-db on: they are not to be seen from here.
    op.create_table(
        "user_usage",
        sa.Column("user_name", sa.String(length=254), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_name"),
        **OPTIONS,
    )
    op.add_column("job_queue", sa.Column("repository_size", sa.BigInteger(), nullable=True))
    op.add_column("job_queue", sa.Column("submission_key", sa.String(length=320), nullable=True))
    queue = sa.table("job_queue", sa.column("repository_size", sa.BigInteger))
    connection.execute(sa.update(queue).values(repository_size=0))
    with op.batch_alter_table("job_queue", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("repository_size", existing_type=sa.BigInteger(), nullable=False)
        batch.create_unique_constraint("uq_job_queue_submission_key", ["submission_key"])
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
