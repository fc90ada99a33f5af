"""Wake-ups between the programs that serve a project on one machine: datagrams on sockets in a directory.

Commit first, then ring: what a ring says is true already. It carries no state, only the hint to look. One that is
lost, since a program does not hear it for long or runs on another machine, costs the time until that program looks by
itself, and never a job.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from lgi.model import Changes

Heard = Callable[[str, Changes], None]
"""Called with a project and what has changed in it."""

_SUFFIX = ".bell"
_LONGEST = 1 << 17  # bytes; the system takes somewhat more in one datagram
_RETRY_SECONDS = 0.02
GATHER_SECONDS = 0.003
"""What changes within so long is rung together if it has work for somebody, or something for the scheduler."""
LONG_GATHER_SECONDS = 0.02
"""And so long where nothing but jobs has changed: that is most of it, and people wait for it."""
# What one ring says of jobs at most, of those that could not be told in time: it has to fit into a datagram.
_MOST_JOBS = 4096


def encode(project: str, changes: Changes) -> bytes:
    """What has changed in a project, as a datagram."""
    said = {
        "project": project,
        "jobs": sorted(changes.jobs),
        "offers": sorted(changes.offers),
        "agenda": changes.agenda,
    }
    return json.dumps(said).encode()


def decode(datagram: bytes) -> tuple[str, Changes]:
    """The project and what has changed in it; raises ValueError, TypeError or KeyError for what is not ours."""
    said = json.loads(datagram)
    changes = Changes(
        jobs=frozenset(map(int, said["jobs"])),
        offers=frozenset((str(application), str(target)) for application, target in said["offers"]),
        agenda=bool(said["agenda"]),
    )
    return str(said["project"]), changes


@implementer(IReadDescriptor)
class Bell:
    """Rings all other bells in a directory; once it listens, `heard` is called with every ring of theirs.

    The system keeps few rings for one that is busy. What finds no room there is rung again, all of it together, by a
    bell that listens itself.
    """

    _log = Logger()

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._folder: int | None = None
        self._socket: socket.socket | None = None
        self._name = ""
        self._reactor: Any = None
        self._late: dict[tuple[str, str], Changes] = {}
        self._timer: Any = None
        self._soon: dict[str, Changes] = {}
        self._gathering: Any = None
        self.heard: Heard = lambda _project, _changes: None

    def ring(self, project: str, changes: Changes) -> None:
        """Tell the others, without waiting for any; a directory that is not there has nobody in it.

        A bell that listens itself gathers what changes at about the same time, and rings once.
        """
        if self._reactor is None:
            self._ring(project, changes)
            return
        before = self._soon.get(project)
        if before is not None and len(before.jobs) >= _MOST_JOBS:
            self._ring(project, self._soon.pop(project))
            before = None
        self._soon[project] = changes if before is None else before | changes
        seconds = GATHER_SECONDS if changes.offers or changes.agenda else LONG_GATHER_SECONDS
        if self._gathering is None:
            self._gathering = self._reactor.callLater(seconds, self._ring_all)
        elif self._gathering.getTime() > self._reactor.seconds() + seconds:
            self._gathering.reset(seconds)

    def _ring_all(self) -> None:
        if self._gathering is not None and self._gathering.active():
            self._gathering.cancel()
        self._gathering = None
        soon, self._soon = self._soon, {}
        for project, changes in soon.items():
            self._ring(project, changes)

    def _ring(self, project: str, changes: Changes) -> None:
        try:
            self._open()
            names = os.listdir(self._folder)  # noqa: PTH208 - by its descriptor
        except OSError as problem:
            if not isinstance(problem, FileNotFoundError):
                self._log.warn("{folder}: {problem}", folder=self._directory, problem=problem.strerror)
            return
        datagram = encode(project, changes)
        for name in names:
            if name.endswith(_SUFFIX) and name != self._name:
                late = self._late.get((name, project))
                if late is None:
                    self._send(name, project, changes, datagram)
                else:
                    self._late[name, project] = late | changes

    def _send(self, name: str, project: str, changes: Changes, datagram: bytes) -> None:
        try:
            self._open().sendto(datagram, self._path(name))
        except ConnectionRefusedError:
            # Its program was killed.
            with suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
        except BlockingIOError:
            if self._reactor is not None:
                self._late[name, project] = changes
                if self._timer is None:
                    self._timer = self._reactor.callLater(_RETRY_SECONDS, self._again)
        except OSError:
            # Gone at this moment.
            pass

    def _again(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        late, self._late = self._late, {}
        for (name, project), changes in late.items():
            said = attrs.evolve(changes, jobs=frozenset(sorted(changes.jobs)[-_MOST_JOBS:]))
            self._send(name, project, said, encode(project, said))

    def listen(self, reactor: Any) -> None:
        """Hear the others from now on; makes the directory. Raises OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        receiver = self._open()
        name = f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        receiver.bind(self._path(name))
        self._name, self._reactor = name, reactor
        reactor.addReader(self)

    def close(self) -> None:
        """Hear and ring nothing more, after what has been rung for last. Twice is once."""
        self._ring_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._late.clear()
        if self._reactor is not None:
            self._reactor.removeReader(self)
            self._reactor = None
        if self._name:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)
            self._name = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _open(self) -> socket.socket:
        if self._folder is None:
            self._folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._socket is None:
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
        return self._socket

    def _path(self, name: str) -> str:
        # The address of a socket has about a hundred bytes, the path of a directory may have more.
        return f"/proc/self/fd/{self._folder}/{name}"

    def fileno(self) -> int:
        """The socket that the reactor watches."""
        return -1 if self._socket is None else self._socket.fileno()

    def doRead(self) -> None:
        """Take what has come."""
        while self._socket is not None:
            try:
                datagram = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError as problem:
                self._log.warn("{folder}: {problem}", folder=self._directory, problem=problem.strerror)
                return
            try:
                project, changes = decode(datagram)
            except (ValueError, TypeError, KeyError):
                self._log.warn("{folder}: a ring that is not understood", folder=self._directory)
                continue
            self.heard(project, changes)

    def connectionLost(self, _reason: object) -> None:
        """The reactor watches it no longer."""

    def logPrefix(self) -> str:
        """What the reactor calls it in the log."""
        return "bell"
