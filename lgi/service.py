"""What the programs' services have in common: starting whole or not at all, and periodic work."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.usage import Options, UsageError

from lgi.errors import LGIError

_log = Logger()
_PID_FILE = "twistd.pid"


class ProgramOptions(Options):
    """What the options of all our programs have in common: their place among those of twistd."""

    twistd: ClassVar[Any] = None
    """twistd's own options in this process, None where it is not twistd that runs."""

    def parseArgs(self, *words: str) -> None:
        """Everything is said by options."""
        if words:
            raise UsageError(f"{words[0]!r} is no option; a file is given as --config FILE")

    def postOptions(self) -> None:
        """Give the program a process file of its own, if any: several of ours may be started in one directory."""
        ProgramOptions.twistd = self.parent
        if self.parent is None:
            return
        _begin_quietly()
        if self.parent["pidfile"] == _PID_FILE:
            self.parent["pidfile"] = "" if self.parent["nodaemon"] else f"{self.parent.subCommand}.pid"


def _begin_quietly() -> None:
    """Have Ctrl-C end the program at once, without a traceback, until the reactor is there to end it in order."""
    from twisted.internet import reactor

    running: Any = reactor
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    running.callWhenRunning(signal.signal, signal.SIGINT, running.sigInt)


def told(problem: OSError) -> str:
    """What a failure of files, here or on another machine, is in one line."""
    reason = problem.strerror or str(problem)
    return f"{problem.filename}: {reason}" if problem.filename else reason


def refuse(program: str, problem: object) -> NoReturn:
    """End the program before anything of it has started: the problem on standard error, status 1."""
    raise SystemExit(f"{program}: {problem}")


def cannot_start(program: str, problem: object) -> NoReturn:
    """End the program with one readable line and status 1; only while it starts, before it has any work in flight.

    twistd has no way to let a service that fails in `startService` decide the exit status: a stopped reactor is a
    success to it.
    """
    lines = str(problem) or type(problem).__name__
    _log.critical("{program} cannot start: {problem}", program=program, problem=lines)
    twistd = ProgramOptions.twistd
    if twistd is not None:
        with suppress(OSError):
            if twistd["pidfile"]:
                Path(twistd["pidfile"]).unlink()
        with suppress(OSError):
            # In the background: the process that was called from the shell waits for this, and shows its beginning.
            if twistd.get("statusPipe") is not None:
                os.write(twistd["statusPipe"], f"1 {lines}".encode()[:100])
    sys.stdout.flush()
    os._exit(1)


class Periodic(Service):
    """Calls `work` again and again, `work()` saying in how many seconds; `wake()` calls it now.

    Between the end of a call and the next one there are at least `pause` seconds. An exception in `work` is logged
    and the next call is made after `retry` seconds. Stopping waits for work under way.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        work: Callable[[], Awaitable[float]],
        *,
        retry: float = 10.0,
        pause: float = 0.0,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._work = work
        self._retry = retry
        self._pause = pause
        self._ended: float | None = None
        self._timer: Any = None
        self._again = False
        self._under_way: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin at once."""
        super().startService()
        self.wake()

    def stopService(self) -> Deferred[None] | None:
        """Begin nothing more; the result fires when work under way has ended."""
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        return self._under_way

    def wake(self) -> None:
        """Work now, or once more if it is under way."""
        if not self.running:
            return
        if self._under_way is not None:
            self._again = True
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        left = 0.0 if self._ended is None else self._ended + self._pause - self._reactor.seconds()
        if left > 0:
            self._timer = self._reactor.callLater(left, self.wake)
            return
        done: Deferred[None] = Deferred()
        self._under_way = done
        ensureDeferred(self._turn(done))

    async def _turn(self, done: Deferred[None]) -> None:
        try:
            pause = await self._work()
        except LGIError as problem:
            # Expected, such as a database that is away.
            _log.warn(
                "{name} is tried again in {retry} s: {problem}", name=self._name, retry=self._retry, problem=problem
            )
            pause = self._retry
        except Exception:
            _log.failure("{name} failed and is tried again in {retry} s", name=self._name, retry=self._retry)
            pause = self._retry
        self._under_way = None
        self._ended = self._reactor.seconds()
        if self.running:
            if self._again:
                self._again, pause = False, 0
            self._timer = self._reactor.callLater(max(pause, self._pause), self.wake)
        done.callback(None)
