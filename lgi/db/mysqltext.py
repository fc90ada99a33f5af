"""MySQL's text: statements taken apart into words and values, and values written as it reads them.

What a value is must not depend on how well some parser knows MySQL's quoting. So values are taken out here, by
MySQL's own rules, and what is left of a statement is a skeleton of known words, signs and numbered places.
"""

from __future__ import annotations

import re

import attrs

Value = str | int | bytes

# A statement of an administrator has a few dozen; these bounds keep a parser's time and depth small.
TOKENS = 5_000
DEPTH = 32
BRANCHES = 200

_TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\r\n\f\v]++ )
    | (?P<hex>     0x[0-9a-fA-F]++(?![A-Za-z_$]) | [xX]'(?:[0-9a-fA-F]{2})*+' )
    | (?P<number>  -?[0-9]++(?![A-Za-z_$.]) )
    | (?P<word>    [A-Za-z][A-Za-z0-9_]*+(?!['"$]) | `[A-Za-z][A-Za-z0-9_]*+` )
    | (?P<string>  '(?:[^'\\]++|\\.|'')*+' | "(?:[^"\\]++|\\.|"")*+" )
    | (?P<sign>    <=(?!>) | <> | <(?![=>]) | >=? | != | [(),=.;] )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)|''", re.DOTALL)
_ESCAPE_DOUBLE = re.compile(r'\\(.)|""', re.DOTALL)
_ESCAPED = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}
_WRITTEN = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0", "\x1a": "\\Z", "\n": "\\n", "\r": "\\r"})


class StatementRefused(Exception):
    """A statement that is not one an update may have; the message says why."""


@attrs.frozen(kw_only=True)
class Skeleton:
    """A statement with the place `:vN` for the value number N, and the values."""

    text: str
    values: tuple[Value, ...]


def quoted(value: Value) -> str:
    """A value as MySQL reads it; bytes that are no text in hexadecimal."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        if not value.isascii():
            return f"0x{value.hex()}"
        value = value.decode("ascii")
    return f"'{value.translate(_WRITTEN)}'"


def _unquoted(text: str) -> str:
    # MySQL: an escape that means nothing is its character; \% and \_ keep theirs, for LIKE.
    def meant(found: re.Match[str]) -> str:
        return text[0] if found[1] is None else _ESCAPED.get(found[1], found[1])

    return (_ESCAPE if text[0] == "'" else _ESCAPE_DOUBLE).sub(meant, text[1:-1])


def _value(kind: str, text: str) -> Value:
    if kind == "number":
        if len(text.lstrip("-")) > 18:
            raise StatementRefused(f"the number {text[:30]} is too big")
        return int(text)
    if kind == "hex":
        digits = text[2:].rstrip("'")
        return bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))
    return _unquoted(text)


def take_apart(statement: str, words: frozenset[str]) -> Skeleton:
    """Separate a statement's values from its words, which must be among `words` (upper case).

    One semicolon may end it. Raises StatementRefused: for comments, variables, parameters, other words and signs.
    """
    parts: list[str] = []
    values: list[Value] = []
    position = depth = branches = 0
    statement = statement.strip(" \t\r\n\f\v")
    while position < len(statement):
        found = _TOKEN.match(statement, position)
        if found is None:
            raise StatementRefused(f"{statement[position : position + 20]!r} has no place in an update")
        kind, text, position = found.lastgroup or "", found[0], found.end()
        if kind == "space":
            continue
        if kind == "word" and text.strip("`").upper() not in words:
            raise StatementRefused(f"the word {text!r} has no place in an update")
        if text == ";":
            if position < len(statement):
                raise StatementRefused("an update is one statement")
            break
        branches += text.upper() in ("AND", "OR")
        # A NOT is a level of its own to a parser.
        depth += {"(": 1, ")": -1, "NOT": 1}.get(text.upper(), 0)
        if depth > DEPTH or branches > BRANCHES or len(parts) > TOKENS:
            raise StatementRefused("the statement is too complicated")
        if kind in ("hex", "number", "string"):
            parts.append(f":v{len(values)}")
            values.append(_value(kind, text))
        else:
            parts.append(text)
    return Skeleton(text=" ".join(parts), values=tuple(values))
