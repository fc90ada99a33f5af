"""Several processes behind one port: the front accepts connections and hands each to one of them.

The front holds the listening socket for as long as the server runs and does nothing else with a connection, so a
process may be replaced, or die, without one being refused. Connections go to the processes in turn: daemons keep
theirs for hours, and a socket that all processes listen on would give most of them to one.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from zope.interface import implementer

CHANNEL = 3
"""The descriptor on which a process gets its connections, each with the message TAKE; LEAVE is the last one."""
TAKE, LEAVE = b"c", b"l"
READY = b"ready"
AT_ONCE = 64
LONGEST_LINE = 1 << 16
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
START_SECONDS = 60.0
"""A process that is not ready after so long is ended."""
RETRY_SECONDS = 0.01
"""How soon a connection that no process could take is offered again."""

_log = Logger()


class Worker(ProcessProtocol):
    """One process. It says on its standard output that it is ready; what it logs is written by the front."""

    def __init__(self, number: int, gone: Callable[[Worker, str], None]) -> None:
        self.number = number
        self.ready: Deferred[bool] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.is_ready = False
        self.last_line = ""
        self._gone = gone
        self.channel, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        self._said = b""

    def _logged(self, line: bytes) -> None:
        self.last_line = line.decode("utf-8", "replace")
        _log.info("[{number}] {line}", number=self.number, line=self.last_line)

    def connectionMade(self) -> None:
        """It runs: its end of the channel is its own now."""
        self.theirs.close()

    def outReceived(self, data: bytes) -> None:
        """Standard output: the word that it is ready, and nothing else."""
        if data.strip() == READY and not self.ready.called:
            self.is_ready = True
            self.ready.callback(True)

    def errReceived(self, data: bytes) -> None:
        """Log it."""
        *lines, self._said = (self._said + data).split(b"\n")
        if len(self._said) > LONGEST_LINE:
            lines.append(self._said)
            self._said = b""
        for line in lines:
            self._logged(line)

    def processExited(self, _reason: Any) -> None:
        """It takes nothing more; its last words may still come."""
        self.is_ready = False

    def processEnded(self, reason: Any) -> None:
        """It is gone, whatever the reason."""
        if self._said:
            self._logged(self._said)
        self.is_ready = False
        self.channel.close()
        if not self.ready.called:
            self.ready.callback(False)
        self.ended.callback(None)
        problem = reason.value
        self._gone(self, f"signal {problem.signal}" if problem.signal else f"status {problem.exitCode}")

    def give(self, connection: socket.socket) -> bool:
        """Hand it a connection; False where it cannot take one now."""
        try:
            socket.send_fds(self.channel, [TAKE], [connection.fileno()])
        except OSError:
            return False
        return True

    def leave(self) -> None:
        """Let it serve the connections that it has been given to their end, and give it no more."""
        self.is_ready = False
        try:
            self.channel.send(LEAVE)
        except OSError:
            self.stop()

    def stop(self, how: str = "TERM") -> None:
        """Let it answer what is under way, and end."""
        with suppress(Exception):
            self.transport.signalProcess(how)  # type: ignore[union-attr]


@implementer(IReadDescriptor)
class Front:
    """The listening socket and the processes; `command(number)` starts one of them, with its CHANNEL open."""

    def __init__(
        self, reactor: Any, listener: socket.socket, processes: int, command: Callable[[int], list[str]]
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        self._processes = processes
        self._command = command
        self._workers: set[Worker] = set()
        # Whose turn it is to be given connections, by their numbers; all others are beginning or leaving.
        self._serving: dict[int, Worker] = {}
        self._pauses: dict[int, float] = {}
        self._ready_since: dict[int, float] = {}
        self._held: socket.socket | None = None
        self._timers: set[Any] = set()
        self._next = 0
        self._stopping = False
        self._renewing = self._renew_again = False
        listener.setblocking(False)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    async def start(self) -> str:
        """Start the processes, then accept; returns why none of them could start, empty where one could."""
        started = [self._begin(number) for number in range(1, self._processes + 1)]
        await DeferredList([worker.ready for worker in started])
        if not any(worker.is_ready for worker in started):
            return next((worker.last_line for worker in started if worker.last_line), "no process of it starts")
        if not self._stopping:
            self._reactor.addReader(self)
        return ""

    async def renew(self) -> None:
        """Replace the processes one by one: each new one is ready before its forerunner is given no more.

        Asked for while it is under way, it is done once more after that.
        """
        self._renew_again = True
        if self._renewing:
            return
        self._renewing = True
        try:
            while self._renew_again and not self._stopping:
                self._renew_again = False
                for number in sorted(self._serving):
                    if not await self._replace(number):
                        break
        finally:
            self._renewing = False

    async def _replace(self, number: int) -> bool:
        if self._stopping:
            return False
        new = self._spawn(number)
        if not await _started(new):
            if not self._stopping:
                _log.error(
                    "process {number} and those after it are not renewed, since a new one does not start: {reason}",
                    number=number,
                    reason=new.last_line,
                )
            return False
        old = self._serving.get(number)
        self._serving[number] = new
        if old is not None:
            old.leave()
        return True

    async def stop(self) -> None:
        """Accept nothing more, and wait until the processes have answered what is under way."""
        self._stopping = True
        self._reactor.removeReader(self)
        self._listener.close()
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()
        if self._held is not None:
            self._held.close()
            self._held = None
        workers = list(self._workers)
        for worker in workers:
            worker.stop()
        await DeferredList([_when(worker.ended) for worker in workers])

    def _later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> Any:
        self._timers = {timer for timer in self._timers if timer.active()}
        timer = self._reactor.callLater(seconds, action, *arguments)
        self._timers.add(timer)
        return timer

    def _begin(self, number: int) -> Worker:
        """Start a process that is to serve."""
        worker = self._serving[number] = self._spawn(number)
        return worker

    def _spawn(self, number: int) -> Worker:
        worker = Worker(number, self._gone)
        self._workers.add(worker)
        command = self._command(number)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        # Ctrl-C goes to a terminal's whole group; what follows from it is said here. The process begins with this.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._reactor.spawnProcess(
                worker,
                command[0],
                command,
                env=None,
                childFDs={0: nothing, 1: "r", 2: "r", CHANNEL: worker.theirs.fileno()},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(nothing)
        late = self._later(START_SECONDS, self._too_late, worker)

        def started(ready: bool) -> bool:
            if late.active():
                late.cancel()
            if ready:
                self._ready_since[number] = self._reactor.seconds()
            return ready

        worker.ready.addCallback(started)
        return worker

    def _too_late(self, worker: Worker) -> None:
        _log.error("process {number} is not ready in {limit} s", number=worker.number, limit=START_SECONDS)
        worker.stop("KILL")

    def _gone(self, worker: Worker, how: str) -> None:
        self._workers.discard(worker)
        number = worker.number
        if self._serving.get(number) is not worker:
            return
        del self._serving[number]
        if self._stopping:
            return
        pause = min(LONGEST_PAUSE, 2 * self._pauses.get(number, FIRST_PAUSE / 2))
        if self._reactor.seconds() - self._ready_since.pop(number, self._reactor.seconds()) > LONGEST_PAUSE:
            pause = FIRST_PAUSE
        self._pauses[number] = pause
        _log.error(
            "process {number} has ended ({how}), another one is started in {pause} s",
            number=number,
            how=how,
            pause=pause,
        )
        self._later(pause, self._again, number)

    def _again(self, number: int) -> None:
        if self._stopping or number in self._serving:
            return
        try:
            self._begin(number)
        except OSError as problem:
            _log.error("process {number} cannot be started: {problem}", number=number, problem=problem.strerror)
            self._later(LONGEST_PAUSE, self._again, number)

    # The listening socket.

    def fileno(self) -> int:
        """The socket that the reactor watches."""
        return self._listener.fileno()

    def doRead(self) -> None:
        """Accept what has come, and hand it on; what nobody takes now waits, and all that come after it."""
        for _ in range(AT_ONCE):
            try:
                connection, _peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as problem:
                _log.error("no connection can be accepted: {problem}", problem=problem.strerror)
                self._reactor.removeReader(self)
                self._later(FIRST_PAUSE, self._reactor.addReader, self)
                return
            if not self._hand_on(connection):
                self._held = connection
                self._reactor.removeReader(self)
                self._later(RETRY_SECONDS, self._offer_again)
                return
            connection.close()

    def _hand_on(self, connection: socket.socket) -> bool:
        ready = [worker for _, worker in sorted(self._serving.items()) if worker.is_ready]
        for step in range(len(ready)):
            if ready[(self._next + step) % len(ready)].give(connection):
                self._next += step + 1
                return True
        return False

    def _offer_again(self) -> None:
        connection = self._held
        if connection is not None and not self._hand_on(connection):
            self._later(RETRY_SECONDS, self._offer_again)
            return
        self._held = None
        if connection is not None:
            connection.close()
        self._reactor.addReader(self)

    def connectionLost(self, _reason: object) -> None:
        """The reactor watches it no longer."""

    def logPrefix(self) -> str:
        """What the reactor calls it in the log."""
        return "front"


def _when(event: Deferred[Any]) -> Deferred[Any]:
    """Fires with what `event` has, which others may wait for too."""
    waiting: Deferred[Any] = Deferred()

    def pass_on(result: Any) -> Any:
        waiting.callback(result)
        return result

    event.addCallback(pass_on)
    return waiting


async def _started(worker: Worker) -> bool:
    return bool(await _when(worker.ready))
