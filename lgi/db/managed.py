"""The tables that an administrator manages, and what their columns may hold."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, LargeBinary

from lgi.db.mysqltext import StatementRefused, Value
from lgi.db.schema import active_resources, groups_allowed, groups_denied, users_allowed, users_denied
from lgi.errors import LGIError
from lgi.model import ServerFlag
from lgi.wire.capabilities import check_capabilities
from lgi.wire.fields import LONG, SHORT

TABLES = {
    table.name: table for table in (active_resources, users_allowed, groups_allowed, users_denied, groups_denied)
}
# What tells rows apart: never empty, and never without a value in a new row.
KEYS = {
    name: ("resource_name",) if table is active_resources else tuple(table.primary_key.columns.keys())
    for name, table in TABLES.items()
}
NUMBER = "resource_id"  # given by each database by itself


def fitting(column: Column[Any], value: Value) -> Value:
    """A value in the column's own kind, as MySQL would take it; raises StatementRefused for any other."""
    kind = column.type
    if isinstance(kind, Integer):
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int):
            raise StatementRefused(f"{column.name} is a number")
        return value
    if isinstance(kind, LargeBinary):
        return str(value).encode() if not isinstance(value, bytes) else value
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise StatementRefused(f"{column.name} is UTF-8 text") from None
    if not isinstance(value, str) or "\0" in value:
        raise StatementRefused(f"{column.name} is text")
    return value


def check_stored(column: Column[Any], value: Value) -> None:
    """Raise StatementRefused unless the programs that read the column can live with this value."""
    kind: Any = column.type
    if isinstance(value, int):
        allowed = [int(flag) for flag in ServerFlag]
        if column.name == "project_server" and value not in allowed:
            raise StatementRefused(f"project_server is one of {allowed}")
        limit = 1 << 53 if isinstance(kind, BigInteger) else 1 << 31
        if not -limit <= value < limit:
            raise StatementRefused(f"the number in {column.name} is too big")
        return
    most = LONG if isinstance(value, bytes) or kind.length is None else SHORT
    if len(value if isinstance(value, bytes) else value.encode()) > most:
        raise StatementRefused(f"{column.name} has at most {most} bytes")
    if isinstance(value, bytes):
        return
    if most == SHORT and not value.isprintable():
        raise StatementRefused(f"{column.name} contains control characters")
    if column.name in KEYS[column.table.name] and (not value.strip() or value != value.strip()):
        raise StatementRefused(f"{column.name} is empty, or has spaces around it")
    if column.name == "resource_capabilities":
        try:
            check_capabilities(value)
        except LGIError as problem:
            raise StatementRefused(f"resource_capabilities: {problem}") from None
