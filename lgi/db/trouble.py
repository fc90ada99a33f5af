"""What a database's errors mean: what passes, what was lost, what only an administrator can mend."""

from __future__ import annotations

import re

from sqlalchemy.exc import DBAPIError, OperationalError

# Lock wait, deadlock, statement time-out: the statement was not carried out, and a new transaction may succeed.
# Numbers are those of MySQL and MariaDB, strings those of PostgreSQL.
_CONTENTION = frozenset({1205, 1213, "40001", "40P01", "55P03", "57014"})
# The server went away, or this connection to it: a new one may succeed.
_LOST = frozenset({2002, 2003, 2006, 2013, 1040, 1053, 1077, 1079, 1317, 1927, "57P01", "57P02", "57P03", "53300"})
# No room on the database's disk: the statement was not carried out, and the next one would not be either.
_FULL = frozenset({1021, 1114, "53100"})
# The server or the file is there and does not let this program in: no later attempt helps, but an administrator.
_SHUT = frozenset({1044, 1045, 1049, 1698, "28000", "28P01", "3D000"})
_SHUT_FILE = ("SQLITE_CANTOPEN", "SQLITE_NOTADB", "SQLITE_PERM", "SQLITE_READONLY")
# PostgreSQL's driver has no code for it. In another language of the server it counts as a server that is away.
_SHUT_TEXT = re.compile(r"FATAL: .*(database .* does not exist|authentication failed|no pg_hba.conf entry)")


class CommitFailed(Exception):
    """The connection broke while committing: whether the transaction took effect is not known."""


def error_code(problem: DBAPIError) -> int | str:
    """The driver's number or state for it, 0 where there is none."""
    # The number first: PyMySQL has a state too, which is the same for most errors.
    arguments = getattr(problem.orig, "args", ())
    if arguments and isinstance(arguments[0], int):
        return arguments[0]
    state = getattr(problem.orig, "sqlstate", None)
    return state if isinstance(state, str) else 0


def connection_lost(problem: DBAPIError) -> bool:
    """Whether the server went away, or the connection to it."""
    if problem.connection_invalidated or error_code(problem) in _LOST:
        return True
    # PostgreSQL's driver has no code for a server that it cannot reach.
    return (
        type(problem.orig).__module__.startswith("psycopg")
        and error_code(problem) == 0
        and isinstance(problem, OperationalError)
    )


def busy_sqlite(problem: DBAPIError) -> bool:
    """Whether other processes held SQLite's file for too long."""
    return getattr(problem.orig, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def disk_full(problem: DBAPIError) -> bool:
    """Whether there is no room left on the database's disk."""
    return error_code(problem) in _FULL or getattr(problem.orig, "sqlite_errorname", "") == "SQLITE_FULL"


def shut(problem: DBAPIError) -> bool:
    """Whether the database is there and does not let this program in."""
    return (
        error_code(problem) in _SHUT
        or getattr(problem.orig, "sqlite_errorname", "").startswith(_SHUT_FILE)
        or (type(problem.orig).__module__.startswith("psycopg") and _SHUT_TEXT.search(str(problem.orig)) is not None)
    )


def contended(problem: DBAPIError) -> bool:
    """Whether others stood in the way; the connection is as good as before."""
    return error_code(problem) in _CONTENTION or busy_sqlite(problem)


def may_pass(problem: DBAPIError) -> bool:
    """Whether a new transaction may succeed where this one had no effect."""
    return contended(problem) or connection_lost(problem)
