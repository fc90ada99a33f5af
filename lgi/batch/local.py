"""Local processes: each job a process in a session of its own, which outlives whoever started it.

A job's number is that of its process and the moment it was started in ticks since the machine was: together they
belong to no other process, at least until the machine is started again.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater

from lgi.batch.system import System
from lgi.batch.values import BatchError, Entry, NotSupported, Request, State, Status

KEY_VARIABLE = "LGI_BATCH_KEY"
GRACE = 10.0  # seconds between TERM and KILL
_LOOK = 0.05  # seconds
START_SECONDS = 5.0
_PROC = Path("/proc")


@attrs.frozen(kw_only=True)
class Process:
    """What the system says of a process; `start` is in ticks since the machine was started."""

    pid: int
    letter: str
    session: int
    start: int

    @property
    def lives(self) -> bool:
        """Whether it is more than an entry that nobody has collected."""
        return self.letter not in "ZXx"


def parse_stat(text: str) -> Process:
    """Read /proc/PID/stat, in which the program's name may hold anything."""
    number, _, rest = text.partition(" (")
    parts = rest.rpartition(") ")[2].split()
    return Process(pid=int(number), letter=parts[0], session=int(parts[3]), start=int(parts[19]))


def process(pid: int) -> Process | None:
    """The process with that number, if there is one."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text("utf-8", "replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes() -> Iterator[Process]:
    """All processes."""
    for entry in os.scandir(_PROC):
        if entry.name.isdigit() and (found := process(int(entry.name))) is not None:
            yield found


def members(job: str) -> list[Process]:
    """The living processes of a job's session; its number is given to no other process while one of them lives."""
    pid, start = map(int, job.split("-"))
    leader = process(pid)
    if leader is not None and leader.start != start:
        return []
    # It leads a session from a moment after its start on.
    return [one for one in processes() if one.lives and (one.session == pid or (one.pid, one.start) == (pid, start))]


def _key(pid: int) -> str:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return ""
    mark = f"{KEY_VARIABLE}=".encode()
    marked = (item for item in environment.split(b"\0") if item.startswith(mark))
    return next(marked, mark).removeprefix(mark).decode("ascii", "replace")


def _state(found: list[Process]) -> State:
    return State.SUSPENDED if found and all(one.letter in "Tt" for one in found) else State.RUNNING


class _Started(ProcessProtocol):
    """A process that is let go."""

    def __init__(self) -> None:
        self.exited: Deferred[None] = Deferred()

    def processExited(self, reason: object) -> None:
        """It is over, and collected; its exit file says how."""


class Local(System):
    """Processes of this machine, started at once: no queue, no arrays, no limits on time and memory."""

    name = "local"
    job_pattern = re.compile(r"[1-9]\d{0,9}-\d{1,20}")
    # The words of /proc/PID/stat behind the program's name; the twentieth is the start.
    shell_job = '$$-$(s=$(cat /proc/$$/stat) && set -- ${s##*) } && printf %s "${20}")'

    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        """See `System`."""
        refused = {
            "arrays": request.array,
            "holding before the start": request.hold,
            "reservations": request.reservation,
            "options of its own": request.extra,
        }
        for what, wanted in refused.items():
            if wanted:
                raise NotSupported(f"local processes know no {what}")
        files: dict[int, Any] = {}
        opened: list[int] = []
        try:
            for number, path, flags in (
                (0, Path(os.devnull), os.O_RDONLY),
                (1, request.output or Path(os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND),
                (2, request.error or request.output or Path(os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            ):
                opened.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
                files[number] = opened[-1]
            started = self.commands.reactor.spawnProcess(
                _Started(),
                "setsid",
                ["setsid", "sh", str(wrapper)],
                env={**self.commands.environment, KEY_VARIABLE: key},
                path=str(request.directory),
                childFDs=files,
            )
        except OSError as problem:
            raise BatchError(f"the job could not be started: {problem.strerror}: {problem.filename}") from None
        finally:
            for descriptor in opened:
                os.close(descriptor)
        found = process(started.pid)  # nobody has collected it yet, even if it is over
        if found is None:
            raise BatchError("the job could not be started: its process is not to be seen in /proc")
        await self._marked(found)
        return f"{found.pid}-{found.start}"

    async def _marked(self, job: Process) -> None:
        """Wait until a job that was just started can be found by its key, or is over; for START_SECONDS at most."""
        end = self.commands.reactor.seconds() + START_SECONDS
        while self.commands.reactor.seconds() < end:
            now = process(job.pid)
            if now is None or not now.lives or (now.session == now.pid and _key(now.pid)):
                return
            await deferLater(self.commands.reactor, 0.005)

    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`."""
        mine = os.geteuid()
        sessions: dict[int, list[Process]] = {}
        for one in processes():
            if one.lives:
                sessions.setdefault(one.session, []).append(one)
        entries = {}
        for session, found in sessions.items():
            leader = next((one for one in found if one.pid == session), None)
            try:
                if leader is not None and (_PROC / str(session)).stat().st_uid == mine and (key := _key(session)):
                    job = f"{session}-{leader.start}"
                    entries[job] = Entry(job=job, key=key, status=Status(state=_state(found)))
            except FileNotFoundError:
                continue
        for job in jobs:
            if job not in entries and (found := members(job)):
                entries[job] = Entry(job=job, status=Status(state=_state(found), reason="its first process is gone"))
        return list(entries.values())

    async def details(self, job: str) -> str:
        """See `System`: its processes, one in each line."""
        found = members(self.split(job)[0])
        if not found:
            raise BatchError(f"no process of job {job} is left")
        lines = []
        for one in found:
            try:
                words = (
                    (_PROC / str(one.pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
            except OSError:
                continue
            lines.append(f"{one.pid} {one.letter} {words.strip()}\n")
        return "".join(lines)

    async def cancel(self, jobs: Collection[str]) -> None:
        """See `System`: TERM to all its processes, KILL to what is left after the grace."""
        for job in jobs:
            for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
                if not self._signal(job, number):
                    break
                self._signal(job, signal.SIGCONT)
                if await self._gone(job, patience):
                    break
            else:
                raise BatchError(f"processes of job {job} survive KILL")

    async def hold(self, job: str, *, running: bool) -> None:
        """See `System`."""
        if not self._signal(job, signal.SIGSTOP):
            raise BatchError(f"no process of job {job} is left")

    async def resume(self, job: str, *, suspended: bool) -> None:
        """See `System`."""
        if not self._signal(job, signal.SIGCONT):
            raise BatchError(f"no process of job {job} is left")

    @staticmethod
    def _signal(job: str, number: signal.Signals) -> bool:
        found = members(job)
        for one in found:
            try:
                os.kill(one.pid, number)
            except ProcessLookupError:
                continue
        return bool(found)

    async def _gone(self, job: str, seconds: float) -> bool:
        # Nothing tells of the end of processes that are not our children: look again.
        until = self.commands.reactor.seconds() + seconds
        while members(job):
            if self.commands.reactor.seconds() > until:
                return False
            await deferLater(self.commands.reactor, _LOOK, lambda: None)
        return True
