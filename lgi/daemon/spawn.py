"""Processes started with little effort: by posix_spawn, with a session of their own, and nothing of the daemon's."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.process import registerReapProcessHandler, unregisterReapProcessHandler

_SETTABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class Child:
    """A process of ours; `exited` fires with its exit status, or None when it was killed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exited: Deferred[int | None] = Deferred()
        # The reactor looks at what is registered there whenever a child has ended.
        registerReapProcessHandler(pid, self)

    def reapProcess(self) -> None:
        """Some child has ended; perhaps this one."""
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                unregisterReapProcessHandler(self.pid, self)
                self.processEnded(status)

    def processEnded(self, status: int) -> None:
        """It has ended."""
        self.exited.callback(os.WEXITSTATUS(status) if os.WIFEXITED(status) else None)


def spawn(command: list[str], environment: Mapping[str, str], descriptors: Mapping[int, int]) -> Child:
    """Start a program as the leader of a new session; raises OSError.

    `descriptors` are the child's and what each of them is of ours, in this order; it has no others.
    """
    program = _found(command[0], environment["PATH"])
    pid = os.posix_spawn(
        program,
        command,
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()],
        setsid=True,
        setsigmask=(),
        setsigdef=_SETTABLE,
    )
    return Child(pid)


@functools.lru_cache(maxsize=64)
def _found(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found
