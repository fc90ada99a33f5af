"""The ten tables of the document, and the index tables beside them.

LGI 1.41, Database structure. What must be searched fast is held in tables of its own, written in the same transaction
as the comma-separated columns of the document, so that nothing is ever found by matching text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}
)

# SQLite numbers rows by themselves only in a column of exactly this type.
_Serial = BigInteger().with_variant(Integer(), "sqlite")
_Name = String(254)
# A field of 65,354 bytes and the tags that the server adds to it do not fit MySQL's 65,535 bytes of TEXT.
_Long = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_Blob = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")

# Names differ when their letters differ, also in case; ids are never given out twice.
_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}

job_queue = Table(
    "job_queue",
    metadata,
    Column("job_id", _Serial, primary_key=True, autoincrement=True),
    Column("state", String(32), nullable=False),
    Column("application", _Name, nullable=False),
    Column("owners", _Long, nullable=False),
    Column("read_access", _Long, nullable=False),
    Column("write_access", _Long, nullable=False),
    Column("target_resources", _Long, nullable=False),
    Column("input", _Blob, nullable=False),
    Column("output", _Blob, nullable=False),
    Column("job_specifics", _Long, nullable=False),
    Column("lock_state", Integer, nullable=False, default=0),
    Column("state_time_stamp", BigInteger, nullable=False),
    Column("daemon_pulse", BigInteger, nullable=False, default=0),
    Column("priority", BigInteger, nullable=False, default=0),
    # Beside the document's columns: the server's own knowledge of the repository; the specifics tell clients.
    Column("repository", String(64), nullable=False),
    # What its files take, in bytes, and USER:KEY of the submission where its client gave one.
    Column("repository_size", BigInteger, nullable=False, default=0),
    Column("submission_key", String(320), nullable=True),
    UniqueConstraint("repository"),
    UniqueConstraint("submission_key"),
    Index(None, "state", "lock_state", "daemon_pulse"),
    sqlite_autoincrement=True,
    **_OPTIONS,
)

running_locks = Table(
    "running_locks",
    metadata,
    Column("lock_id", _Serial, primary_key=True, autoincrement=True),
    Column("job_id", BigInteger, nullable=False),
    Column("resource_id", BigInteger, nullable=False),
    Column("lock_time", BigInteger, nullable=False),
    Column("session_id", BigInteger, nullable=False),
    UniqueConstraint("job_id"),
    Index(None, "session_id"),
    sqlite_autoincrement=True,
    **_OPTIONS,
)

active_resources = Table(
    "active_resources",
    metadata,
    Column("resource_id", _Serial, primary_key=True, autoincrement=True),
    Column("resource_name", _Name, nullable=False),
    Column("resource_capabilities", _Long, nullable=False),
    Column("client_certificate", _Blob, nullable=False),
    Column("last_call_time", BigInteger, nullable=False, default=0),
    Column("project_server", Integer, nullable=False, default=0),
    Column("url", _Name, nullable=False),
    UniqueConstraint("resource_name"),
    Index(None, "project_server"),
    sqlite_autoincrement=True,
    **_OPTIONS,
)

running_sessions = Table(
    "running_sessions",
    metadata,
    Column("session_id", _Serial, primary_key=True, autoincrement=True),
    Column("resource_id", BigInteger, nullable=False),
    Column("session_time_stamp", BigInteger, nullable=False),
    Index(None, "session_time_stamp"),
    Index(None, "resource_id"),
    sqlite_autoincrement=True,
    **_OPTIONS,
)

users_allowed = Table(
    "users_allowed",
    metadata,
    Column("user_name", _Name, primary_key=True),
    Column("application", _Name, primary_key=True),
    Column("job_limit", Integer, nullable=False, default=0),
    **_OPTIONS,
)

groups_allowed = Table(
    "groups_allowed",
    metadata,
    Column("group_name", _Name, primary_key=True),
    Column("application", _Name, primary_key=True),
    Column("job_limit", Integer, nullable=False, default=0),
    **_OPTIONS,
)

users_denied = Table(
    "users_denied",
    metadata,
    Column("user_name", _Name, primary_key=True),
    Column("application", _Name, primary_key=True),
    **_OPTIONS,
)

groups_denied = Table(
    "groups_denied",
    metadata,
    Column("group_name", _Name, primary_key=True),
    Column("application", _Name, primary_key=True),
    **_OPTIONS,
)

updates = Table(
    "updates",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("servers", _Long, nullable=False),
    Column("update_query", _Blob, nullable=False),
    **_OPTIONS,
)

# The key makes an event that is scheduled twice for the same second one event.
event_queue = Table(
    "event_queue",
    metadata,
    Column("event_time_stamp", BigInteger, primary_key=True, autoincrement=False),
    Column("event", _Name, primary_key=True),
    **_OPTIONS,
)

# Beside the document's tables: who owns (o), may read (r) and may write (w) which job.
job_access = Table(
    "job_access",
    metadata,
    Column("kind", String(1), primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Index(None, "job_id"),
    **_OPTIONS,
)

# How many jobs there are, for their owners (o) and their readers (r), summed over slots; see lgi/db/counts.py.
job_counts = Table(
    "job_counts",
    metadata,
    Column("kind", String(1), primary_key=True),
    Column("set_id", String(32), primary_key=True),
    Column("application", _Name, primary_key=True),
    Column("state", String(32), primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    **_OPTIONS,
)

# The lists of names that jobs are counted by, one row for each name; they stay when no job has them any more.
access_sets = Table(
    "access_sets",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("set_id", String(32), primary_key=True),
    Index(None, "set_id"),
    **_OPTIONS,
)

# Queued jobs that nobody holds locked, one row for each target: what a resource may take is a range of this key.
job_offers = Table(
    "job_offers",
    metadata,
    Column("application", _Name, primary_key=True),
    Column("target", _Name, primary_key=True),
    Column("priority", BigInteger, primary_key=True, autoincrement=False),
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Index(None, "job_id"),
    **_OPTIONS,
)

# Which resource offers which application, out of the capabilities.
resource_applications = Table(
    "resource_applications",
    metadata,
    Column("application", _Name, primary_key=True),
    Column("resource_name", _Name, primary_key=True),
    Index(None, "resource_name"),
    **_OPTIONS,
)

# What the files of all jobs take of which a user is the first owner, in bytes: the sum of their repository_size.
user_usage = Table(
    "user_usage",
    metadata,
    Column("user_name", _Name, primary_key=True),
    Column("size", BigInteger, nullable=False),
    **_OPTIONS,
)

# The servers that tell each other of changes, each of them on another machine; see lgi/db/bells.py.
server_bells = Table(
    "server_bells",
    metadata,
    Column("bell_id", String(16), primary_key=True),
    Column("address", String(64), nullable=False),
    Column("bell_key", String(64), nullable=False),
    Column("beat", BigInteger, nullable=False),
    **_OPTIONS,
)

# The durable record of what happened to jobs.
job_log = Table(
    "job_log",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("job_id", BigInteger, nullable=False),
    Column("from_state", String(32), nullable=False),
    Column("to_state", String(32), nullable=False),
    Column("actor", _Name, nullable=False),
    Column("detail", _Long, nullable=False),
    Index(None, "job_id"),
    Index(None, "to_state", "time"),
    sqlite_autoincrement=True,
    **_OPTIONS,
)
