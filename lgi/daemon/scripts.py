"""Running a job's scripts: each in its own session, with a time limit, what it says kept (LGI 1.41, Resource daemon).

Scripts are the contract of a resource: exit status 0 is yes or done, any other is no or not yet. They run in the job
directory with standard input from /dev/null, and under the uid of the job's sandbox where it has one. A daemon with a
sandbox runs no script of a job that has none.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from lgi.daemon.flocks import flocked, open_or_make
from lgi.daemon.jobdir import STEP_LOCK, JobDirectory, Tampered
from lgi.daemon.sandbox import confined

# Where batch systems are configured, on machines that do not have them in the usual places, and their answers shared.
BATCH_SYSTEMS = (
    *("SLURM_CONF", "SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT", "SGE_CLUSTER_NAME"),
    *("LSF_ENVDIR", "LSF_BINDIR", "LSF_LIBDIR", "LSF_SERVERDIR", "PBS_CONF_FILE", "PBS_DEFAULT", "LOADL_CONFIG"),
    "LGI_BATCH_CACHE",
)
# The Python of jobs that are Python functions, where it is not the one on the PATH.
PYTHON = "LGI_PYTHON"
_PROGRAMS = Path(sys.executable).parent
TIME_LIMIT = 300.0  # seconds
GRACE = 10.0  # seconds between TERM and KILL
# Scripts of one application; with hundreds of jobs, each is looked at in each cycle.
AT_ONCE = 32
NO_ANSWER = 126
TAIL = 4096  # bytes of what a script said that go into the log
_LOCK_IN_CHILD = 3
# The lock is this shell's alone, not that of something the script leaves in the background: it lasts as long as the
# script runs, also when the daemon is gone.
_STEP = '"$0" 3>&-; exit $?'


class StillRunning(Exception):
    """No script of the job can be started now: one left by a daemon before is running, or this one stops."""


@attrs.frozen(kw_only=True)
class Outcome:
    """How a script ended: `status` is None when it was killed; `said` is the end of what it printed."""

    status: int | None
    said: str = ""
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it said yes."""
        return self.status == 0

    @property
    def unknown(self) -> bool:
        """Whether it never came to an answer: by the shell's convention, 126 and above are not started or killed."""
        return self.status is None or self.status >= NO_ANSWER

    def __str__(self) -> str:
        if self.timed_out:
            reason = "was killed, it took too long"
        elif self.status is None:
            reason = "was killed"
        else:
            reason = f"exit status {self.status}"
        return f"{reason}: {self.said}" if self.said else reason


def environment(job: JobDirectory | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """What a script finds in its environment, and nothing else of the daemon's.

    PATH begins with the daemon's own programs, so that `lgi` is found; HOME and LANG are the daemon's, and so is what
    the commands of batch systems and Python functions need to find their own. In a sandbox HOME and TMPDIR are the
    job's directory: the daemon's home is root's, and what is left in /tmp stays there.
    """
    wanted = {
        "PATH": f"{_PROGRAMS}:{inherited.get('PATH', os.defpath)}",
        "HOME": inherited.get("HOME", "/"),
        "LANG": inherited.get("LANG", "C.UTF-8"),
        **{name: inherited[name] for name in (*BATCH_SYSTEMS, PYTHON) if name in inherited},
    }
    if job is None:
        return wanted
    own = str(job.path)
    homes = {} if job.uid is None else {"HOME": own, "TMPDIR": own}
    return {**wanted, **homes, "LGI_job_directory": own}


class End(ProcessProtocol):
    """Tells of a process's end: `exited` fires with its exit status, or None when it was killed."""

    def __init__(self) -> None:
        self.exited: Deferred[int | None] = Deferred()

    def processExited(self, reason: Failure) -> None:
        """The process is gone, whatever still holds its pipes."""
        ended = reason.value
        assert isinstance(ended, (ProcessDone, ProcessTerminated))
        self.exited.callback(ended.exitCode)


def kill_group(process: Any, number: signal.Signals) -> None:
    """Send a signal to the process group that `process` leads; no complaint when it is gone."""
    if process.pid is None:
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        # It has not got as far as having a group of its own.
        os.kill(process.pid, number)


class Scripts:
    """Starts scripts and sees to their end.

    `processes` is the reactor's process part, `clock` its time; the limit and the grace are in seconds. With
    `sandboxed`, only jobs that have a uid of their own are run.
    """

    def __init__(
        self,
        *,
        processes: Any,
        clock: Any,
        inherited: Mapping[str, str],
        limit: float = TIME_LIMIT,
        grace: float = GRACE,
        sandboxed: bool = False,
    ) -> None:
        self._sandboxed = sandboxed
        self.processes = processes
        self.inherited = inherited
        self._clock = clock
        self._limit = limit
        self._grace = grace
        self._running: dict[Any, _Running] = {}
        self._turns: dict[Path, DeferredSemaphore] = {}
        self._stopping = False

    async def check_system(self, script: Path, directory: Path) -> Outcome:
        """Run a script of the configuration that is no job's, in `directory`, with the rights of the daemon."""
        with tempfile.TemporaryFile() as said:
            environ = environment(None, self.inherited)
            started = self._spawn(["env", f"--chdir={directory}", "setsid", str(script)], environ, said, {})
            return await self._outcome(started, said, 0)

    def command(self, job: JobDirectory, text: str, *arguments: str, session: bool = True) -> list[str]:
        """The words that run a shell's text in a job's directory, with no more rights than the job has.

        It is in a session of its own, unless whoever starts it sees to that.

        The shell itself goes there: a process that is told a directory by Twisted is forked, and not made by
        posix_spawn in half the time. Raises Tampered.
        """
        text = f'cd -- "$LGI_job_directory" || exit {NO_ANSWER}\n{text}'
        first = ["setsid"] if session else []
        if job.uid is not None:
            if os.geteuid() != 0:
                raise Tampered(f"{job.path}: is of a daemon that ran as root; only root can run it as uid {job.uid}")
            return [*first, *confined(job.uid, ["sh", "-c", f"umask 077\n{text}", *arguments])]
        if self._sandboxed:
            raise Tampered(
                f"{job.path}: was made without a sandbox, and would run as root; a daemon with --no-sandbox, or the "
                "user's who made it, can see it to its end"
            )
        return [*first, "sh", "-c", text, *arguments]

    async def run(self, job: JobDirectory, name: str, *, keep: bool = False) -> Outcome:
        """Run the verified script `name` of a job; with `keep`, what it says is appended to a file of its name.

        Waits for its turn, where many scripts of the application are running. Raises Tampered, OSError, and
        StillRunning when a script of the job is running from before.
        """
        async with self._turns.setdefault(job.path.parent, DeferredSemaphore(AT_ONCE)):
            return await self._run(job, name, keep=keep)

    async def _run(self, job: JobDirectory, name: str, *, keep: bool) -> Outcome:
        job.read(name)
        command = self.command(job, _STEP, f"./{name}")
        with open_log(job, name) if keep else tempfile.TemporaryFile() as said:
            if job.uid is not None and not keep:
                os.fchown(said.fileno(), job.uid, job.uid)  # /dev/stderr is opened as a file
            start = os.fstat(said.fileno()).st_size
            try:
                # The daemon lets go of the lock before it forks anything else, which would hold it for a moment.
                with flocked(job.at(STEP_LOCK)) as lock:
                    environ = environment(job, self.inherited)
                    started = self._spawn(command, environ, said, {_LOCK_IN_CHILD: lock})
            except BlockingIOError:
                raise StillRunning(f"a script of {job.path} is still running from before") from None
            return await self._outcome(started, said, start)

    def _spawn(
        self, command: list[str], environ: dict[str, str], said: IO[bytes], descriptors: dict[int, int]
    ) -> tuple[Any, End]:
        if self._stopping:
            raise StillRunning("the daemon is being stopped")
        end = End()
        with Path(os.devnull).open("rb") as nothing:
            process = self.processes.spawnProcess(
                end,
                command[0],
                command,
                env=environ,
                childFDs={0: nothing.fileno(), 1: said.fileno(), 2: said.fileno(), **descriptors},
            )
        return process, end

    async def _outcome(self, started: tuple[Any, End], said: IO[bytes], start: int) -> Outcome:
        process, end = started
        running = self._running[process] = _Running()
        late = running.later(self._clock.callLater(self._limit, self._end, process))
        try:
            status = await end.exited
        finally:
            del self._running[process]
            timed_out = late.called
            running.over()
        size = os.fstat(said.fileno()).st_size
        tail = os.pread(said.fileno(), TAIL, max(start, size - TAIL)).decode("utf-8", "replace").strip()
        return Outcome(status=status, said=tail, timed_out=timed_out)

    def _end(self, process: Any) -> None:
        kill_group(process, signal.SIGTERM)
        self._running[process].later(self._clock.callLater(self._grace, kill_group, process, signal.SIGKILL))

    async def stop(self) -> None:
        """End all that are running, wait for it, and start none any more; run scripts are not among them."""
        self._stopping = True
        running = dict(self._running)
        for process in running:
            self._end(process)
        await DeferredList([one.gone for one in running.values()])


class _Running:
    """A process that is being waited for, and the calls that will end it."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self._calls: list[Any] = []

    def later(self, call: Any) -> Any:
        self._calls.append(call)
        return call

    def over(self) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()
        self.gone.callback(None)


def open_log(job: JobDirectory, name: str) -> IO[bytes]:
    """The file in a job's directory that takes what its script `name` says."""
    path = job.at(f"{name.removeprefix('LGI_')}.log")
    owner = None if job.uid is None else 0
    return os.fdopen(open_or_make(path, os.O_RDWR | os.O_APPEND, owner=owner), "rb+")
