"""LoadLeveler: llsubmit, llq, llsummary, llcancel and llhold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from lgi.batch.command import CommandFailed
from lgi.batch.system import System, clock_time, fields, key_of, marked_name, user_name
from lgi.batch.values import BatchError, Entry, NotSupported, Request, State, Status, ended
from lgi.durable import write_atomically

_LONGEST_NAME = 60
_FORMAT = ("%id", "%jn", "%st", "%c", "%cc")
_SUBMITTED = re.compile(r'^llsubmit: The job "([A-Za-z0-9_.-]+\.\d+)"', re.MULTILINE)
_NOTHING = re.compile(r"There is currently no job status to report")
_GONE = re.compile(r"no job status|not found|does not exist|already (been )?(completed|removed)", re.IGNORECASE)
_STEP = re.compile(r"=+ Job Step \S+ =+")
_LINE = re.compile(r"^ *(?P<name>[A-Za-z][A-Za-z ./]*?): ?(?P<value>.*)$", re.MULTILINE)
_STATES = {
    **dict.fromkeys(("I", "D", "NQ", "P", "ST", "MP", "VP", "XP", "RP"), State.PENDING),
    **dict.fromkeys(("H", "HS", "S"), State.HELD),
    **dict.fromkeys(("R", "CK", "CP", "EP"), State.RUNNING),
    **dict.fromkeys(("E", "F"), State.SUSPENDED),  # preempted
    **dict.fromkeys(("CA", "RM"), State.CANCELLED),
    **dict.fromkeys(("NR", "TX", "X", "SX", "V"), State.FAILED),
}
_WORDS = {
    "completed": "C", "canceled": "CA", "cancelled": "CA", "removed": "RM", "not run": "NR", "terminated": "TX",
    "rejected": "X", "submission error": "SX", "vacated": "V",
}  # fmt: skip


def parse_submitted(text: str) -> str:
    """The job's number from what llsubmit says."""
    found = _SUBMITTED.search(text)
    if found is None:
        raise BatchError(f"llsubmit gave no job number: {text.strip()[:200]!r}")
    return found[1]


def parse_llq(text: str) -> list[Entry]:
    """The jobs that `llq -r` lists with our fields, between `!`."""
    entries = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("!")]
        if len(parts) != len(_FORMAT):
            if not line.strip() or _NOTHING.search(line):
                continue
            raise BatchError(f"llq gave a line that is none of its own: {line[:200]!r}")
        step, name, letters, queue, code = parts
        job, _, number = step.rpartition(".")
        if not job or not number.isdigit():
            raise BatchError(f"llq gave a step without a number: {line[:200]!r}")
        entries.append(Entry(job=job, key=key_of(name), status=_status(letters, code, queue)))
    return entries


def parse_long(text: str) -> list[Entry]:
    """The steps that `llsummary -l` lists with how they ended."""
    entries = []
    for block in _STEP.split(text)[1:]:
        values = fields(block, _LINE)
        job = values.get("Job Step Id", "").rpartition(".")[0]
        letters = _WORDS.get(values.get("Status", "").lower())
        if job and letters is not None:
            status = _status(letters, values.get("Completion Code", ""), values.get("Class", ""))
            entries.append(Entry(job=job, key=key_of(values.get("Job Name", "")), status=status))
    return entries


def _status(letters: str, code: str, queue: str) -> Status:
    # The completion code is a number in the form of wait().
    whole = int(code) if code.isdigit() else None
    if letters == "C":
        if whole is None:
            return Status(state=State.UNKNOWN, queue=queue, reason="completed, without a completion code")
        return ended(whole >> 8 & 255, whole & 127, queue=queue)
    state = _STATES.get(letters, State.UNKNOWN)
    if state.active or whole is None:
        return Status(state=state, queue=queue, reason="" if state.active else f"state {letters}")
    return ended(whole >> 8 & 255, whole & 127, state=state, queue=queue, reason=f"state {letters}")


def command_file(request: Request, wrapper: Path, key: str) -> str:
    """The job command file for a request."""
    return "".join(f"# @ {line}\n" for line in _command_lines(request, wrapper, key))


def _command_lines(request: Request, wrapper: Path, key: str) -> Iterator[str]:
    yield f"job_name = {marked_name(request, key, _LONGEST_NAME)}"
    yield f"job_type = {'parallel' if request.nodes * request.cpus > 1 else 'serial'}"
    yield f"executable = {wrapper}"
    yield f"initialdir = {request.directory}"
    yield "notification = never"
    yield "restart = yes"
    yield f"output = {request.output or '/dev/null'}"
    yield f"error = {request.error or '/dev/null'}"
    if request.nodes * request.cpus > 1:
        yield f"node = {request.nodes}"
        yield f"tasks_per_node = {request.cpus}"
    if request.queue:
        yield f"class = {request.queue}"
    if request.account:
        yield f"account_no = {request.account}"
    if request.memory:
        yield f"resources = ConsumableMemory({-(-request.memory // 2**20)})"
    if request.wall_time:
        yield f"wall_clock_limit = {clock_time(request.wall_time)}"
    if request.reservation:
        yield f"ll_res_id = {request.reservation}"
    if request.hold:
        yield "hold = user"
    yield "queue"


class LoadLeveler(System):
    """LoadLeveler. The key is in the job's name; there are no arrays, and `extra` is for llsubmit itself."""

    name = "loadleveler"
    job_pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}\.\d{1,12}")
    shell_job = "${LOADL_STEP_ID%.*}"
    cluster_variables = ("LOADL_CONFIG",)

    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        """See `System`; the job command file is left beside the wrapper."""
        if request.array:
            raise NotSupported("LoadLeveler has no arrays")
        file = wrapper.with_name(f"{wrapper.name}.cmd")
        write_atomically(file, command_file(request, wrapper, key).encode())
        done = await self.commands.run(
            "llsubmit", *request.extra, str(file), directory=request.directory, hold_open=(hold_open,)
        )
        return parse_submitted(f"{done.out}\n{done.err}")

    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`."""
        return parse_llq((await self.commands.run("llq", "-u", user_name(), "-r", *_FORMAT)).out)

    async def accounting(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; nothing where this machine has no history file."""
        entries: list[Entry] = []
        for job in sorted(jobs):
            try:
                entries += parse_long((await self.commands.run("llsummary", "-l", "-j", job)).out)
            except CommandFailed as problem:
                if problem.done is None or problem.done.status < 0:
                    raise
        return entries

    async def details(self, job: str) -> str:
        """See `System`."""
        return (await self.commands.run("llq", "-l", "-j", job)).out

    async def cancel(self, jobs: Collection[str]) -> None:
        """See `System`."""
        for job in sorted(jobs):
            await self.tolerant("llcancel", job, gone=_GONE)

    async def hold(self, job: str, *, running: bool) -> None:
        """See `System`; running jobs cannot be held by their user."""
        if running:
            raise NotSupported("LoadLeveler lets its administrators alone suspend running jobs")
        await self.commands.run("llhold", job)

    async def resume(self, job: str, *, suspended: bool) -> None:
        """See `System`."""
        await self.commands.run("llhold", "-r", job)
