"""The access log in a file of its own: one line for each request, written together once a second."""

from __future__ import annotations

import os
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from lgi.httpd.record import Record

FLUSH_SECONDS = 1.0
FULL = 256 * 1024
"""Bytes of lines that are not kept any longer."""
_SECRET = re.compile(r"(JOB_[0-9a-f]{8})[0-9a-f]{24}")
_IN_QUOTES = re.compile(r"[^ !#-\[\]-~]")
_BARE = re.compile(r"[^!#-\[\]-~]")


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


@lru_cache(maxsize=1024)
def _quoted(text: bytes) -> str:
    return _IN_QUOTES.sub(_escaped, text.decode("latin-1"))


@lru_cache(maxsize=1024)
def _bare(text: str) -> str:
    return _BARE.sub(_escaped, text) or "-"


def line_of(request: Any, record: Record, when: str) -> str:
    """The line of a request: the combined format, and behind it call, LGI error and milliseconds.

    Whole names of repositories are not in it, since they give the right to read; nor is anything that was posted.
    """
    uri = _IN_QUOTES.sub(_escaped, request.uri.decode("latin-1"))
    if "JOB_" in uri:
        uri = _SECRET.sub(r"\1...", uri)
    headers = request.requestHeaders
    referer = (headers.getRawHeaders(b"referer") or (b"-",))[0]
    agent = (headers.getRawHeaders(b"user-agent") or (b"-",))[0]
    host = getattr(request.client, "host", "-")
    return (
        f"{host} - {_bare(record.caller)} [{when}] "
        f'"{_quoted(request.method)} {uri} {_quoted(request.clientproto)}" {record.status} {record.size} '
        f'"{_quoted(referer)}" "{_quoted(agent)}" {_bare(record.call)} '
        f"{'-' if record.error is None else record.error} {(record.ended - record.began) * 1000:.1f}\n"
    )


class AccessLog:
    """Appends to `file`, which other processes may do too: lines are written whole.

    A log that cannot be written does not keep anybody from being served: what was lost is told in the server's log.
    """

    _log = Logger()

    def __init__(self, reactor: Any, file: Path) -> None:
        self._reactor = reactor
        self._file = file
        self._descriptor: int | None = None
        self._lines: list[str] = []
        self._size = 0
        self._timer: Any = None
        self._second = -1
        self._when = ""
        self._lost = 0

    def open(self) -> None:
        """Open the file, anew if it is open, and make its directory; raises OSError, and goes on with the old one."""
        self._file.parent.mkdir(mode=0o750, exist_ok=True)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self.flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor

    def reopen(self) -> None:
        """Open the file anew, which somebody may have moved away."""
        try:
            self.open()
        except OSError as problem:
            self._log.error(
                "the access log {file} cannot be opened anew, the old one is kept: {problem}",
                file=str(self._file),
                problem=problem.strerror,
            )

    def write(self, request: Any, record: Record) -> None:
        """Take down a request that is over; nothing while it is not open."""
        if self._descriptor is None:
            return
        now = int(self._reactor.seconds())
        if now != self._second:
            self._second = now
            self._when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
        line = line_of(request, record, self._when)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FULL:
            self.flush()
        elif self._timer is None:
            self._timer = self._reactor.callLater(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what has been taken down."""
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        lines, self._lines, self._size = self._lines, [], 0
        if self._descriptor is None or not lines:
            return
        data = "".join(lines).encode()
        try:
            written = os.write(self._descriptor, data)
            if written < len(data):
                # A full disk: the rest says what is wrong, and no half line is left for the next one.
                os.write(self._descriptor, data[written:])
        except OSError as problem:
            if not self._lost:
                self._log.error(
                    "the access log {file} cannot be written: {problem}",
                    file=str(self._file),
                    problem=problem.strerror,
                )
            self._lost += len(lines)
            return
        if self._lost:
            self._log.warn("about {lost} lines of the access log are lost", lost=self._lost)
            self._lost = 0

    def close(self) -> None:
        """Write what has been taken down, and close the file. Twice is once."""
        self.flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
