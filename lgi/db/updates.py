"""What all servers of a project must know alike: the numbered updates, and carrying one out.

LGI 1.41, table updates: versions are sequential, an update is carried out only by the servers it names, and all of
them keep it to hand it on. An update is one transaction: its row, what it changes, and what follows from that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError

from lgi.db.events import REPOSITORY_RESOURCES, schedule
from lgi.db.managed import KEYS, NUMBER
from lgi.db.mysqltext import StatementRefused
from lgi.db.resources import align_applications
from lgi.db.schema import active_resources, updates
from lgi.errors import ErrorNumber, LGIError
from lgi.lists import ANY, decode_list, encode_list
from lgi.model import ServerFlag, Update
from lgi.wire.fields import LONG

if TYPE_CHECKING:
    # Their parser takes much memory, which is had only by those who take an update.
    from lgi.db.statements import Change, Row

_EMPTY = {str: "", int: 0, bytes: b""}


def highest_version(connection: Connection) -> int:
    """The version of the last update that is known, 0 before the first."""
    return connection.scalar(select(func.max(updates.c.version))) or 0


def next_update(connection: Connection, version: int) -> tuple[int, Update | None]:
    """How many updates follow `version`, and the first of them."""
    count = connection.scalar(select(func.count()).where(updates.c.version > version)) or 0
    return count, next(iter(list_updates(connection, after=version, limit=1)), None)


def list_updates(connection: Connection, *, after: int = 0, limit: int | None = None) -> list[Update]:
    """The updates that follow a version, in order."""
    rows = connection.execute(
        select(updates).where(updates.c.version > after).order_by(updates.c.version).limit(limit)
    )
    return [
        Update(version=row.version, servers=decode_list(row.servers), query=bytes(row.update_query)) for row in rows
    ]


def concerns(found: Update, own_name: str) -> bool:
    """Whether the server of this name is to carry the update out, and not only to keep it."""
    return ANY in found.servers or own_name in found.servers


def apply_update(connection: Connection, wanted: Update, own_name: str, now: int) -> tuple[bool, int]:
    """Take the next update, and carry it out if it is meant for the server `own_name`.

    Returns whether it was taken, and the highest version. One whose version is known already changes nothing.
    Raises LGIError(UPDATE_REFUSED) for one that does not follow the last, or whose statement is not acceptable,
    whoever it is meant for: nobody gets such a thing from us.
    """
    highest = highest_version(connection)
    if wanted.version <= highest:
        return False, highest
    if wanted.version != highest + 1:
        raise _refusal(f"version {wanted.version} does not follow {highest}")
    change = _understood(connection, wanted.query)
    if not _store(connection, wanted):
        # Another server's update has taken this number in the meantime.
        return False, highest_version(connection)
    if concerns(wanted, own_name):
        _carry_out(connection, change, now)
    return True, wanted.version


def append_update(connection: Connection, servers: tuple[str, ...], text: str, own_name: str, now: int) -> Update:
    """Make a change here as the next update of the project; raises LGIError(UPDATE_REFUSED, UPDATE_TOO_BIG)."""
    query = text.encode()
    if len(query) > LONG:
        raise LGIError(ErrorNumber.UPDATE_TOO_BIG, f"at most {LONG} bytes")
    change = _understood(connection, query)
    wanted = Update(version=highest_version(connection) + 1, servers=servers, query=query)
    while not _store(connection, wanted):
        wanted = Update(version=highest_version(connection) + 1, servers=servers, query=query)
    if concerns(wanted, own_name):
        _carry_out(connection, change, now)
    return wanted


def _refusal(reason: str) -> LGIError:
    return LGIError(ErrorNumber.UPDATE_REFUSED, reason)


def _understood(connection: Connection, query: bytes) -> Change:
    from lgi.db.statements import understand

    try:
        return understand(query.decode(), connection.dialect.name)
    except UnicodeDecodeError:
        raise _refusal("the statement is not UTF-8 text") from None
    except StatementRefused as problem:
        raise _refusal(str(problem)) from None


def _store(connection: Connection, wanted: Update) -> bool:
    values = {"version": wanted.version, "servers": encode_list(wanted.servers), "update_query": wanted.query}
    try:
        with connection.begin_nested():
            connection.execute(insert(updates), values)
    except IntegrityError:
        return False
    return True


def _carry_out(connection: Connection, change: Change, now: int) -> None:
    from lgi.db.statements import Verb

    table = change.table
    try:
        with connection.begin_nested():
            match change.verb:
                case Verb.DELETE:
                    statement = delete(table)
                    connection.execute(statement if change.condition is None else statement.where(change.condition))
                case Verb.UPDATE:
                    setting = update(table).values(dict(change.values))
                    connection.execute(setting if change.condition is None else setting.where(change.condition))
                case _:
                    for row in change.rows:
                        _put(connection, change, row)
    except (IntegrityError, DataError) as problem:
        raise _refusal(f"the database does not take it: {problem.orig}") from None
    if table is active_resources:
        _follow(connection, now)


def _put(connection: Connection, change: Change, row: Row) -> None:
    from lgi.db.statements import Verb

    """A new row, or what is new in one that is there.

    A row that is there already is no reason to stop: servers whose tables lack a key have two of it, and what the
    update says is meant to hold. A resource keeps its number, which its sessions and locks go by.
    """
    table = change.table
    key = [table.c[name] == row[name] for name in KEYS[table.name]]
    default = {column.name: _EMPTY[column.type.python_type] for column in table.c if column.name != NUMBER}
    if connection.execute(select(*key).where(*key)).first() is None:
        connection.execute(insert(table), {**default, **row})
        return
    values = {**default, **row} if change.verb is Verb.REPLACE else dict(row)
    connection.execute(update(table).where(*key).values(values))


def _follow(connection: Connection, now: int) -> None:
    """What follows from a change of the resources."""
    masters = connection.scalar(
        select(func.count()).where(active_resources.c.project_server == ServerFlag.MASTER.value)
    )
    if masters != 1:
        # Without exactly one, every server would refuse every call from here on.
        raise _refusal(f"it would leave the project with {masters} master servers")
    align_applications(connection)
    schedule(connection, REPOSITORY_RESOURCES, now)
