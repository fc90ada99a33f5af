"""One job in the daemon's keeping: the server is asked about it, and its steps are done one after another.

The two go on side by side, since the server counts its questions as the job's pulse also while a step takes long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from twisted.logger import Logger

from lgi.client.answers import ServerRefused
from lgi.daemon.jobdir import INPUT, JobDirectory, JobRecord, Tampered
from lgi.daemon.jobfiles import described
from lgi.daemon.life import Step, Words, new_life, resumed_life
from lgi.daemon.limits import Taken
from lgi.daemon.links import NOT_OURS, NoAnswer, OddAnswer
from lgi.daemon.liveoutput import LiveOutput
from lgi.daemon.scripts import StillRunning
from lgi.daemon.steps import NotYet, Steps, Tools, is_ours
from lgi.errors import ErrorNumber
from lgi.model import Job
from lgi.states import TERMINAL, JobState
from lgi.wire.specifics import DAEMON_REFERENCE, with_tags

_log = Logger()
LONGEST_PAUSE = 600.0  # seconds between two tries of a step that keeps failing
SAID_EVERY = 5  # tries of it, after which the log says so again


class Keeper:
    """Keeps one job; `gone` is called when its directory has been removed.

    Raises Tampered when the directory does not verify, unless it has just been `made`.
    """

    def __init__(
        self, *, tools: Tools, directory: JobDirectory, gone: Callable[[Keeper], None], made: bool = False
    ) -> None:
        self.record: JobRecord = directory.load(made=made)
        self.taken = Taken(
            project=self.record.project, application=self.record.application, owners=self.record.owners
        )
        """The job as the limits see it."""
        tools.scripts.command(directory, "")  # whether it may run here at all
        self._tools = tools
        self._directory = directory
        self._gone = gone
        self._life = new_life() if directory.state is JobState.QUEUED else resumed_life()
        self._link = tools.links.to(self.record.project, self.record.server)
        self._live = LiveOutput(clock=tools.clock, directory=directory, record=self.record, link=self._link)
        self._steps = Steps(
            tools=tools,
            directory=directory,
            record=self.record,
            link=self._link,
            ended=self._run_ended,
            silence=self._live.end,
        )
        self._heard = -inf  # when the server has last spoken of the job, if that was not in answer to a question
        self._asking = False
        self._working = self._verified_now = False
        self._stopping = False
        self._look = False
        self._left = False
        self._failures = 0
        self._not_before = 0.0
        self._trouble = ""

    @property
    def can_take(self) -> bool:
        """Whether the job, offered again by the server, may be claimed: it is not being given up, nor asked about."""
        return not (self._asking or self._life.ended() or self._life.step() in (Step.STOP, Step.REMOVE))

    @property
    def _over(self) -> bool:
        return self._life.ended() or self._life.step() is Step.REMOVE

    def stop(self) -> None:
        """Begin nothing any more; what the job runs goes on."""
        self._stopping = True
        self._steps.forget()

    async def take(self, session_id: int, offered: Job) -> None:
        """Make a queued job that the session holds locked ours and running.

        `work` is for the caller to begin. Raises NoAnswer, ServerRefused, OSError or Tampered; the next pulse finds
        out then whose the job is.
        """
        self._asking = True
        try:
            self._admit(await self._claim(session_id, offered))
        finally:
            self._asking = False

    def admit(self, job: Job) -> None:
        """The server has said that the job is ours and running; raises OddAnswer, OSError or Tampered."""
        self._admit(job)
        self._heard = self._tools.clock.seconds()

    async def pulse(self) -> None:
        """Ask the server about the job and heed what it says; then go on with the job's steps."""
        recent = self._tools.clock.seconds() - self._heard < self._tools.fast_cycle / 2
        if self._asking or self._stopping or self._over or recent:
            return
        self._asking = True
        before = self._life.step()
        try:
            if self._verified():
                await self._ask()
                if self._steps.confirmed and not self._life.ended():
                    if self._life.step() is Step.NOTHING:
                        await self._live.post()
                    elif self._life.step() is Step.PROLOGUE and self._failures > 1:
                        await self._live.post(self._trouble)
        except (OddAnswer, ServerRefused, OSError) as problem:
            self._complain(f"asking the server: {problem}")
        except NoAnswer as problem:
            _log.debug("job {job_id}: {problem}", job_id=self.record.job_id, problem=problem)
        except Tampered as problem:
            self._refuse(problem)
        finally:
            self._asking = False
        if self._life.step() is not before:
            self._news()
        self._life.tell(Words.look)
        self.work()

    def work(self, *, made: bool = False) -> None:
        """Do the steps that can be done now, unless that is under way.

        A directory that has been `made` in this turn of the reactor is not verified before the first of them.
        """
        if self._working or self._stopping or self._tools.clock.seconds() < self._not_before:
            return
        self._working, self._verified_now = True, made
        self._tools.tasks.start(f"job {self.record.job_id} of project {self.record.project}", self._work())

    def renew(self, files: Mapping[str, bytes]) -> None:
        """Replace sealed files of the directory that are the resource's own: what it shows to servers."""
        if self._over:
            return
        try:
            for name, content in files.items():
                self._directory.write(name, content)
        except Tampered as problem:
            self._refuse(problem)
        except OSError as problem:
            self._complain(f"its copy of the resource's certificate cannot be renewed: {problem}")

    # What the server says.

    async def _ask(self) -> None:
        job_id = self.record.job_id
        try:
            job = await self._link.state(job_id)
            if self._over:
                return  # the answer is older than the end of the job
            if self._needs_claim(job):
                async with self._link.locked(job_id) as session_id:
                    job = await self._link.details(session_id, job_id)
                    if is_ours(job, self.record.reference) and job.state is JobState.QUEUED:
                        self._steps.say("the server had put it back into the queue, claimed again")
                        job = await self._claim(session_id, job)
                    self._heed(job)
            else:
                self._heed(job)
        except ServerRefused as refusal:
            if refusal.number not in NOT_OURS:
                raise
            self._lose(str(refusal))

    def _needs_claim(self, job: Job) -> bool:
        # Either it was put back into the queue, or we do not know yet that we got it and have no input for it.
        return is_ours(job, self.record.reference) and (
            job.state is JobState.QUEUED or (job.state is JobState.RUNNING and not self._has_input())
        )

    def _has_input(self) -> bool:
        return self._directory.has(INPUT) and self._directory.state is not JobState.QUEUED

    async def _claim(self, session_id: int, job: Job) -> Job:
        return await self._link.update(
            session_id,
            self.record.job_id,
            state=JobState.RUNNING,
            target_resources=(self._tools.resource_name,),
            job_specifics=with_tags(job.job_specifics, **{DAEMON_REFERENCE: self.record.reference}),
        )

    def _heed(self, job: Job) -> None:
        if self._over:
            return
        if not is_ours(job, self.record.reference):
            self._lose("the server says that it is another daemon's, or nobody's")
        elif job.state in TERMINAL:
            self._life.tell(Words.closed)
        elif job.state is JobState.RUNNING:
            self._admit(job)
        elif job.state is JobState.ABORTING:
            if self._has_input():
                self._synchronise(job)
            before = self._life.step()
            self._life.tell(Words.abort)
            if self._life.step() is not before:
                self._steps.say("to be aborted")

    def _lose(self, reason: str) -> None:
        if self._life.step() not in (Step.STOP, Step.REMOVE):
            self._steps.say(f"no longer ours, given up: {reason}")
        self._life.tell(Words.lost)

    def _admit(self, job: Job) -> None:
        if not is_ours(job, self.record.reference) or job.state is not JobState.RUNNING:
            raise OddAnswer(
                f"the server says that job {job.job_id} is {job.state.value}, which is not what it was told"
            )
        if not self._has_input():
            if job.input is None:
                raise OddAnswer(f"the server's answer has no input of job {job.job_id}")
            self._directory.write(INPUT, job.input)
        self._synchronise(job)
        self._steps.confirmed = True
        self._life.tell(Words.accepted)

    def _synchronise(self, job: Job) -> None:
        """Bring the directory to what the server says; the state last, since it says that the rest is there."""
        for name, text in described(job).items():
            self._directory.write(name, text.encode())
        self._directory.write("LGI_state", job.state.value.encode())

    # What is done about it.

    def _run_ended(self) -> None:
        self._look = True
        self.work()

    def _verified(self) -> bool:
        try:
            self._directory.verify()
        except Tampered as problem:
            self._refuse(problem)
        return not self._life.ended()

    def _refuse(self, problem: Tampered) -> None:
        if not self._life.ended():
            _log.critical(
                "job {job_id} of project {project} is refused, nothing of it is run or reported: {problem}",
                job_id=self.record.job_id,
                project=self.record.project,
                problem=problem,
            )
        self._life.tell(Words.tampered)

    async def _work(self) -> None:
        try:
            while not self._stopping and await self._do_next():
                pass
        finally:
            self._working = self._verified_now = False
        if self._life.ended():
            self._steps.forget()
            if not self._left and not self._directory.path.exists():
                self._left = True
                self._gone(self)

    async def _do_next(self) -> bool:
        """Do the next step; False when there is none, or it has to be tried again later."""
        if self._look:
            self._look = False
            self._life.tell(Words.look)
        step = self._life.step()
        if step is Step.NOTHING:
            return False
        if step is not Step.REMOVE and self._steps.looks_at_scripts(step):
            # What comes before the first such step takes no time.
            if not self._verified_now and not self._verified():
                return False
            self._verified_now = False
        try:
            word = await self._steps.do[step]()
        except Tampered as problem:
            self._refuse(problem)
            return False
        except (NoAnswer, ServerRefused, NotYet, StillRunning, OSError) as problem:
            if self._life.step() is step:
                self._try_later(problem)
                return False
        else:
            if self._life.step() is step:
                self._news()
                self._life.tell(word)
        # Where the server's word has overtaken the step, its outcome is no news.
        return True

    def _news(self) -> None:
        self._failures = 0
        self._not_before = 0.0
        self._trouble = ""

    def _try_later(self, problem: Exception) -> None:
        if self._stopping:
            return
        if isinstance(problem, NoAnswer) and not isinstance(problem, OddAnswer):
            # The link has logged it; the next pulse tries again.
            _log.debug("job {job_id}: {problem}", job_id=self.record.job_id, problem=problem)
            return
        self._complain(f"reporting: {problem}" if isinstance(problem, ServerRefused) else str(problem))
        if isinstance(problem, ServerRefused) and problem.number == ErrorNumber.LOCK_REFUSED:
            return
        doublings = min(16, max(self._failures, self._steps.starts - 1))
        pause = min(LONGEST_PAUSE, self._tools.fast_cycle * 2**doublings)
        self._not_before = self._tools.clock.seconds() + pause
        self._failures += 1
        if self._failures % SAID_EVERY == 0:
            _log.warn(
                "job {job_id} of project {project} ({reference}), failed {times} times, again in {pause} s: {reason}",
                job_id=self.record.job_id,
                project=self.record.project,
                reference=self.record.reference,
                times=self._failures,
                pause=int(pause),
                reason=self._trouble,
            )

    def _complain(self, reason: str) -> None:
        if reason != self._trouble:
            self._trouble = reason
            _log.warn(
                "job {job_id} of project {project} ({reference}), tried again later: {reason}",
                job_id=self.record.job_id,
                project=self.record.project,
                reference=self.record.reference,
                reason=reason,
            )
