"""What a transaction changes, noted where it does, told to those who wait once it is committed."""

from __future__ import annotations

from sqlalchemy import Connection

from lgi.model import Changes

_KEY = "lgi_changes"


def note(connection: Connection, changes: Changes) -> None:
    """Note what the transaction has changed."""
    connection.info[_KEY] = connection.info.get(_KEY, Changes()) | changes


def taken(connection: Connection) -> Changes:
    """What has been noted since this was called last; also to be called when a transaction begins."""
    changes: Changes = connection.info.pop(_KEY, Changes())
    return changes
