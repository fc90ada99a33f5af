"""What a transaction changes, noted where it does, told to those who wait once it is committed."""

from __future__ import annotations

from sqlalchemy import Connection

from lgi.model import Changes

_KEY = "lgi_changes"
_LATER, _REMEMBERED = "lgi_later", "lgi_remembered"

MOST = 10_000
"""So much is remembered, and then forgotten."""


def note(connection: Connection, changes: Changes) -> None:
    """Note what the transaction has changed."""
    connection.info[_KEY] = connection.info.get(_KEY, Changes()) | changes


def begun(connection: Connection) -> None:
    """A transaction begins: forget what one before it has left that did not commit."""
    connection.info.pop(_KEY, None)
    connection.info.pop(_LATER, None)


def committed(connection: Connection) -> Changes:
    """What the transaction has changed, which is committed."""
    later = connection.info.pop(_LATER, None)
    if later:
        known = connection.info.setdefault(_REMEMBERED, {})
        if len(known) > MOST:
            known.clear()
        known.update(later)
    changes: Changes = connection.info.pop(_KEY, Changes())
    return changes


def remember(connection: Connection, key: str, value: int) -> None:
    """Have later transactions of this connection know something, if this one commits."""
    connection.info.setdefault(_LATER, {})[key] = value


def remembered(connection: Connection, key: str) -> int | None:
    """What the latest transaction of this connection that said so had it know; None where nothing is known."""
    found: int | None = connection.info.get(_REMEMBERED, {}).get(key)
    return found
