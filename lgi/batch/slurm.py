"""Slurm: sbatch, squeue, scontrol, scancel and, where there is an accounting database, sacct."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from lgi.batch.command import CommandFailed
from lgi.batch.system import KEY, System, clock_time, options
from lgi.batch.values import BatchError, Entry, Request, Reservation, State, Status

_FIELDS = [
    "JobArrayID",
    "State",
    "Partition",
    "exit_code",
    "RestartCnt",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "Reason",
    "Comment",
]
_ACCOUNT_FIELDS = "JobID,State,ExitCode,Partition,Submit,Start,End"
_NUMBER = re.compile(r"(?P<job>\d+)(?:_(?P<task>\d+)|[+.]\d+)?")
_GONE = re.compile(r"Invalid job id|already completing or completed|Job/step already", re.IGNORECASE)
_OPTION = re.compile(r"(\S+?)=(\S*)")
_EPOCH = {"SLURM_TIME_FORMAT": "%s"}
_AT_ONCE = 200  # jobs in one call of sacct

_RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"}
_STATES = {
    **dict.fromkeys(("PENDING", "REQUEUED", "REQUEUE_FED"), State.PENDING),
    **dict.fromkeys(("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"), State.HELD),
    **dict.fromkeys(_RUNNING, State.RUNNING),
    **dict.fromkeys(("SUSPENDED", "STOPPED"), State.SUSPENDED),
    "COMPLETED": State.FINISHED,
    **dict.fromkeys(("CANCELLED", "REVOKED"), State.CANCELLED),
    **dict.fromkeys(
        ("FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED", "LAUNCH_FAILED"),
        State.FAILED,
    ),
}
_HELD_BY = ("JobHeldUser", "JobHeldAdmin")


def parse_submitted(text: str) -> str:
    """The job's number from what `sbatch --parsable` says: `number` or `number;cluster`."""
    found = re.fullmatch(r"(\d+)(?:;\S*)?", text.strip().rpartition("\n")[2].strip())
    if found is None:
        raise BatchError(f"sbatch gave no job number: {text.strip()!r}")
    return found[1]


def parse_squeue(text: str) -> list[Entry]:
    """The jobs that squeue lists with our fields; the comment is the last, and may hold anything, line breaks too."""
    entries: list[Entry] = []
    for line in text.splitlines():
        parts = line.removesuffix("|").split("|", len(_FIELDS) - 1)
        number = _NUMBER.fullmatch(parts[0])
        if number is None or len(parts) != len(_FIELDS):
            if entries:
                continue  # the rest of somebody's comment
            raise BatchError(f"squeue gave a line that is none of its own: {line[:200]!r}")
        _, name, queue, code, restarts, submitted, started, finished, reason, comment = parts
        state = _state(name, reason)
        over = state.over
        begun = over or state in (State.RUNNING, State.SUSPENDED)
        exit_code, signal = _wait_status(code) if over else (None, None)
        entries.append(
            Entry(
                job=number["job"],
                task=int(number["task"]) if number["task"] else None,
                key=comment if KEY.fullmatch(comment) else "",
                status=Status(
                    state=state,
                    exit_code=exit_code,
                    signal=signal or None,
                    queue=queue,
                    submitted=_integer(submitted),
                    # Before it has started, this is a guess.
                    started=_integer(started) if begun else None,
                    ended=_integer(finished) if over else None,
                    restarts=_integer(restarts),
                    reason=_reason(name, reason),
                ),
            )
        )
    return entries


def parse_sacct(text: str) -> list[Entry]:
    """The jobs that `sacct --allocations --parsable2` lists with our fields."""
    entries = []
    for line in text.splitlines():
        parts = line.split("|")
        number = _NUMBER.fullmatch(parts[0])
        if len(parts) != _ACCOUNT_FIELDS.count(",") + 1:
            raise BatchError(f"sacct gave a line that is none of its own: {line[:200]!r}")
        if number is None:
            continue  # tasks of an array that have not started: 12_[3-9]
        _, name, code, queue, submitted, started, finished = parts
        state = _state(name.split()[0] if name else "", "")  # CANCELLED by 1000
        exit_code, signal = _wait_status(code)
        entries.append(
            Entry(
                job=number["job"],
                task=int(number["task"]) if number["task"] else None,
                status=Status(
                    state=state,
                    exit_code=exit_code if state.over else None,
                    signal=(signal or None) if state.over else None,
                    queue=queue,
                    submitted=_integer(submitted),
                    started=_integer(started),
                    ended=_integer(finished),
                    reason=_reason(name, ""),
                ),
            )
        )
    return entries


def parse_reservations(text: str) -> list[Reservation]:
    """What `scontrol --oneliner show reservation` lists, with times in seconds since 1970."""
    found = []
    for line in text.splitlines():
        values = dict(_OPTION.findall(line))
        if "ReservationName" in values:
            state = {"ACTIVE": "active", "INACTIVE": "waiting"}.get(values.get("State", ""), "other")
            found.append(
                Reservation(
                    name=values["ReservationName"],
                    state=state,
                    start=_integer(values.get("StartTime", "")),
                    end=_integer(values.get("EndTime", "")),
                )
            )
    return found


def _state(name: str, reason: str) -> State:
    state = _STATES.get(name, State.UNKNOWN)
    return State.HELD if state is State.PENDING and reason in _HELD_BY else state


def _reason(name: str, reason: str) -> str:
    plain = reason in ("", "None", "(null)")
    if name in ("PENDING", "RUNNING", "COMPLETED"):
        return "" if plain else reason
    return name if plain else f"{name}: {reason}"


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _wait_status(text: str) -> tuple[int | None, int | None]:
    """Exit code and signal: as `code:signal`, or as one number in the form of wait()."""
    code, colon, signal = text.partition(":")
    if colon:
        return _integer(code), _integer(signal)
    whole = _integer(code)
    return (None, None) if whole is None else (whole >> 8 & 255, whole & 127)


class Slurm(System):
    """Slurm 20.11 or newer. `cpus` are tasks on each node; holding a running job needs the rights of an operator."""

    name = "slurm"
    job_pattern = re.compile(r"\d{1,10}")
    task_pattern = re.compile(r"(?P<job>\d{1,10})_(?P<task>\d{1,9})")
    shell_job = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}"
    shell_task = "${SLURM_ARRAY_TASK_ID-}"
    shell_restarts = "${SLURM_RESTART_COUNT:-0}"
    cluster_variables = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER")

    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        """See `System`; the key is the job's comment."""
        wanted = options(
            (
                ("--job-name", request.name or request.script.name),
                ("--comment", key),
                ("--chdir", request.directory),
                ("--partition", request.queue),
                ("--account", request.account),
                ("--nodes", request.nodes),
                ("--ntasks-per-node", request.cpus),
                ("--mem", f"{-(-request.memory // 2**20)}M" if request.memory else ""),
                ("--time", clock_time(request.wall_time) if request.wall_time else ""),
                ("--output", _file(request.output)),
                ("--error", _file(request.error)),
                ("--array", request.array),
                ("--reservation", request.reservation),
            )
        )
        held = ["--hold"] if request.hold else []
        done = await self.commands.run(
            "sbatch", "--parsable", *wanted, *held, *request.extra, str(wrapper),
            directory=request.directory, hold_open=(hold_open,),
        )  # fmt: skip
        return parse_submitted(done.out)

    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; jobs stay a few minutes after their end (MinJobAge)."""
        wanted = ",".join(f"{name}:|" for name in _FIELDS)
        done = await self.commands.run(
            "squeue", "--noheader", "--array", "--states=all", f"--user={os.geteuid()}", f"--Format={wanted}",
            settings=_EPOCH,
        )  # fmt: skip
        return parse_squeue(done.out)

    async def accounting(self, jobs: Collection[str]) -> list[Entry]:
        """See `System`; nothing where the accounting storage is disabled."""
        entries: list[Entry] = []
        wanted = sorted(jobs)
        for start in range(0, len(wanted), _AT_ONCE):
            some = ",".join(wanted[start : start + _AT_ONCE])
            try:
                done = await self.commands.run(
                    "sacct", "--noheader", "--allocations", "--parsable2", f"--format={_ACCOUNT_FIELDS}",
                    f"--jobs={some}", "--starttime=now-60days", settings=_EPOCH,
                )  # fmt: skip
            except CommandFailed as problem:
                if problem.done is not None and "accounting storage is disabled" in problem.done.err:
                    return []
                raise
            entries += parse_sacct(done.out)
        return entries

    async def details(self, job: str) -> str:
        """See `System`."""
        return (await self.commands.run("scontrol", "show", "job", job)).out

    async def cancel(self, jobs: Collection[str]) -> None:
        """See `System`."""
        await self.tolerant("scancel", *sorted(jobs), gone=_GONE)

    async def hold(self, job: str, *, running: bool) -> None:
        """See `System`."""
        await self.commands.run("scontrol", "suspend" if running else "hold", job)

    async def resume(self, job: str, *, suspended: bool) -> None:
        """See `System`."""
        await self.commands.run("scontrol", "resume" if suspended else "release", job)

    async def reserve(self, *, nodes: int, start: int, seconds: int) -> str:
        """See `System`; it needs the rights of an operator."""
        done = await self.commands.run(
            "scontrol", "create", "reservation", f"users={os.geteuid()}", f"nodecnt={nodes}",
            f"starttime=uts{start}", f"duration={-(-seconds // 60)}",
        )  # fmt: skip
        found = re.search(r"Reservation created: (\S+)", done.out)
        if found is None:
            raise BatchError(f"scontrol gave no name of a reservation: {done.out.strip()!r}")
        return found[1]

    async def reservations(self) -> list[Reservation]:
        """See `System`."""
        done = await self.commands.run("scontrol", "--oneliner", "show", "reservation", settings=_EPOCH)
        return parse_reservations(done.out)

    async def release(self, reservation: str) -> None:
        """See `System`."""
        await self.commands.run("scontrol", "delete", f"reservationname={reservation}")


def _file(path: Path | None) -> str:
    return "" if path is None else str(path).replace("%", "%%")
