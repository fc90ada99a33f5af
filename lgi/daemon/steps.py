"""The steps of one job's life, done: scripts run, results reported (LGI 1.41, Resource daemon).

Each step returns what to tell the life, or raises why it has to be tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from lgi.client.answers import ServerRefused
from lgi.daemon import quick, runscript
from lgi.daemon.ending import end_group
from lgi.daemon.jobdir import RUN_PID, JobDirectory, JobRecord, discard
from lgi.daemon.life import Step, Word, Words
from lgi.daemon.links import NOT_OURS, Link, Links, NoAnswer, OddAnswer
from lgi.daemon.sandbox import Sandbox, StillAlive, end_processes
from lgi.daemon.scripts import Scripts, StillRunning
from lgi.daemon.tasks import Tasks
from lgi.model import Job
from lgi.states import TERMINAL, JobState
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import DAEMON_REFERENCE, read_tag, with_tags

_log = Logger()
LARGEST_SPECIFICS = 65354  # bytes that a server takes in a long field
_RUNNING, _FINISHED = "LGI_job_check_running_script", "LGI_job_check_finished_script"
_PROLOGUE, _EPILOGUE, _ABORT = "LGI_job_prologue_script", "LGI_job_epilogue_script", "LGI_job_abort_script"
_SCRIPTS_OF = {Step.INSPECT: (_RUNNING, _FINISHED), Step.PROLOGUE: (_PROLOGUE,), Step.EPILOGUE: (_EPILOGUE,)}
PATIENT_STOPS = 3  # tries to stop a job by its scripts, before all that runs in its sandbox is killed


class NotYet(Exception):
    """The step has to be tried again later; one line why."""


@attrs.frozen(kw_only=True)
class Tools:
    """What all jobs' keepers share; `fast_cycle` is in seconds, `sandbox` gives new jobs their uids, if any."""

    links: Links
    scripts: Scripts
    reactor: Any
    clock: Any
    tasks: Tasks
    resource_name: str
    fast_cycle: float
    sandbox: Sandbox | None = None
    spare: Callable[[JobDirectory], bool] = lambda directory: False
    """Whether a directory that is needed no longer has been put aside for another job."""


def is_ours(job: Job, reference: str) -> bool:
    """Whether the server's copy of a job carries our reference; raises OddAnswer where that cannot be read."""
    try:
        return read_tag(job.job_specifics, DAEMON_REFERENCE).upper() == reference
    except MalformedXML as problem:
        raise OddAnswer(f"the server's job specifics cannot be read: {problem}") from None


def _with_status(before: str, status: int | None) -> str | None:
    """The job's specifics with its exit status; None where there is none, or no room for it."""
    if status is None:
        return None
    specifics = with_tags(before, exit_status=status)
    return specifics if len(specifics.encode()) <= LARGEST_SPECIFICS else None


def _removed(path: Path) -> bool:
    """Whether a directory could be removed at once, as it has nothing but files in it."""
    try:
        quick.remove(str(path))
    except OSError:
        return False
    return True


class Steps:
    """The steps for one job; `ended` is called when its run script's process ends, `silence` before a report."""

    def __init__(
        self,
        *,
        tools: Tools,
        directory: JobDirectory,
        record: JobRecord,
        link: Link,
        ended: Callable[[], None],
        silence: Callable[[], Awaitable[None]],
    ) -> None:
        self.confirmed = False  # whether the server has told this daemon that the job is ours
        self.starts = 0
        self._tools = tools
        self._scripts = tools.scripts
        self._directory = directory
        self._record = record
        self._link = link
        self._ended = ended
        self._silence = silence
        self._left_out = directory.left_out
        self._watched: object | None = None  # our child, or a stranger's end
        self._paused_after = 0
        self._stopped_once = False
        self._failed_stops = 0
        self.do: dict[Step, Callable[[], Awaitable[Word]]] = {
            Step.INSPECT: self._inspect,
            Step.PROLOGUE: self._prologue,
            Step.RUN: self._run,
            Step.EPILOGUE: self._epilogue,
            Step.REPORT_FINISHED: self._report_finished,
            Step.ABORT: self._stop,
            Step.REPORT_ABORTED: self._report_aborted,
            Step.STOP: self._stop,
            Step.REMOVE: self._remove,
        }

    def say(self, message: str) -> None:
        """A line in the log about the job."""
        _log.info(
            "job {job_id} of project {project} ({reference}): {message}",
            job_id=self._record.job_id,
            project=self._record.project,
            reference=self._record.reference,
            message=message,
        )

    def forget(self) -> None:
        """Look no longer for the end of a process that is not our child."""
        if isinstance(self._watched, runscript.EndOfStranger):
            self._watched.stop()
        self._watched = None

    def looks_at_scripts(self, step: Step) -> bool:
        """Whether a step looks at the job's files: one whose scripts are left out asks the system alone."""
        return not self._left_out.issuperset(_SCRIPTS_OF.get(step, ("",)))

    async def _inspect(self) -> Word:
        if await self._runs():
            return Words.found_running
        scripted = _FINISHED not in self._left_out
        finished = not scripted or await self._says(_FINISHED)
        status = self._directory.exit_status() if finished else None
        if finished and (scripted or status is not None):
            self.say("finished" if status is None else f"finished (exit status {status})")
            return Words.found_finished
        if self.starts > self._paused_after:
            # Not at once again, and not without another look.
            self._paused_after = self.starts
            raise NotYet("its run script has ended, but job_check_finished_script does not call it finished")
        return Words.found_idle

    async def _runs(self) -> bool:
        if runscript.is_running(self._directory):
            if self._watched is None and self._directory.has(RUN_PID):
                pid = int(self._directory.text(RUN_PID))
                self._watched = runscript.watch(self._tools.reactor, pid, self._stranger_ended)
                if self._watched is not None:
                    self.say(f"its run script (process {pid}) is still running")
            return True
        return _RUNNING not in self._left_out and await self._says(_RUNNING)

    async def _says(self, name: str) -> bool:
        outcome = await self._scripts.run(self._directory, name)
        if outcome.unknown:
            # Neither yes nor no: to take it for a no could start a job a second time that runs in a batch system.
            raise NotYet(f"{name}: {outcome}")
        return outcome.ok

    async def _prologue(self) -> Word:
        if not self.confirmed:
            # It may have been given to another while no daemon was here.
            raise NoAnswer("the server has not yet said that the job is still ours")
        await self._succeed(_PROLOGUE)
        return Words.prepared

    async def _run(self) -> Word:
        try:
            pid, exited = runscript.start(self._scripts, self._directory)
        except StillRunning:
            return Words.found_running
        self.starts += 1
        self._watched = exited
        exited.addCallback(self._child_ended)
        self.say(f"started (process {pid})")
        return Words.started

    def _child_ended(self, status: int | None) -> None:
        self._watched = None
        self._ended()

    def _stranger_ended(self) -> None:
        self._watched = None
        self._ended()

    async def _epilogue(self) -> Word:
        await self._succeed(_EPILOGUE)
        return Words.wrapped

    async def _succeed(self, name: str) -> None:
        if name in self._left_out:
            return
        outcome = await self._scripts.run(self._directory, name, keep=True)
        if not outcome.ok:
            raise NotYet(f"{name}: {outcome}")

    async def _stop(self) -> Word:
        try:
            return await self._stopped()
        except (NotYet, StillRunning) as problem:
            # The job has the uid of its scripts, and can keep them from running or kill them.
            self._failed_stops += 1
            if self._directory.uid is not None and self._failed_stops % PATIENT_STOPS == 0:
                await self._end_processes()
                raise NotYet(f"{problem}; all processes of the job on this machine were killed") from None
            raise

    async def _stopped(self) -> Word:
        started = self._directory.has(RUN_PID) or runscript.is_running(self._directory)
        if started and await self._runs():
            if _ABORT not in self._left_out:
                await self._succeed(_ABORT)
            elif not await end_group(self._tools.clock, self._directory) and self._directory.uid is None:
                raise NotYet("it was killed, but a process of it still lives")
            await self._end_processes()
            if runscript.is_running(self._directory) and not self._stopped_once:
                self._stopped_once = True
                raise NotYet("job_abort_script says that the job has ended, but a process of it still lives")
            self.say("stopped" if _ABORT in self._left_out else "stopped by its abort script")
        return Words.stopped

    async def _end_processes(self) -> None:
        if self._directory.uid is not None:
            try:
                await self._in_thread(end_processes, self._directory.uid)
            except StillAlive as problem:
                raise NotYet(str(problem)) from None

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        reactor = self._tools.reactor
        return await deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    async def _report_finished(self) -> Word:
        return await self._report(JobState.FINISHED)

    async def _report_aborted(self) -> Word:
        return await self._report(JobState.ABORTED)

    async def _report(self, state: JobState) -> Word:
        job_id, reference = self._record.job_id, self._record.reference
        await self._silence()
        if await self._reported_at_once(state):
            return Words.reported
        try:
            async with self._link.locked(job_id) as session_id:
                # Under the lock nobody else can take it any more; before, somebody may have.
                job = await self._link.state(job_id)
                if not is_ours(job, reference):
                    return Words.lost
                if job.state in TERMINAL:
                    return Words.closed
                await self._post(session_id, state, job.job_specifics)
        except ServerRefused as refusal:
            if refusal.number in NOT_OURS:
                return Words.lost
            raise
        self.say(f"reported {state.value}")
        return Words.reported

    async def _reported_at_once(self, state: JobState) -> bool:
        """Whether the lock under which the job was claimed is still there, so that nobody has changed it since."""
        async with self._link.kept.using(self._record.job_id) as session_id:
            if session_id is None:
                return False
            try:
                await self._post(session_id, state, self._directory.text("LGI_job_specifics"))
            except ServerRefused:
                return False  # the lock is lost; what that means is found out with a new one
        self.say(f"reported {state.value}")
        return True

    async def _post(self, session_id: int, state: JobState, specifics: str) -> None:
        status = self._directory.exit_status()
        await self._link.update(
            session_id,
            self._record.job_id,
            state=state,
            job_specifics=_with_status(specifics, status) if state is JobState.FINISHED else None,
            output=self._directory.report(min(self._record.max_output_size, self._link.largest_output), status),
        )

    async def _remove(self) -> Word:
        self.forget()
        await self._end_processes()
        if not self._tools.spare(self._directory):
            hidden = self._directory.retire()
            at_once = not self._directory.synced and self._directory.uid is None and _removed(hidden)
            gone = at_once or await self._in_thread(discard, hidden)
            if gone and self._tools.sandbox is not None and self._directory.uid is not None:
                self._tools.sandbox.release(self._directory.uid)
        return Words.removed
