"""PBS: qsub, qstat, qdel, qhold, qrls and qsig of Torque and of PBS Pro or OpenPBS, and Torque's tracejob."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from lgi.batch.command import CommandFailed
from lgi.batch.system import System, clock_time, key_of, marked_name, user_name
from lgi.batch.values import BatchError, Entry, Request, State, Status, ended

_LONGEST_NAME = 15
_DAYS = "7"  # of logs that tracejob reads
_SIGNALLED = 256  # is added to the number of the signal
_NUMBER = re.compile(r"(?P<number>\d+)(?:\[(?P<task>\d*)\])?(?P<server>\.[A-Za-z0-9_.-]+)?")
_ATTRIBUTE = re.compile(r"^ {4}(\S+) = (.*)$")
_GONE = re.compile(r"Unknown Job Id|Job has finished|Request invalid for state|Job .*already", re.IGNORECASE)
_TERMINATED = "91"  # substate of PBS Pro: deleted
_STATES = {
    **dict.fromkeys("QWT", State.PENDING),
    "H": State.HELD,
    **dict.fromkeys("REB", State.RUNNING),
    **dict.fromkeys("SU", State.SUSPENDED),
    "M": State.UNKNOWN,  # at another server now
}
_OVER = "CFX"


def parse_submitted(text: str) -> str:
    """The job's number from what qsub says, which is nothing else."""
    number = text.strip().rpartition("\n")[2].strip()
    if not _NUMBER.fullmatch(number):
        raise BatchError(f"qsub gave no job number: {text.strip()[:200]!r}")
    return number


def blocks(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Number and attributes of each job of `qstat -f`, lines that were broken put together again."""
    number, values, last = "", dict[str, str](), ""
    for line in text.splitlines():
        if line.startswith("Job Id:"):
            if number:
                yield number, values
            number, values, last = line.removeprefix("Job Id:").strip(), {}, ""
        elif found := _ATTRIBUTE.match(line):
            last = found[1]
            values[last] = found[2]
        elif last and line[:1].isspace():
            values[last] += line.strip()
    if number:
        yield number, values


def parse_qstat(text: str, user: str) -> list[Entry]:
    """The jobs of a user that `qstat -f -t` lists, for Torque and for PBS Pro."""
    entries = []
    for number, values in blocks(text):
        if values.get("Job_Owner", "").partition("@")[0] != user:
            continue
        found = _NUMBER.fullmatch(number)
        if found is None or "job_state" not in values:
            raise BatchError(f"qstat gave a job without number or state: {number[:80]!r}")
        task = int(found["task"]) if found["task"] else None
        job = f"{found['number']}[]{found['server'] or ''}" if task is not None else number
        entries.append(Entry(job=job, task=task, key=_key(values.get("Job_Name", "")), status=_status(values)))
    return entries


def parse_tracejob(text: str) -> Status | None:
    """How a job ended according to Torque's logs; None where they do not say."""
    codes = re.findall(r"Exit_status=(-?\d+)", text)
    if codes:
        return _ended(int(codes[-1]), cancelled="Job deleted" in text)
    if "Job deleted" in text:
        return Status(state=State.CANCELLED, reason="Job deleted")
    return None


def _key(name: str) -> str:
    # Torque gives the task's number to the name of a task.
    return key_of(name) or key_of(name.rpartition("-")[0])


def _status(values: dict[str, str]) -> Status:
    letter = values["job_state"]
    known = {
        "queue": values.get("queue", ""),
        "submitted": _time(values.get("qtime", "") or values.get("ctime", "")),
        "started": _time(values.get("start_time", "") or values.get("stime", "")),
        "reason": values.get("comment", ""),
    }
    if letter in _OVER:
        code = values.get("exit_status", values.get("Exit_status", ""))
        cancelled = values.get("substate") == _TERMINATED
        known["ended"] = _time(values.get("comp_time", "") or values.get("mtime", ""))
        if not re.fullmatch(r"-?\d+", code):
            # Gone before it was started, or a task whose end is not kept.
            return Status(state=State.CANCELLED if cancelled else State.UNKNOWN, **known)  # type: ignore[arg-type]
        return _ended(int(code), cancelled=cancelled, **known)
    state = _STATES.get(letter, State.UNKNOWN)
    if state is State.UNKNOWN:
        known["reason"] = f"state {letter}"
    return Status(state=state, **known)  # type: ignore[arg-type]


def _ended(code: int, *, cancelled: bool = False, **known: object) -> Status:
    signal = code - _SIGNALLED if code > _SIGNALLED else 0
    exit_code = 255 if code < 0 else 128 + signal if signal else code
    if code < 0 and not known.get("reason"):
        known["reason"] = f"PBS could not run it ({code})"
    status = ended(exit_code, signal, **known)
    return ended(exit_code, signal, **{**known, "state": State.CANCELLED}) if cancelled and exit_code else status


def _time(text: str) -> int | None:
    if text.isdigit():
        return int(text)
    try:
        return int(datetime.strptime(text, "%a %b %d %H:%M:%S %Y").timestamp())
    except ValueError:
        return None


class PBS(System):
    """Torque, PBS Pro and OpenPBS; which it is, is asked once. The key is in the job's name."""

    name = "pbs"
    job_pattern = re.compile(r"\d{1,12}(?:\[\])?(?:\.[A-Za-z0-9_.-]{1,200})?")
    task_pattern = re.compile(r"(?P<number>\d{1,12})\[(?P<task>\d{1,9})\](?P<server>(?:\.[A-Za-z0-9_.-]{1,200})?)")
    shell_job = "$(printf %s \"$PBS_JOBID\" | sed 's/\\[[0-9]*\\]/[]/')"
    shell_task = "${PBS_ARRAY_INDEX:-${PBS_ARRAYID-}}"
    cluster_variables = ("PBS_DEFAULT", "PBS_SERVER", "PBS_CONF_FILE", "PBS_EXEC")
    _pro: bool | None = None

    def joined(self, found: re.Match[str]) -> str:
        """See `System`."""
        return f"{found['number']}[]{found['server']}"

    async def is_pro(self) -> bool:
        """Whether it is PBS Pro or OpenPBS, not Torque."""
        if self._pro is None:
            done = await self.commands.run("qstat", "--version", accept=None)
            self._pro = "pbs_version" in f"{done.out}{done.err}".lower()
        return self._pro

    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        """See `System`."""
        pro = await self.is_pro()
        command = ["qsub", "-N", marked_name(request, key, _LONGEST_NAME), "-S", "/bin/sh", "-r", "y"]
        for option, value in (("-q", request.reservation if pro and request.reservation else request.queue),
                              ("-A", request.account)):  # fmt: skip
            command += [option, value] if value else []
        for resource in self._resources(request, pro=pro):
            command += ["-l", resource]
        if request.reservation and not pro:
            command += ["-W", f"x=FLAGS:ADVRES:{request.reservation}"]
        for option, path in (("-o", request.output), ("-e", request.error)):
            command += [option, str(path)] if path else []
        if request.array:
            most = f"%{request.array.most}" if request.array.most else ""
            tasks = ",".join(map(str, request.array.tasks)) if request.array.step != 1 else request.array.numbers
            command += ["-J", request.array.numbers + most] if pro else ["-t", tasks + most]
        command += ["-h"] if request.hold else []
        done = await self.commands.run(
            *command, *request.extra, str(wrapper), directory=request.directory, hold_open=(hold_open,)
        )
        return parse_submitted(done.out)

    @staticmethod
    def _resources(request: Request, *, pro: bool) -> Iterator[str]:
        if pro:
            memory = f":mem={request.memory}b" if request.memory else ""
            yield f"select={request.nodes}:ncpus={request.cpus}{memory}"
        else:
            yield f"nodes={request.nodes}:ppn={request.cpus}"
            if request.memory:
                yield f"mem={request.memory * request.nodes}b"
        if request.wall_time:
            yield f"walltime={clock_time(request.wall_time)}"

    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; PBS Pro shows ended jobs where it keeps a history, Torque for keep_completed seconds."""
        history = ["-x"] if await self.is_pro() else []
        return parse_qstat((await self.commands.run("qstat", *history, "-f", "-t")).out, user_name())

    async def accounting(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; on Torque the logs of its server, where this machine has them."""
        entries: list[Entry] = []
        if await self.is_pro():
            return entries
        for job in sorted(jobs):
            try:
                done = await self.commands.run("tracejob", "-q", "-n", _DAYS, job)
            except CommandFailed:
                return entries
            status = parse_tracejob(done.out)
            if status is not None:
                entries.append(Entry(job=job, status=status))
        return entries

    async def details(self, job: str) -> str:
        """See `System`."""
        return (await self.commands.run("qstat", *(["-x"] if await self.is_pro() else []), "-f", job)).out

    async def cancel(self, jobs: Collection[str]) -> None:
        """See `System`."""
        for job in sorted(jobs):
            await self.tolerant("qdel", job, gone=_GONE)

    async def hold(self, job: str, *, running: bool) -> None:
        """See `System`; suspending a running job needs the rights of an operator."""
        await self.commands.run(*(("qsig", "-s", "suspend") if running else ("qhold", "-h", "u")), job)

    async def resume(self, job: str, *, suspended: bool) -> None:
        """See `System`."""
        await self.commands.run(*(("qsig", "-s", "resume") if suspended else ("qrls", "-h", "u")), job)
