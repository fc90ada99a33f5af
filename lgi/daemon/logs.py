"""Where the daemon's log goes, how much of it, and how it is begun anew (LGI 1.41, Resource daemon: its options)."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import attrs
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    Logger,
    LogLevel,
    PredicateResult,
    formatEventAsClassicLogText,
    formatTime,
)
from zope.interface import implementer

from lgi.service import ProgramOptions

_log = Logger()
QUIET, NORMAL, DEBUG, EVERYTHING = -1, 0, 1, 2
"""`-q`, `-n`, `-v`, `-vv`: critical messages alone; all but those for debugging; ours of them too; all of them."""
CALLS = "lgi.daemon.trace"
"""Namespace of the messages about single calls of a server, which only EVERYTHING has."""
DEFAULT_FILE = "twistd.log"


class LogFile:
    """A file that is appended to, also after somebody has moved it away and had it opened anew; text is UTF-8.

    Raises OSError when it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._open()

    def _open(self) -> IO[str]:
        return self.path.open("a", encoding="utf-8", errors="backslashreplace")

    def write(self, text: str) -> None:
        """Append the text."""
        self._file.write(text)

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def reopen(self) -> None:
        """Go on in the file that now has the name; raises OSError, and goes on in the old one then."""
        former, self._file = self._file, self._open()
        former.close()


@implementer(ILogFilterPredicate)
@attrs.frozen(kw_only=True)
class Filter:
    """Which messages a verbosity lets through."""

    verbosity: int

    def __call__(self, event: dict[str, Any]) -> Any:
        """Twisted's answer for a message."""
        return PredicateResult.yes if self._wanted(event) else PredicateResult.no

    def _wanted(self, event: dict[str, Any]) -> bool:
        level = event.get("log_level") or LogLevel.info
        if self.verbosity <= QUIET:
            return bool(level >= LogLevel.critical)
        if level >= LogLevel.info or self.verbosity >= EVERYTHING:
            return True
        namespace = str(event.get("log_namespace", ""))
        return self.verbosity >= DEBUG and namespace.startswith("lgi.") and namespace != CALLS


@lru_cache(maxsize=1)
def _second(when: int) -> str:
    return formatTime(when)


def _line(event: dict[str, Any]) -> str | None:
    # Many of them come in the same second, whose text takes as long as the rest of a line.
    return formatEventAsClassicLogText(event, formatTime=lambda when: "-" if when is None else _second(int(when)))


_file: LogFile | None = None


def observer() -> ILogObserver:
    """What twistd logs to, by its own options and our `--quiet` and `--verbose`; `reopen` is for this.

    In the background `--logfile -` is the standard output that twistd was started with. No file is rotated here:
    that is for logrotate, and SIGHUP.
    """
    global _file  # noqa: PLW0603  # twistd takes the name of a function without arguments
    twistd = ProgramOptions.twistd
    name, background = twistd["logfile"], not twistd["nodaemon"]
    stream: Any
    if name == "-" and background:
        stream = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    elif name == "-" or not (name or background):
        stream = sys.stdout
    else:
        path = Path(name or DEFAULT_FILE).absolute()
        try:
            stream = _file = LogFile(path)
        except OSError as problem:
            raise SystemExit(f"lgi-daemon: the log file {path} cannot be opened: {problem.strerror}") from None
    return FilteringLogObserver(FileLogObserver(stream, _line), [Filter(verbosity=twistd.subOptions["verbosity"])])


def reopen() -> None:
    """Open the log file anew, if there is one; where that cannot be, the log says so and goes on where it is."""
    if _file is None:
        return
    try:
        _file.reopen()
    except OSError as problem:
        _log.critical("the log file {path} cannot be opened anew: {problem}", path=str(_file.path), problem=problem)
