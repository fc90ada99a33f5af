"""The run script: never twice at a time, outliving the daemon, found again by the next one.

Its process holds the lock on LGI_job.lock, and so does all that it starts: as long as one of them lives, the lock is
held, whoever is left to look. Before it runs anything it waits for a word from the daemon, who gives it once the
process number is on disk; when the daemon dies in between, the process ends without having run anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from lgi.daemon import quick
from lgi.daemon.flocks import flocked, is_flocked
from lgi.daemon.jobdir import EXIT_STATUS, RUN_LOCK, RUN_PID, JobDirectory, Tampered
from lgi.daemon.scripts import Scripts, StillRunning, environment, open_log
from lgi.daemon.spawn import spawn
from lgi.durable import PRIVATE

RUN_SCRIPT = "LGI_job_run_script"
FINISHED_SCRIPT = "LGI_job_check_finished_script"
_NEW_STATUS = f".{EXIT_STATUS}.new"
_ROOM = b"\n\n\n\n"  # that the longest status, with its line's end, is written over
_LOCK_IN_CHILD = 99  # out of the way of scripts that use a few descriptors themselves
_RUN = f"""
read -r go || exit 125
[ "$go" = go ] || exit 125
./{RUN_SCRIPT} </dev/null
"""
_WRAPPER = f"""{_RUN}status=$?
umask 077
echo "$status" 1<>{_NEW_STATUS} && mv -f {_NEW_STATUS} {EXIT_STATUS}
"""
# Where no script looks for the file, it may be there before there is a status in it.
_SHORT_WRAPPER = f"""{_RUN}status=$?
umask 077
echo "$status" 1<>{EXIT_STATUS}
"""


def start(scripts: Scripts, job: JobDirectory) -> tuple[int, Deferred[int | None]]:
    """Start the job's run script; returns the process number, and a Deferred that fires when that process ends.

    What it says goes to `job_run_script.log`. Raises StillRunning when it is running already, Tampered, and OSError.
    """
    room, wrapper = (_NEW_STATUS, _WRAPPER) if job.has_script(FINISHED_SCRIPT) else (EXIT_STATUS, _SHORT_WRAPPER)
    try:
        with flocked(job.at(RUN_LOCK)) as lock:
            job.check(RUN_SCRIPT)
            command = scripts.command(job, wrapper, session=False)
            _reserve_status(job, room)
            with open_log(job, RUN_SCRIPT) as said:
                word, gate = os.pipe()
                try:
                    streams = {0: word, 1: said.fileno(), 2: said.fileno(), _LOCK_IN_CHILD: lock}
                    child = spawn(command, environment(job, scripts.inherited), streams)
                except BaseException:
                    os.close(gate)
                    raise
                finally:
                    os.close(word)
    except BlockingIOError:
        raise StillRunning(f"the run script of {job.path} is running already") from None
    try:
        job.write(RUN_PID, str(child.pid).encode())
        with contextlib.suppress(BrokenPipeError):  # it may have been killed meanwhile
            os.write(gate, b"go\n")
    finally:
        os.close(gate)  # without the word it ends without having run anything
    return child.pid, child.exited


def _reserve_status(job: JobDirectory, name: str) -> None:
    """Forget the status of a former run, and take the room that the next one needs: the job may fill the disk."""
    path = job.at(name)
    if job.uid is None and name == EXIT_STATUS:
        quick.put(path, _ROOM, PRIVATE)
        return
    for former in (EXIT_STATUS, _NEW_STATUS):
        with contextlib.suppress(FileNotFoundError):
            (job.path / former).unlink()
    quick.make(path, _ROOM, PRIVATE, owner=-1 if job.uid is None else job.uid, group=job.uid)


def is_running(job: JobDirectory) -> bool:
    """Whether a process of the job's run script lives; raises Tampered where what says so has been removed."""
    if job.has(RUN_PID) and not job.has(RUN_LOCK):
        raise Tampered(f"{job.path / RUN_LOCK}: is gone, and with it what says whether the run script still runs")
    return is_flocked(job.at(RUN_LOCK))


@implementer(IReadDescriptor)
class EndOfStranger:
    """Calls once when a process that is not our child has ended; Linux tells by a readable descriptor."""

    def __init__(self, reactor: Any, pid: int, ended: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._descriptor = os.pidfd_open(pid)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """For the reactor's messages."""
        return "process"

    def doRead(self) -> None:
        """The process has ended."""
        self.stop()
        self._ended()

    def connectionLost(self, reason: object) -> None:
        """The reactor ends."""
        self.stop()

    def stop(self) -> None:
        """Look no longer."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1


def watch(reactor: Any, pid: int, ended: Callable[[], None]) -> EndOfStranger | None:
    """Have `ended` called when the process ends; None where the system cannot tell, or it has ended already.

    It is a hint only, to look at the lock again: the number may be somebody else's by now.
    """
    try:
        return EndOfStranger(reactor, pid, ended)
    except (OSError, AttributeError):
        return None
