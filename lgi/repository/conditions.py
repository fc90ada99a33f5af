"""Conditional requests and ranges (RFC 9110, sections 13 and 14): pure functions over headers and a file's state."""

from __future__ import annotations

import re
from email.utils import formatdate, parsedate_to_datetime

import attrs
from twisted.web.http_headers import Headers

from lgi.repository.store import FileState

_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(W/)?"([^"]*)"')
# Digits beyond which no file is, and Python is slow.
_MOST_DIGITS = 18


class Unsatisfiable(Exception):
    """A range of which the file has nothing."""


def etag(state: FileState) -> str:
    """A strong entity tag."""
    return f'"{state.mark}"'


def last_modified(state: FileState) -> str:
    """The date of a file in HTTP."""
    return formatdate(state.date // 10**9, usegmt=True)


def _one(headers: Headers, name: str) -> str | None:
    values = headers.getRawHeaders(name.encode())
    return None if not values else b", ".join(values).decode("latin-1").strip()


def _seconds(date: str | None) -> float | None:
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _names(condition: str, state: FileState | None, *, weak: bool) -> bool:
    if condition == "*":
        return state is not None
    return state is not None and any(
        tag == state.mark and (weak or not weakness) for weakness, tag in _TAG.findall(condition)
    )


@attrs.frozen(kw_only=True)
class Conditions:
    """What a request makes itself depend on."""

    match: str | None = None
    none_match: str | None = None
    modified_since: float | None = None
    unmodified_since: float | None = None

    @classmethod
    def of(cls, headers: Headers) -> Conditions:
        """Those in the headers; dates that are none do not count."""
        return cls(
            match=_one(headers, "If-Match"),
            none_match=_one(headers, "If-None-Match"),
            modified_since=_seconds(_one(headers, "If-Modified-Since")),
            unmodified_since=_seconds(_one(headers, "If-Unmodified-Since")),
        )

    def __bool__(self) -> bool:
        """Whether there is any that a change has to look at."""
        return not (self.match is None and self.none_match is None and self.unmodified_since is None)

    def fail(self, state: FileState | None) -> bool:
        """Whether a request must be answered with 412; `state` is the file's, None where there is none.

        `none_match` counts here for changes alone; for reading it is `unchanged` that asks it.
        """
        return self._lacks(state) or (self.none_match is not None and _names(self.none_match, state, weak=True))

    def _lacks(self, state: FileState | None) -> bool:
        if self.match is not None:
            return not _names(self.match, state, weak=False)
        return self.unmodified_since is not None and (state is None or state.date // 10**9 > self.unmodified_since)

    def fail_reading(self, state: FileState) -> bool:
        """Whether a GET or HEAD must be answered with 412."""
        return self._lacks(state)

    def unchanged(self, state: FileState) -> bool:
        """Whether a GET or HEAD must be answered with 304."""
        if self.none_match is not None:
            return _names(self.none_match, state, weak=True)
        return self.modified_since is not None and state.date // 10**9 <= self.modified_since


def wanted_range(headers: Headers, state: FileState) -> tuple[int, int] | None:
    """The first byte that is wanted, and how many; None for the whole file, also where several ranges are wanted.

    Raises Unsatisfiable.
    """
    found = _RANGE.fullmatch(_one(headers, "Range") or "")
    if found is None or not any(found.groups()) or max(map(len, found.groups())) > _MOST_DIGITS:
        return None
    only_if = _one(headers, "If-Range")
    # No date counts: a file may have been changed twice in the second that it tells.
    if only_if is not None and only_if != etag(state):
        return None
    first, last = found.groups()
    if not first:
        size = min(int(last), state.size)
        start = state.size - size
    else:
        start = int(first)
        if last and int(last) < start:
            return None
        size = min(int(last) + 1 if last else state.size, state.size) - start
    if size <= 0:
        raise Unsatisfiable
    return start, size
