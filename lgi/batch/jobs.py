"""Jobs on a batch system: submitted once, asked for together, and believed to be over only when something says so."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs

from lgi.batch.command import CommandFailed
from lgi.batch.record import Record, locked, read_record
from lgi.batch.shared import MAX_AGE, Shared, Snapshot
from lgi.batch.system import System
from lgi.batch.values import BatchError, Entry, NotSupported, Request, State, Status, unit_name
from lgi.batch.verdict import GRACE, combined, left_behind, verdict
from lgi.batch.wrapper import Exit, beside, read_exit, read_started, wrapper_text
from lgi.durable import EXECUTABLE, write_atomically

Unit = tuple[str, int | None]  # a job, or a task of an array


@attrs.frozen(kw_only=True)
class _Case:
    """One job or task to be judged."""

    label: str
    unit: Unit
    exit_file: Exit | None = None
    cancelled: bool = False


class Batch:
    """The jobs of this user on one batch system.

    `max_age` and `grace` are in seconds: how old an answer of the queue may be, and for how long a job may be missing
    before it is lost. All methods raise BatchError; one about a command is a CommandFailed.
    """

    def __init__(self, *, system: System, shared: Shared, max_age: float = MAX_AGE, grace: float = GRACE) -> None:
        self.system = system
        self._shared = shared
        self._max_age = max_age
        self._grace = grace

    async def submit(self, request: Request, record: Path) -> Record:
        """Submit a request once for this record: if it was submitted already, by whom ever, the record is returned.

        Leaves beside the record its wrapper and, once the job runs, what says that it was started and how it ended.
        """
        if not os.access(request.script, os.X_OK) or not request.script.is_file():
            raise BatchError(f"the script {request.script} is not an executable file")
        record = record.absolute()
        with locked(record) as lock:
            found = read_record(record)
            if found is None:
                made = Record(
                    path=record,
                    system=self.system.name,
                    key=f"lgi{secrets.token_hex(6)}",
                    script=request.script,
                    array=request.array,
                )
            else:
                made = attrs.evolve(self._same(found, request), refused="")
                if made.job:
                    return made
                adopted = await self._find(made)
                if adopted is not None:
                    return adopted
            wrapper = beside(record, "wrapper")
            try:
                write_atomically(wrapper, wrapper_text(self.system, request, record).encode(), EXECUTABLE)
            except OSError as problem:
                raise BatchError(f"{wrapper} cannot be written: {problem.strerror}") from None
            made.write()
            return await self._submitted(made, request, wrapper, lock)

    def _same(self, found: Record, request: Request) -> Record:
        wanted = (self.system.name, request.script, request.array)
        if (found.system, found.script, found.array) != wanted:
            raise BatchError(f"the record {found.path} is of another submission: of {found.script} to {found.system}")
        return found

    async def _submitted(self, record: Record, request: Request, wrapper: Path, lock: int) -> Record:
        try:
            job = await self.system.submit(request, wrapper, record.key, lock)
        except BatchError as problem:
            # Some say no and take the job all the same, and one that did not answer in time may have, too.
            if isinstance(problem, CommandFailed) and problem.done is not None:
                try:
                    adopted = await self._find(record)
                except BatchError:
                    raise problem from None
                if adopted is not None:
                    return adopted
                if not self.system.temporary.search(str(problem)):
                    attrs.evolve(record, refused=str(problem)).write()
            if isinstance(problem, NotSupported):
                attrs.evolve(record, refused=str(problem)).write()
            raise
        self.system.split(job)
        made = attrs.evolve(record, job=job)
        made.write()
        await self._shared.forget()
        return made

    async def _find(self, record: Record) -> Record | None:
        """The job of a record that does not know it: by what it left behind, or by its key in the queue."""
        job = read_started(record.path, self.system)
        if job is None:
            snapshot = await self._shared.look(self._shared.now())
            job = next((entry.job for entry in snapshot.entries if entry.key == record.key), None)
        if job is None:
            return None
        made = attrs.evolve(record, job=job)
        made.write()
        return made

    async def known(self, path: Path) -> Record | None:
        """The record in a file, with its job's number or why it was refused; None when nothing was submitted."""
        record = read_record(path.absolute())
        if record is None or record.job or record.refused:
            return self._ours(record)
        with locked(record.path):
            record = read_record(record.path)
            return self._ours(record if record is None or record.job else await self._find(record))

    def _ours(self, record: Record | None) -> Record | None:
        if record is None:
            return None
        if record.system != self.system.name:
            raise BatchError(f"the record {record.path} is of a job on {record.system}, not {self.system.name}")
        if record.job:
            self.system.split(record.job)
        return record

    async def status(self, jobs: Sequence[str | Record]) -> dict[str, Status]:
        """The status of each job, by its number, of a refused one by its record; of an array, of all tasks together.

        Jobs that are given by number alone have no exit file to speak for them.
        """
        each = await self.tasks(jobs)
        return {job: combined(list(tasks.values())) for job, tasks in each.items()}

    async def tasks(self, jobs: Sequence[str | Record]) -> dict[str, dict[int | None, Status]]:
        """The status of each task of each job, by the numbers of both; a job that is no array is its task None."""
        wanted = [job for job in jobs if isinstance(job, str) or job.job]
        result: dict[str, dict[int | None, Status]] = {
            str(job.path): {None: Status(state=State.FAILED, reason=f"refused: {job.refused}")}
            for job in jobs
            if isinstance(job, Record) and not job.job
        }
        if not wanted:
            return result
        began = self._shared.now()
        snapshot, cases = await self._looked(wanted, began)
        queue = _Queue(snapshot)
        # An exit file says all there is to know, but why a script was ended by a signal.
        away = [
            case for case in cases if queue.of(case.unit) is None and (not case.exit_file or case.exit_file.signal)
        ]
        accounted = await self._accounted([case.unit for case in away], began)
        gone = [case for case in away if not case.exit_file and accounted.of(case.unit) is None]
        names = {unit_name(*case.unit) for case in gone}
        seen = {unit_name(*case.unit) for case in cases} - names
        missing = await self._shared.missing(names, seen, snapshot.taken)
        for case in cases:
            result.setdefault(case.label, {})[case.unit[1]] = verdict(
                exit_file=case.exit_file,
                queued=queue.of(case.unit),
                accounted=accounted.of(case.unit),
                cancelled=case.cancelled,
                missing=missing.get(unit_name(*case.unit), 0.0),
                grace=self._grace,
            )
        return result

    async def _looked(self, jobs: Sequence[str | Record], began: float) -> tuple[Snapshot, list[_Case]]:
        """A look at the queue that is young enough, and the exit files as they were after it.

        A job that the queue shows as over has left its last exit file by then. Where the queue contradicts an exit
        file, it may be that the look is older: then there is another.
        """
        numbers = sorted({self.system.split(label(job))[0] for job in jobs})
        snapshot = await self._shared.look(began - self._max_age, numbers)
        while True:
            queue = _Queue(snapshot)
            cases = [spread for job in jobs for case in self._cases(job) for spread in _spread(case, queue)]
            doubtful = any(left_behind(case.exit_file, queue.of(case.unit)) for case in cases)
            if snapshot.taken >= began or not doubtful:
                return snapshot, cases
            snapshot = await self._shared.look(began, numbers)

    async def _accounted(self, units: Sequence[Unit], began: float) -> _Queue:
        """What was seen before of jobs that the queue no longer shows, or else what the accounting says: ends."""
        entries = self._shared.ends() if units else []
        known = {(entry.job, entry.task) for entry in entries}
        ask = sorted({unit[0] for unit in units if unit not in known})
        entries += await self._shared.accounting(ask, began - self._max_age)
        return _Queue(Snapshot(taken=0.0, entries=tuple(entry for entry in entries if entry.status.state.over)))

    def _cases(self, job: str | Record) -> list[_Case]:
        if isinstance(job, str):
            return [_Case(label=job, unit=self.system.split(job))]
        return [
            _Case(
                label=job.job,
                unit=(self.system.split(job.job)[0], task),
                exit_file=read_exit(job.path, task),
                cancelled=job.cancelled,
            )
            for task in job.tasks
        ]

    async def details(self, job: str) -> str:
        """All about a job in the words of the batch system."""
        self.system.split(job)
        return await self.system.details(job)

    async def cancel(self, jobs: Sequence[str | Record]) -> None:
        """End jobs that are not over; no complaint about those that are."""
        status = await self.status(jobs)
        going = [job for job in jobs if not status[label(job)].state.over]
        if not going:
            return
        await self.system.cancel([label(job) for job in going])
        for job in going:
            if isinstance(job, Record):
                with locked(job.path):
                    attrs.evolve(job, cancelled=True).write()
        await self._shared.forget()

    async def hold(self, job: str) -> None:
        """Keep a waiting job from starting, or suspend a running one."""
        await self._steer(job, (State.PENDING, State.RUNNING), State.RUNNING, self._hold)

    async def resume(self, job: str) -> None:
        """Let a held job start, or a suspended one go on."""
        await self._steer(job, (State.HELD, State.SUSPENDED), State.SUSPENDED, self._resume)

    async def _hold(self, job: str, running: bool) -> None:
        await self.system.hold(job, running=running)

    async def _resume(self, job: str, suspended: bool) -> None:
        await self.system.resume(job, suspended=suspended)

    async def _steer(
        self, job: str, right: tuple[State, ...], begun: State, do: Callable[[str, bool], Awaitable[None]]
    ) -> None:
        snapshot = await self._shared.look(self._shared.now(), [job])
        unit = self.system.split(job)
        found = [entry.status for entry in snapshot.entries if entry.job == unit[0] and unit[1] in (None, entry.task)]
        state = combined(found).state if found else None
        if state not in right:
            raise BatchError(f"job {job} is {state or 'not in the queue'}, neither {' nor '.join(right)}")
        await do(job, state is begun)
        await self._shared.forget()


class _Queue:
    """Entries, found by job and task."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._units = {(entry.job, entry.task): entry.status for entry in snapshot.entries}
        self._tasks: dict[str, list[Entry]] = {}
        for entry in snapshot.entries:
            if entry.task is not None:
                self._tasks.setdefault(entry.job, []).append(entry)

    def of(self, unit: Unit) -> Status | None:
        """The status of a task, or of its array where the tasks are not listed apart yet."""
        found = self._units.get(unit)
        if found is None and unit[1] is not None:
            found = self._units.get((unit[0], None))
            return found if found is not None and found.state.active else None
        return found

    def tasks(self, job: str) -> list[int | None]:
        """The tasks of an array that are listed."""
        return [entry.task for entry in self._tasks.get(job, ())]


def _spread(case: _Case, queue: _Queue) -> list[_Case]:
    """A job of which nothing but the number is known may be an array."""
    tasks = queue.tasks(case.unit[0]) if case.unit[1] is None and case.exit_file is None else []
    return [attrs.evolve(case, unit=(case.unit[0], task)) for task in tasks] or [case]


def label(job: str | Record) -> str:
    """What the status of a job is found by: its number, or the record of one that was refused."""
    return job if isinstance(job, str) else job.job or str(job.path)
