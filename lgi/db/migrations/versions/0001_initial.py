"""The ten tables of the document, and the index tables beside them."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=254)
LONG = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    op.create_table(
        "active_resources",
        sa.Column("resource_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("resource_name", NAME, nullable=False),
        sa.Column("resource_capabilities", LONG, nullable=False),
        sa.Column("client_certificate", BLOB, nullable=False),
        sa.Column("last_call_time", sa.BigInteger(), nullable=False),
        sa.Column("project_server", sa.Integer(), nullable=False),
        sa.Column("url", NAME, nullable=False),
        sa.PrimaryKeyConstraint("resource_id"),
        sa.UniqueConstraint("resource_name", name=op.f("uq_active_resources_resource_name")),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index(op.f("ix_active_resources_project_server"), "active_resources", ["project_server"], unique=False)
    op.create_table(
        "event_queue",
        sa.Column("event_time_stamp", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event", NAME, nullable=False),
        sa.PrimaryKeyConstraint("event_time_stamp", "event"),
        **OPTIONS,
    )
    op.create_table(
        "groups_allowed",
        sa.Column("group_name", NAME, nullable=False),
        sa.Column("application", NAME, nullable=False),
        sa.Column("job_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("group_name", "application"),
        **OPTIONS,
    )
    op.create_table(
        "groups_denied",
        sa.Column("group_name", NAME, nullable=False),
        sa.Column("application", NAME, nullable=False),
        sa.PrimaryKeyConstraint("group_name", "application"),
        **OPTIONS,
    )
    op.create_table(
        "job_access",
        sa.Column("kind", sa.String(length=1), nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "job_id"),
        **OPTIONS,
    )
    op.create_index(op.f("ix_job_access_job_id"), "job_access", ["job_id"], unique=False)
    op.create_table(
        "job_log",
        sa.Column("number", SERIAL, autoincrement=True, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("from_state", sa.String(length=32), nullable=False),
        sa.Column("to_state", sa.String(length=32), nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("detail", LONG, nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index(op.f("ix_job_log_job_id"), "job_log", ["job_id"], unique=False)
    op.create_table(
        "job_offers",
        sa.Column("application", NAME, nullable=False),
        sa.Column("target", NAME, nullable=False),
        sa.Column("priority", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("application", "target", "priority", "job_id"),
        **OPTIONS,
    )
    op.create_index(op.f("ix_job_offers_job_id"), "job_offers", ["job_id"], unique=False)
    op.create_table(
        "job_queue",
        sa.Column("job_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("application", NAME, nullable=False),
        sa.Column("owners", LONG, nullable=False),
        sa.Column("read_access", LONG, nullable=False),
        sa.Column("write_access", LONG, nullable=False),
        sa.Column("target_resources", LONG, nullable=False),
        sa.Column("input", BLOB, nullable=False),
        sa.Column("output", BLOB, nullable=False),
        sa.Column("job_specifics", LONG, nullable=False),
        sa.Column("lock_state", sa.Integer(), nullable=False),
        sa.Column("state_time_stamp", sa.BigInteger(), nullable=False),
        sa.Column("daemon_pulse", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index(op.f("ix_job_queue_state_daemon_pulse"), "job_queue", ["state", "daemon_pulse"], unique=False)
    op.create_table(
        "job_repositories",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
        sa.UniqueConstraint("name", name=op.f("uq_job_repositories_name")),
        **OPTIONS,
    )
    op.create_table(
        "resource_applications",
        sa.Column("application", NAME, nullable=False),
        sa.Column("resource_name", NAME, nullable=False),
        sa.PrimaryKeyConstraint("application", "resource_name"),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_resource_applications_resource_name"), "resource_applications", ["resource_name"], unique=False
    )
    op.create_table(
        "running_locks",
        sa.Column("lock_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("resource_id", sa.BigInteger(), nullable=False),
        sa.Column("lock_time", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lock_id"),
        sa.UniqueConstraint("job_id", name=op.f("uq_running_locks_job_id")),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index(op.f("ix_running_locks_session_id"), "running_locks", ["session_id"], unique=False)
    op.create_table(
        "running_sessions",
        sa.Column("session_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("resource_id", sa.BigInteger(), nullable=False),
        sa.Column("session_time_stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session_id"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index(op.f("ix_running_sessions_resource_id"), "running_sessions", ["resource_id"], unique=False)
    op.create_index(
        op.f("ix_running_sessions_session_time_stamp"), "running_sessions", ["session_time_stamp"], unique=False
    )
    op.create_table(
        "updates",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("servers", LONG, nullable=False),
        sa.Column("update_query", BLOB, nullable=False),
        sa.PrimaryKeyConstraint("version"),
        **OPTIONS,
    )
    op.create_table(
        "users_allowed",
        sa.Column("user_name", NAME, nullable=False),
        sa.Column("application", NAME, nullable=False),
        sa.Column("job_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_name", "application"),
        **OPTIONS,
    )
    op.create_table(
        "users_denied",
        sa.Column("user_name", NAME, nullable=False),
        sa.Column("application", NAME, nullable=False),
        sa.PrimaryKeyConstraint("user_name", "application"),
        **OPTIONS,
    )
