"""What a tool says beside its results: on standard error, with -v or -vv."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import attrs
from twisted.logger import LogEvent, LogLevel, formatEvent

from lgi.tools.options import Given, Option

VERBOSITY = (
    Option("-v", "say on standard error what is done."),
    Option("-vv", "say on standard error all that is done."),
)


@attrs.frozen(kw_only=True)
class Notes:
    """Writes lines with the time; `level` 0 is silence, 1 -v, 2 -vv. Keys and contents of files are never in them."""

    level: int = 0
    err: TextIO = attrs.field(factory=lambda: sys.stderr)

    def debug(self, text: str) -> None:
        """Say it with -v."""
        if self.level >= 1:
            self.say(f"[DEBUG] {text}")

    def everything(self, text: str) -> None:
        """Say it with -vv."""
        if self.level >= 2:
            self.say(f"[VERBOSE DEBUG] {text}")

    def say(self, text: str) -> None:
        """Say it in any case."""
        self.err.write(f"{time.ctime()} {text}\n")

    def observe(self, event: LogEvent) -> None:
        """A log observer: what our libraries have to warn of, and with -vv everything."""
        level = event.get("log_level", LogLevel.info)
        if level is LogLevel.warn and str(event.get("log_namespace", "")).startswith("lgi."):
            self.say(f"[WARNING] {formatEvent(event)}")
        elif self.level >= 2:
            self.say(f"[VERBOSE DEBUG] {formatEvent(event)}")
            if "log_failure" in event:
                self.err.write(event["log_failure"].getTraceback())


def notes_of(given: Given) -> Notes:
    """What -v and -vv ask for."""
    return Notes(level=2 if "-vv" in given.switches else int("-v" in given.switches))
