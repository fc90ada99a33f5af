"""What a transaction changes, noted where it does, told to those who wait once it is committed."""

from __future__ import annotations

from sqlalchemy import Connection

from lgi.model import Changes

_KEY = "lgi_changes"
_LATER, _REMEMBERED = "lgi_later", "lgi_remembered"

NOTHING = Changes()

MOST = 10_000
"""So much is remembered, and then forgotten."""


def note(connection: Connection, changes: Changes) -> None:
    """Note what the transaction has changed."""
    info = connection.info
    before = info.get(_KEY)
    info[_KEY] = changes if before is None else before | changes


def begun(connection: Connection) -> None:
    """A transaction begins: forget what one before it has left that did not commit."""
    info = connection.info
    info.pop(_KEY, None)
    info.pop(_LATER, None)


def committed(connection: Connection) -> Changes:
    """What the transaction has changed, which is committed."""
    info = connection.info
    later = info.pop(_LATER, None)
    if later:
        known = info.setdefault(_REMEMBERED, {})
        if len(known) > MOST:
            known.clear()
        known.update(later)
    changes: Changes = info.pop(_KEY, NOTHING)
    return changes


def remember(connection: Connection, key: str, value: int) -> None:
    """Have later transactions of this connection know something, if this one commits."""
    connection.info.setdefault(_LATER, {})[key] = value


def remembered(connection: Connection, key: str) -> int | None:
    """What the latest transaction of this connection that said so had it know; None where nothing is known."""
    found: int | None = connection.info.get(_REMEMBERED, {}).get(key)
    return found
