"""Updates from other servers: which statements are accepted, and what they mean.

An update is text that a peer chose. So it is parsed, and nothing but one INSERT, REPLACE, UPDATE or DELETE of plain
values on the tables that an administrator manages gets through; what is carried out is built anew from what was
understood (LGI 1.41, Project server synchronization API).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import attrs
import sqlglot
from sqlalchemy import Column, ColumnElement, Integer, LargeBinary, Table, and_, not_, or_
from sqlglot import exp
from sqlglot.errors import SqlglotError

from lgi.db.managed import KEYS, NUMBER, TABLES, check_stored, fitting
from lgi.db.mysqltext import Skeleton, StatementRefused, Value, take_apart

_VERBS = {"INSERT", "REPLACE", "UPDATE", "DELETE"}
_WORDS = frozenset(
    _VERBS
    | {"INTO", "FROM", "SET", "WHERE", "VALUE", "VALUES", "AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS", "NULL"}
    | {name.upper() for table in TABLES.values() for name in (table.name, *table.c.keys())}
)
_COMPARE: dict[type[exp.Expression], Callable[[Any, Any], Any]] = {
    exp.EQ: lambda left, right: left == right,
    exp.NEQ: lambda left, right: left != right,
    exp.LT: lambda left, right: left < right,
    exp.LTE: lambda left, right: left <= right,
    exp.GT: lambda left, right: left > right,
    exp.GTE: lambda left, right: left >= right,
}
_MIRRORED: dict[type[exp.Expression], type[exp.Expression]] = {
    exp.EQ: exp.EQ,
    exp.NEQ: exp.NEQ,
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
}


class Verb(Enum):
    """What a change does."""

    INSERT = "INSERT"
    REPLACE = "REPLACE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


Row = Mapping[str, Value]


@attrs.frozen(kw_only=True)
class Change:
    """A statement that was understood: new rows, or values for the rows that fulfil the condition (None: all)."""

    verb: Verb
    table: Table
    rows: tuple[Row, ...] = ()
    values: Row = attrs.field(factory=dict)
    condition: ColumnElement[bool] | None = None


def understand(text: str, dialect: str) -> Change:
    """The change that a statement in MySQL's language asks for, to be carried out on a database of SQLAlchemy's
    `dialect`; raises StatementRefused, which says what is not acceptable."""
    skeleton = take_apart(text, _WORDS)
    verb = skeleton.text.partition(" ")[0].upper()
    if verb not in _VERBS:
        raise StatementRefused("an update is an INSERT, REPLACE, UPDATE or DELETE")
    # To the parser REPLACE is another language's word; what follows is the same.
    source = "INSERT" + skeleton.text[len(verb) :] if verb == "REPLACE" else skeleton.text
    try:
        found = sqlglot.parse(source, read="mysql")
    except (SqlglotError, RecursionError):
        raise StatementRefused("it is not a statement that can be understood") from None
    if len(found) != 1 or found[0] is None:
        raise StatementRefused("an update is one statement")
    return _Reader(skeleton, dialect, Verb(verb)).change(found[0])


class _Reader:
    """Turns the parser's tree into a Change; each node has what is expected of it and nothing else."""

    def __init__(self, skeleton: Skeleton, dialect: str, verb: Verb) -> None:
        self._values = skeleton.values
        self._dialect = dialect
        self._verb = verb
        self._table: Table = next(iter(TABLES.values()))

    def change(self, node: Any) -> Change:
        if self._verb in (Verb.INSERT, Verb.REPLACE):
            return self._insert(node)
        if self._verb is Verb.UPDATE:
            _only(node, exp.Update, "this", "expressions", "where")
            self._take_table(node.this)
            pairs = []
            for assignment in node.expressions:
                _only(assignment, exp.EQ, "this", "expression")
                column = self._column(assignment.this)
                pairs.append((column.name, self._stored(column, assignment.expression)))
            if not pairs:
                raise StatementRefused("SET needs a value")
            values = _distinct(pairs)
            if NUMBER in values:
                raise StatementRefused(f"{NUMBER} is given by each server itself")
            return Change(verb=self._verb, table=self._table, values=values, condition=self._where(node))
        _only(node, exp.Delete, "this", "where")
        self._take_table(node.this)
        return Change(verb=self._verb, table=self._table, condition=self._where(node))

    def _insert(self, node: Any) -> Change:
        _only(node, exp.Insert, "this", "expression")
        if isinstance(node.this, exp.Schema):
            _only(node.this, exp.Schema, "this", "expressions")
            self._take_table(node.this.this)
            columns = [self._named(identifier) for identifier in node.this.expressions]
        else:
            self._take_table(node.this)
            columns = list(self._table.c)
        _only(node.expression, exp.Values, "expressions")
        rows = []
        for values in node.expression.expressions:
            _only(values, exp.Tuple, "expressions")
            if len(values.expressions) != len(columns):
                raise StatementRefused(f"{len(columns)} columns have {len(values.expressions)} values")
            row = {}
            for column, value in zip(columns, values.expressions, strict=True):
                if column.name == NUMBER and isinstance(value, exp.Null):
                    continue
                if column.name == NUMBER:
                    raise StatementRefused(f"{NUMBER} is given by each server itself")
                if column.name in row:
                    raise StatementRefused(f"{column.name} has two values")
                row[column.name] = self._stored(column, value)
            missing = [name for name in KEYS[self._table.name] if name not in row]
            if missing:
                raise StatementRefused(f"a new row needs a value for {missing[0]}")
            rows.append(row)
        if not rows:
            raise StatementRefused("VALUES needs a row")
        return Change(verb=self._verb, table=self._table, rows=tuple(rows))

    def _take_table(self, node: Any) -> None:
        _only(node, exp.Table, "this")
        name = _name(node.this)
        if name not in TABLES:
            raise StatementRefused(f"the table {name} is not one that updates may change")
        self._table = TABLES[name]

    def _named(self, node: Any) -> Column[Any]:
        name = _name(node).lower()
        if name not in self._table.c:
            raise StatementRefused(f"the table {self._table.name} has no column {name}")
        return self._table.c[name]

    def _column(self, node: Any) -> Column[Any]:
        _only(node, exp.Column, "this", "table")
        if node.args.get("table") is not None and _name(node.args["table"]) != self._table.name:
            raise StatementRefused(f"only columns of {self._table.name} have a place in it")
        return self._named(node.this)

    def _value(self, node: Any) -> Value:
        _only(node, exp.Placeholder, "this")
        return self._values[int(str(node.this).removeprefix("v"))]

    def _stored(self, column: Column[Any], node: Any) -> Value:
        """A value that may be put into a column."""
        if isinstance(node, exp.Null):
            raise StatementRefused(f"{column.name} cannot be NULL")
        value = fitting(column, self._value(node))
        check_stored(column, value)
        return value

    def _compared(self, column: Column[Any], node: Any) -> Value:
        return fitting(column, self._value(node))

    def _where(self, node: Any) -> ColumnElement[bool] | None:
        where = node.args.get("where")
        if where is None:
            return None
        _only(where, exp.Where, "this")
        return self._condition(where.this)

    def _condition(self, node: Any) -> ColumnElement[bool]:
        match node:
            case exp.And() | exp.Or():
                _only(node, type(node), "this", "expression")
                join = and_ if isinstance(node, exp.And) else or_
                return join(self._condition(node.this), self._condition(node.expression))
            case exp.Not():
                _only(node, exp.Not, "this")
                return not_(self._condition(node.this))
            case exp.Paren():
                _only(node, exp.Paren, "this")
                return self._condition(node.this)
        return self._comparison(node)

    def _comparison(self, node: Any) -> ColumnElement[bool]:
        kind = type(node)
        result: ColumnElement[bool]
        if kind in _COMPARE:
            _only(node, kind, "this", "expression")
            left, right = node.this, node.expression
            if isinstance(right, exp.Column):
                kind, left, right = _MIRRORED[kind], right, left
            column = self._column(left)
            result = _COMPARE[kind](column, self._compared(column, right))
        elif kind is exp.In:
            _only(node, kind, "this", "expressions", "negate")
            column = self._column(node.this)
            if not node.expressions:
                raise StatementRefused("IN needs a value")
            result = column.in_([self._compared(column, item) for item in node.expressions])
        elif kind is exp.Like:
            _only(node, kind, "this", "expression", "negate")
            result = self._like(self._column(node.this), node.expression)
        elif kind is exp.Between:
            _only(node, kind, "this", "low", "high", "negate")
            column = self._column(node.this)
            low, high = (self._compared(column, node.args[name]) for name in ("low", "high"))
            result = column.between(low, high)
        elif kind is exp.Is:
            _only(node, kind, "this", "expression", "negate")
            _only(node.expression, exp.Null)
            result = self._column(node.this).is_(None)
        else:
            raise StatementRefused(f"{node.key} has no place in a condition")
        return not_(result) if node.args.get("negate") else result

    def _like(self, column: Column[Any], node: Any) -> ColumnElement[bool]:
        if isinstance(column.type, (Integer, LargeBinary)):
            raise StatementRefused(f"{column.name} is no text, so LIKE has no meaning for it")
        pattern = str(self._compared(column, node))
        if self._dialect == "sqlite":
            # Its LIKE does not tell cases apart.
            return column.op("GLOB", is_comparison=True)(_glob(pattern))
        # A backslash at the end stands for itself in MySQL, and is a mistake elsewhere.
        lone = len(pattern) - len(pattern.rstrip("\\"))
        return column.like(pattern + "\\" * (lone % 2), escape="\\")


def _only(node: Any, kind: type[exp.Expression], *arguments: str) -> None:
    if type(node) is not kind:
        what = "nothing" if node is None else getattr(node, "key", str(node))
        raise StatementRefused(f"{what} stands where {kind.__name__.lower()} is expected")
    extra = [name for name, value in node.args.items() if value and name not in arguments]
    if extra:
        raise StatementRefused(f"{extra[0]} has no place in it")


def _name(node: Any) -> str:
    _only(node, exp.Identifier, "this", "quoted")
    return str(node.this)


def _distinct(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise StatementRefused("a column has two values")
    return values


def _glob(pattern: str) -> str:
    written = []
    for found in re.finditer(r"\\(.)|(.)", pattern, re.DOTALL):
        escaped, plain = found[1], found[2]
        if plain == "%":
            written.append("*")
        elif plain == "_":
            written.append("?")
        else:
            character = escaped or plain
            written.append(f"[{character}]" if character in "*?[" else character)
    return "".join(written)
