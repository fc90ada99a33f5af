"""What `lgi files` says of the files that it moves: a line for each, and why those that failed did."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lgi.cli.bars import Bars
from lgi.cli.complaint import Complaint
from lgi.cli.screen import Screen, printable
from lgi.cli.show import size as shown_size
from lgi.client.answers import ServerRefused
from lgi.client.transfer import Progress, no_progress
from lgi.client.tree import Problem, Stopped

_MANY = 100  # from here on a terminal gets one line about all

_HINTS = {
    401: "the server knows nobody by this certificate",
    403: "the job's owners, those with write access (lgi submit --write) and the resources may change its files",
    404: "lgi files ls shows what is there",
    409: "a name is either a file's or a directory's: lgi files ls shows what is there",
    413: "remove what is not needed with lgi files rm, or ask the server's administrator for more room",
    422: "what arrived was not what was sent; try again",
    507: "the server's disk is full; tell its administrator",
}


def line(screen: Screen, name: str, size: int) -> str:
    """The line about a file."""
    return printable(f"{name} {shown_size(size) if screen.terminal else f'{size} bytes'}")


def explained(problem: Problem) -> Exception:
    """The problem with what to do about it, where that is known."""
    if isinstance(problem, ServerRefused):
        hint = _HINTS.get(problem.number)
        return Complaint(f"{problem}; {hint}") if hint else problem
    if isinstance(problem, ValueError):
        return Complaint(str(problem))
    return problem


class Report:
    """What is told of each file; `value` is what JSON has of one that is done."""

    def __init__(
        self,
        screen: Screen,
        files: int,
        value: Callable[[str, int], dict[str, Any]],
        *,
        bars: Bars | None = None,
        said: Callable[[str, int], str] | None = None,
    ) -> None:
        self._screen = screen
        self._bars = bars
        self._value = value
        self._said = said or (lambda name, size: line(screen, name, size))
        self._each = not screen.terminal or files <= _MANY
        self._values: list[dict[str, Any]] = []
        self._count = self._bytes = 0
        self._begun = time.monotonic()

    def started(self, name: str, size: int) -> Progress:
        """It is on its way."""
        return self._bars.start(name, size) if self._bars is not None else no_progress

    def done(self, name: str, size: int) -> None:
        """It has arrived."""
        self._count += 1
        self._bytes += size
        if self._screen.json:
            self._values.append(self._value(name, size))
        elif self._each:
            self._screen.line(self._said(name, size))
        self._end(name)

    def failed(self, name: str, problem: Problem) -> None:
        """It has not."""
        self._end(name)
        self._screen.complain(explained(problem), name)

    def _end(self, name: str) -> None:
        if self._bars is not None:
            self._bars.end(name)

    def close(self) -> int:
        """Say what there is to say of all; returns the exit status."""
        if self._screen.terminal and self._count > 1:
            seconds = max(time.monotonic() - self._begun, 1e-3)
            rate = shown_size(int(self._bytes / seconds))
            self._screen.line(f"{self._count} files, {shown_size(self._bytes)} in {seconds:.1f} s ({rate}/s)")
        self._screen.result(sorted(self._values, key=lambda value: str(value["name"])))
        return int(self._screen.failed)

    def stopped(self, problem: Stopped) -> None:
        """No more can be moved; why has been said of one of them."""
        self._screen.failed = True
        if problem.left:
            self._screen.complain(
                Complaint(
                    f"{problem.left} more not moved; run the same command again, large files go on where they stopped"
                )
            )
