"""Running the commands of batch systems: argument lists, never a shell, with a time limit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from lgi.batch.values import BatchError

LIMIT = 60.0  # seconds
GRACE = 5.0  # seconds between TERM and KILL
MOST_OUTPUT = 256 * 1024 * 1024  # bytes
_MOST_SAID = 600  # characters of a command's complaint that go into ours


class CommandFailed(BatchError):
    """A command that is missing, took too long or exited with a status it should not have; `done` where it ended."""

    def __init__(self, message: str, done: Done | None = None) -> None:
        self.done = done
        super().__init__(message)


@attrs.frozen(kw_only=True)
class Done:
    """How a command ended: its exit status, negative for a signal, and what it said."""

    command: str
    status: int
    out: str
    err: str

    def failure(self) -> CommandFailed:
        """The error that says so."""
        how = f"was killed by signal {-self.status}" if self.status < 0 else f"exited with status {self.status}"
        said = " ".join((self.err or self.out).split())
        if len(said) > _MOST_SAID:
            said = f"{said[:_MOST_SAID]}…"
        return CommandFailed(f"{self.command} {how}: {said or 'it said nothing'}", self)


class _Talk(ProcessProtocol):
    """Gathers what a process says; `over` fires with how it ended."""

    transport: Any

    def __init__(self, words: bytes) -> None:
        self._words = words
        self.said: dict[int, list[bytes]] = {1: [], 2: []}
        self.size = 0
        self.over: Deferred[Any] = Deferred(self._cancel)

    def connectionMade(self) -> None:
        """Tell it its input."""
        self.transport.write(self._words)
        self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep it, as long as it is not absurdly much."""
        self.size += len(data)
        if self.size > MOST_OUTPUT:
            self.signal("KILL")
        else:
            self.said[childFD].append(data)

    def processExited(self, reason: Failure) -> None:
        """Its end alone is not enough: what it said may still be on the way."""

    def processEnded(self, reason: Failure) -> None:
        """All is said."""
        over, self.over = self.over, Deferred()
        over.callback(reason.value)

    def signal(self, name: str) -> None:
        """Send a signal; no complaint when it is gone."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def close(self) -> None:
        """Kill it, and wait for nobody who still holds its pipes."""
        self.signal("KILL")
        self.transport.loseConnection()

    def _cancel(self, _: Deferred[Any]) -> None:
        self.over = Deferred()
        self.close()


class Commands:
    """Runs commands with an environment; `limit` is in seconds, `reactor` gives processes and time."""

    def __init__(self, *, reactor: Any, environment: Mapping[str, str], limit: float = LIMIT) -> None:
        self.reactor = reactor
        self.environment = environment
        self.limit = limit

    async def run(
        self,
        *command: str,
        accept: Collection[int] | None = (0,),
        directory: Path | None = None,
        settings: Mapping[str, str] | None = None,
        words: bytes = b"",
        hold_open: Sequence[int] = (),
    ) -> Done:
        """Run a command and return how it ended; raises CommandFailed unless its exit status is one of `accept`.

        `settings` are added to the environment, `words` is its input; the descriptors `hold_open` stay open in it,
        so that a lock on them lasts as long as the command does, whatever becomes of this process. `accept` None
        takes any exit status, but no signal.
        """
        environment = {**self.environment, **(settings or {})}
        program = shutil.which(command[0], path=environment.get("PATH", os.defpath))
        if program is None:
            raise CommandFailed(f"{command[0]} is not installed, or not on the PATH")
        talk = _Talk(words)
        over = talk.over
        files: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
        files.update({3 + place: descriptor for place, descriptor in enumerate(hold_open)})
        where = None if directory is None else str(directory)
        self.reactor.spawnProcess(talk, program, list(command), env=environment, path=where, childFDs=files)
        calls = [
            self.reactor.callLater(self.limit, talk.signal, "TERM"),
            self.reactor.callLater(self.limit + GRACE, talk.close),
        ]
        try:
            end = await over
        finally:
            late = not calls[0].active()
            for call in calls:
                if call.active():
                    call.cancel()
        line = " ".join(command)
        if late:
            raise CommandFailed(f"{line} did not answer within {self.limit:g} seconds")
        if talk.size > MOST_OUTPUT:
            raise CommandFailed(f"{line} said more than {MOST_OUTPUT} bytes")
        done = Done(
            command=line,
            status=end.exitCode if end.exitCode is not None else -end.signal,
            out=b"".join(talk.said[1]).decode("utf-8", "replace"),
            err=b"".join(talk.said[2]).decode("utf-8", "replace"),
        )
        if done.status < 0 or (accept is not None and done.status not in accept):
            raise done.failure()
        return done
