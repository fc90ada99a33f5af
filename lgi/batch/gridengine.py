"""Grid Engine: qsub, qstat, qacct, qdel, qhold, qrls, qmod and qrsub of Sun, Son of and Univa Grid Engine."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as XML

from lgi.batch.command import CommandFailed
from lgi.batch.system import System, key_of, marked_name, user_name
from lgi.batch.values import BatchError, Entry, Request, Reservation, State, Status, ended

_LONGEST_NAME = 60
_DAYS = "31"  # that the accounting is searched back
_GONE = re.compile(r"does not exist|do not exist|^\s*\d+\s*$|already in deletion", re.IGNORECASE)
_RECORD = re.compile(r"^=+$", re.MULTILINE)
_FIELD = re.compile(r"^(\w+)[ \t]+(.*)$", re.MULTILINE)
# Accounting records of a run that was not the last: the job was migrated or rescheduled.
_GOES_ON = (24, 25)
_KILLED = 128  # is added to the number of the signal
_MANY = 20


def parse_submitted(text: str) -> str:
    """The job's number from what `qsub -terse` says: `number` or, for an array, `number.first-last:step`."""
    for line in text.splitlines():
        if found := re.fullmatch(r"(\d+)(?:\.\d+-\d+:\d+)?", line.strip()):
            return found[1]
    raise BatchError(f"qsub gave no job number: {text.strip()!r}")


def parse_qstat(text: str) -> list[Entry]:
    """The jobs and tasks that `qstat -g d -xml` lists; jobs that are over are not among them."""
    try:
        root = XML.fromstring(text)  # noqa: S314, our own batch system's
    except XML.ParseError as problem:
        raise BatchError(f"qstat gave no XML: {problem}") from None
    entries = []
    for one in root.iter("job_list"):
        number, letters = one.findtext("JB_job_number", ""), one.findtext("state", "")
        if not number.isdigit():
            raise BatchError(f"qstat gave a job without a number: {XML.tostring(one, 'unicode')[:200]!r}")
        task = one.findtext("tasks", "")
        state = parse_letters(letters)
        entries.append(
            Entry(
                job=number,
                task=int(task) if task.isdigit() else None,
                key=key_of(one.findtext("JB_name", "")),
                status=Status(
                    state=state,
                    queue=one.findtext("queue_name", "").partition("@")[0],
                    submitted=_iso(one.findtext("JB_submission_time", "")),
                    started=_iso(one.findtext("JAT_start_time", "")) if state is not State.PENDING else None,
                    reason="" if letters in ("r", "qw", "t") else f"state {letters}",
                ),
            )
        )
    return entries


def parse_letters(letters: str) -> State:
    """The state of a job from its letters.

    `E`, an error in starting, is held: nothing happens until somebody clears it, and then the job may run.
    """
    if "E" in letters or "h" in letters.replace("hr", "r").replace("ht", "t"):
        return State.HELD
    if any(letter in letters for letter in "sSTN"):
        return State.SUSPENDED
    if "w" in letters or "q" in letters:
        return State.PENDING
    # R alone is a run after another one; d is on its way to the end of it.
    return State.RUNNING if any(letter in letters for letter in "rtRd") else State.UNKNOWN


def parse_qacct(text: str) -> list[Entry]:
    """The runs that `qacct -j` lists, without those that were not the last of their job."""
    found: dict[tuple[str, int | None], Entry] = {}
    for part in _RECORD.split(text):
        record = {name: value.strip() for name, value in _FIELD.findall(part)}
        if "jobnumber" not in record:
            continue
        task = int(record["taskid"]) if record.get("taskid", "").isdigit() else None
        failed, _, why = record.get("failed", "0").partition(":")
        code = record.get("exit_status", "").split()
        if not code or not code[0].isdigit() or not failed.strip().isdigit():
            raise BatchError(f"qacct gave a record of job {record['jobnumber']} without its end")
        if int(failed) in _GOES_ON:
            continue
        status = int(code[0])
        killed = status - _KILLED if int(failed) and status > _KILLED else 0
        found[record["jobnumber"], task] = Entry(
            job=record["jobnumber"],
            task=task,
            key=key_of(record.get("jobname", "")),
            status=ended(
                status or (1 if int(failed) else 0),
                killed,
                queue=record.get("qname", ""),
                submitted=_date(record.get("qsub_time", "")),
                started=_date(record.get("start_time", "")),
                ended=_date(record.get("end_time", "")),
                reason=why.strip(),
            ),
        )
    return list(found.values())


def parse_reservations(text: str) -> list[Reservation]:
    """What qrstat lists."""
    found = []
    for line in text.splitlines():
        parts = re.fullmatch(
            r"\s*(\d+)\s.*?\s(\w)\s+(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)\s+(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)\s.*", line
        )
        if parts:
            name, state, start, end = parts.groups()
            found.append(
                Reservation(
                    name=name,
                    state={"w": "waiting", "r": "active"}.get(state, "other"),
                    start=_stamp(start, "%m/%d/%Y %H:%M:%S"),
                    end=_stamp(end, "%m/%d/%Y %H:%M:%S"),
                )
            )
    return found


def _stamp(text: str, form: str) -> int | None:
    try:
        return int(datetime.strptime(text.strip(), form).timestamp())
    except ValueError:
        return None


def _iso(text: str) -> int | None:
    return _stamp(text.partition(".")[0], "%Y-%m-%dT%H:%M:%S")


def _date(text: str) -> int | None:
    return _stamp(text, "%a %b %d %H:%M:%S %Y")


class GridEngine(System):
    """Grid Engine. More than one processor needs a parallel environment in `extra`: ("-pe", "smp", "4").

    The key is in the job's name. A job that is deleted before it starts leaves no trace in the accounting.
    """

    name = "gridengine"
    job_pattern = re.compile(r"\d{1,10}")
    task_pattern = re.compile(r"(?P<job>\d{1,10})\.(?P<task>\d{1,9})")
    shell_job = "$JOB_ID"
    shell_task = '$(case ${SGE_TASK_ID-} in *[!0-9]*) ;; *) printf %s "${SGE_TASK_ID-}" ;; esac)'
    cluster_variables = ("SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_CLUSTER_NAME")

    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        """See `System`."""
        if request.nodes * request.cpus > 1 and "-pe" not in request.extra:
            raise BatchError(
                "Grid Engine gives several processors to a parallel environment only: add -pe NAME NUMBER"
            )
        command = ["qsub", "-terse", "-N", marked_name(request, key, _LONGEST_NAME), "-wd", str(request.directory)]
        command += ["-S", "/bin/sh", "-r", "y"]
        for option, value in (("-q", request.queue), ("-P", request.account), ("-ar", request.reservation)):
            command += [option, value] if value else []
        limits = [f"h_rt={request.wall_time}"] if request.wall_time else []
        limits += [f"h_vmem={request.memory}"] if request.memory else []
        command += ["-l", ",".join(limits)] if limits else []
        for option, path in (("-o", request.output), ("-e", request.error)):
            command += [option, f":{path}"] if path else []
        if request.array:
            command += ["-t", request.array.numbers]
            command += ["-tc", str(request.array.most)] if request.array.most else []
        command += ["-h"] if request.hold else []
        done = await self.commands.run(
            *command, *request.extra, str(wrapper), directory=request.directory, hold_open=(hold_open,)
        )
        return parse_submitted(done.out)

    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`."""
        return parse_qstat((await self.commands.run("qstat", "-u", user_name(), "-g", "d", "-xml")).out)

    async def accounting(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; nothing where this machine has no accounting file."""
        entries: list[Entry] = []
        whose = [["-j", job] for job in sorted(jobs)]
        if len(whose) > _MANY:
            whose = [["-o", user_name(), "-d", _DAYS, "-j"]]
        for who in whose:
            try:
                entries += parse_qacct((await self.commands.run("qacct", *who)).out)
            except CommandFailed as problem:
                if problem.done is None or problem.done.status < 0:
                    raise
        return entries

    async def details(self, job: str) -> str:
        """See `System`."""
        return (await self.commands.run("qstat", "-j", job)).out

    async def cancel(self, jobs: Collection[str]) -> None:
        """See `System`."""
        for job in sorted(jobs):
            await self.tolerant("qdel", *_selected(job), gone=_GONE)

    async def hold(self, job: str, *, running: bool) -> None:
        """See `System`."""
        await self.commands.run(*(("qmod", "-sj") if running else ("qhold", "-h", "u")), job)

    async def resume(self, job: str, *, suspended: bool) -> None:
        """See `System`."""
        await self.commands.run(*(("qmod", "-usj") if suspended else ("qrls", "-h", "u")), job)

    async def reserve(self, *, nodes: int, start: int, seconds: int) -> str:
        """See `System`; the user must be on the list `arusers`, and `nodes` other than 1 are not asked for."""
        if nodes != 1:
            raise BatchError(
                "a reservation of Grid Engine for more than one node needs a parallel environment: qrsub"
            )
        when = datetime.fromtimestamp(start).strftime("%Y%m%d%H%M.%S")
        done = await self.commands.run("qrsub", "-a", when, "-d", str(seconds))
        found = re.search(r"reservation (\d+) has been granted", done.out)
        if found is None:
            raise BatchError(f"qrsub gave no name of a reservation: {done.out.strip()!r}")
        return found[1]

    async def reservations(self) -> list[Reservation]:
        """See `System`."""
        return parse_reservations((await self.commands.run("qrstat")).out)

    async def release(self, reservation: str) -> None:
        """See `System`."""
        await self.commands.run("qrdel", reservation)


def _selected(job: str) -> list[str]:
    number, _, task = job.partition(".")
    return [number, "-t", task] if task else [number]
