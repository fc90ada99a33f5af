"""LSF: bsub, bjobs, bacct, bkill, bstop and bresume of LSF 10."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from lgi.batch.command import CommandFailed
from lgi.batch.system import System, key_of, marked_name
from lgi.batch.values import BatchError, Entry, Request, State, Status, ended

_LONGEST_NAME = 60
_FIELDS = ["jobid", "jobindex", "stat", "queue", "exit_code", "exit_reason", "job_name"]
_SUBMITTED = re.compile(r"^Job <(\d+)> is submitted to ", re.MULTILINE)
_NOTHING = re.compile(r"^(No (unfinished |finished |matching )?jobs? found|Job <[^>]*> is not found)", re.IGNORECASE)
_GONE = re.compile(r"Job has already finished|No matching job found|is not found|is being terminated", re.IGNORECASE)
_KILLED_BY = ("TERM_OWNER", "TERM_ADMIN", "TERM_FORCE_OWNER", "TERM_FORCE_ADMIN")
_SIGNALLED = 128  # is added to the number of the signal
_STATES = {
    "PEND": State.PENDING,
    "WAIT": State.PENDING,
    "PROV": State.PENDING,
    "PSUSP": State.HELD,
    "RUN": State.RUNNING,
    "USUSP": State.SUSPENDED,
    "SSUSP": State.SUSPENDED,
}
_BLOCK = re.compile(r"^Job <(?P<job>\d+)(?:\[(?P<task>\d+)\])?>,", re.MULTILINE)
_CODE = re.compile(r"exit\s+code\s+(\d+)")
_SIGNAL = re.compile(r"by\s+signal\s+(\d+)")
_REASON = re.compile(r"Completed\s+<exit>;\s*(TERM_\w+[^.;]*)")


def parse_submitted(text: str) -> str:
    """The job's number from what bsub says; other lines, from the site's own scripts, may stand around it."""
    found = _SUBMITTED.search(text)
    if found is None:
        raise BatchError(f"bsub gave no job number: {text.strip()[:200]!r}")
    return found[1]


def parse_bjobs(text: str) -> list[Entry]:
    """The jobs that `bjobs -noheader -o` lists with our fields, between `|`."""
    entries: list[Entry] = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|", len(_FIELDS) - 1)]
        if len(parts) != len(_FIELDS) or not parts[0].isdigit():
            if entries or not line.strip() or _NOTHING.match(line):
                continue
            raise BatchError(f"bjobs gave a line that is none of its own: {line[:200]!r}")
        number, index, name, queue, code, reason, job_name = ("" if part == "-" else part for part in parts)
        match name:
            case "DONE":
                status = ended(0, queue=queue)
            case "EXIT":
                status = _exited(int(code) if code.isdigit() else None, reason, queue)
            case _:
                known = _STATES.get(name)
                status = Status(state=known or State.UNKNOWN, queue=queue, reason="" if known else name)
        task = int(index) if index.isdigit() and int(index) else None
        entries.append(Entry(job=number, task=task, key=key_of(job_name.partition("[")[0]), status=status))
    return entries


def parse_bacct(text: str) -> list[Entry]:
    """The jobs that `bacct -l` lists: each block begins with the number and says how it was completed."""
    entries = []
    starts = list(_BLOCK.finditer(text))
    for place, start in enumerate(starts):
        end = starts[place + 1].start() if place + 1 < len(starts) else len(text)
        # Long lines are broken anywhere, and go on after 21 blanks.
        block = re.sub(r"\n {21}", "", text[start.start() : end])
        if "Completed <done>" in block:
            status = ended(0)
        elif "Completed <exit>" in block or "Exited" in block:
            code, signal, reason = _CODE.search(block), _SIGNAL.search(block), _REASON.search(block)
            number = int(code[1]) if code else _SIGNALLED + int(signal[1]) if signal else None
            status = _exited(number, " ".join(reason[1].split()) if reason else "", "")
        else:
            continue
        task = int(start["task"]) if start["task"] else None
        entries.append(Entry(job=start["job"], task=task, status=status))
    return entries


def _exited(code: int | None, reason: str, queue: str) -> Status:
    signal = code - _SIGNALLED if code is not None and code > _SIGNALLED else None
    cancelled = reason.startswith(_KILLED_BY)
    return Status(
        state=State.CANCELLED if cancelled else State.FAILED,
        exit_code=code,
        signal=signal,
        queue=queue,
        reason=reason,
    )


class LSF(System):
    """LSF. `memory` is given in kB, the unit where LSF_UNIT_FOR_LIMITS is not set; the key is in the job's name."""

    name = "lsf"
    job_pattern = re.compile(r"\d{1,12}")
    task_pattern = re.compile(r"(?P<job>\d{1,12})\[(?P<task>\d{1,9})\]")
    shell_job = "$LSB_JOBID"
    shell_task = '$(case ${LSB_JOBINDEX:-0} in 0) ;; *) printf %s "$LSB_JOBINDEX" ;; esac)'
    cluster_variables = ("LSF_ENVDIR",)

    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        """See `System`."""
        name = marked_name(request, key, _LONGEST_NAME)
        if request.array:
            name += f"[{request.array.numbers}]" + (f"%{request.array.most}" if request.array.most else "")
        command = ["bsub", "-J", name, "-cwd", str(request.directory), "-n", str(request.nodes * request.cpus), "-r"]
        command += ["-R", f"span[ptile={request.cpus}]"] if request.nodes * request.cpus > 1 else []
        for option, value in (("-q", request.queue), ("-P", request.account), ("-U", request.reservation)):
            command += [option, value] if value else []
        command += ["-W", str(-(-request.wall_time // 60))] if request.wall_time else []
        command += ["-M", str(-(-request.memory // 1024))] if request.memory else []
        for option, path in (("-o", request.output), ("-e", request.error)):
            command += [option, str(path).replace("%", "%%")] if path else []
        command += ["-H"] if request.hold else []
        # What it is to run goes to a shell, at the far end.
        command += [*request.extra, shlex.quote(str(wrapper))]
        done = await self.commands.run(*command, directory=request.directory, hold_open=(hold_open,))
        return parse_submitted(done.out)

    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; jobs stay an hour after their end (CLEAN_PERIOD)."""
        wanted = f"{' '.join(_FIELDS)} delimiter='|'"
        done = await self.commands.run("bjobs", "-a", "-noheader", "-o", wanted, accept=(0, 255))
        if done.status and not _NOTHING.match(done.err.strip() or done.out.strip()):
            raise done.failure()
        return parse_bjobs(done.out)

    async def accounting(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; nothing where the accounting file cannot be read."""
        try:
            return parse_bacct((await self.commands.run("bacct", "-l", *sorted(jobs))).out)
        except CommandFailed as problem:
            if problem.done is None or problem.done.status < 0:
                raise
            return []

    async def details(self, job: str) -> str:
        """See `System`."""
        return (await self.commands.run("bjobs", "-l", job)).out

    async def cancel(self, jobs: Collection[str]) -> None:
        """See `System`."""
        for job in sorted(jobs):
            await self.tolerant("bkill", job, gone=_GONE)

    async def hold(self, job: str, *, running: bool) -> None:
        """See `System`."""
        await self.commands.run("bstop", job)

    async def resume(self, job: str, *, suspended: bool) -> None:
        """See `System`."""
        await self.commands.run("bresume", job)
