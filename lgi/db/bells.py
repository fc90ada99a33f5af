"""The servers on several machines that share this database and tell each other what they change in it.

Each has a row with its address and the key that what is sent to it is signed with: who may read the database may
ring. Its `beat` changes as long as it lives. Whether it does is judged by that alone: no two clocks are compared.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs
from sqlalchemy import Connection, delete, insert, select, update

from lgi.db.schema import server_bells


@attrs.frozen(kw_only=True)
class ServerBell:
    """A server's row: `address` is `host:port`, the key is in hexadecimal digits."""

    bell_id: str
    address: str
    bell_key: str = attrs.field(repr=False)
    beat: int


def beat(connection: Connection, own: ServerBell, dead: Collection[ServerBell]) -> list[ServerBell]:
    """Write this server's row, remove those of `dead` that have not beaten since, and return all others."""
    for other in dead:
        connection.execute(
            delete(server_bells).where(server_bells.c.bell_id == other.bell_id, server_bells.c.beat == other.beat)
        )
    alive = connection.execute(
        update(server_bells).where(server_bells.c.bell_id == own.bell_id).values(beat=own.beat)
    )
    if not alive.rowcount:
        connection.execute(insert(server_bells).values(attrs.asdict(own)))
    return others(connection, own.bell_id)


def others(connection: Connection, bell_id: str) -> list[ServerBell]:
    """All rows but one."""
    rows = connection.execute(select(server_bells).where(server_bells.c.bell_id != bell_id))
    return [ServerBell(**row._mapping) for row in rows]


def leave(connection: Connection, bell_id: str) -> None:
    """Remove a server's row."""
    connection.execute(delete(server_bells).where(server_bells.c.bell_id == bell_id))
