"""The interface of batch systems, and where to find each by its name."""

from __future__ import annotations

import os
import pwd
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from lgi.batch.command import CommandFailed, Commands
from lgi.batch.values import BatchError, Entry, NotSupported, Request, Reservation

KEY = re.compile(r"lgi[0-9a-f]{12}")  # fifteen characters: the longest name that every PBS takes
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")

_SYSTEMS = {
    "local": ("lgi.batch.local", "Local"),
    "slurm": ("lgi.batch.slurm", "Slurm"),
    "pbs": ("lgi.batch.pbs", "PBS"),
    "gridengine": ("lgi.batch.gridengine", "GridEngine"),
    "lsf": ("lgi.batch.lsf", "LSF"),
    "loadleveler": ("lgi.batch.loadleveler", "LoadLeveler"),
}
NAMES = tuple(_SYSTEMS)


class System(ABC):
    """One batch system, asked through its own commands in the name of the user who runs this process.

    All methods raise BatchError, of which CommandFailed names the command and what it said. They know nothing of
    records and exit files: that is `lgi.batch.jobs`.
    """

    name: ClassVar[str]
    # What its job numbers look like: nothing else gets into an argument list.
    job_pattern: ClassVar[re.Pattern[str]]
    task_pattern: ClassVar[re.Pattern[str] | None] = None  # with groups job and task, where it has arrays
    # Shell words that give the job's number, its task and how often it was started anew, where it runs.
    shell_job: ClassVar[str]
    shell_task: ClassVar[str] = ""
    shell_restarts: ClassVar[str] = ""
    # What a submit command says when it could be taken later: there is nothing wrong with the job.
    temporary: ClassVar[re.Pattern[str]] = re.compile(
        r"time(d )?-?out|unable to contact|cannot (connect|contact|reach)|connection (refused|reset|timed)"
        r"|not respond|temporar|try again|unreachable|commlib|communication (error|failure)|LIM is down"
        r"|server (is )?(down|busy)|could not connect|batch daemon",
        re.IGNORECASE,
    )
    # Environment variables that tell which of several clusters is meant.
    cluster_variables: ClassVar[tuple[str, ...]] = ()

    def __init__(self, commands: Commands) -> None:
        self.commands = commands

    @abstractmethod
    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        """Submit `wrapper` on the terms of `request`, marked with `key`; returns the job's number.

        The descriptor `hold_open` stays open in the submit command. When it fails, the job may still have been taken.
        """

    @abstractmethod
    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        """All jobs of the user that the batch system shows, `jobs` among them where it shows those, in one call."""

    async def accounting(self, jobs: Collection[str]) -> list[Entry]:
        """What the accounting has of jobs that are over; nothing where there is none or it may not be read."""
        return []

    @abstractmethod
    async def details(self, job: str) -> str:
        """All about one job in the words of the batch system."""

    @abstractmethod
    async def cancel(self, jobs: Collection[str]) -> None:
        """End jobs, whatever they are doing; no complaint about those that are gone."""

    async def hold(self, job: str, *, running: bool) -> None:
        """Keep a job from starting, or suspend a running one."""
        raise NotSupported(f"{self.name} cannot hold jobs")

    async def resume(self, job: str, *, suspended: bool) -> None:
        """Undo `hold`."""
        raise NotSupported(f"{self.name} cannot resume jobs")

    async def reserve(self, *, nodes: int, start: int, seconds: int) -> str:
        """Set nodes aside for this user from a time on; returns the reservation's name."""
        raise NotSupported(f"reservations of {self.name} are not made from here; its own commands do it")

    async def reservations(self) -> list[Reservation]:
        """The reservations that there are."""
        raise NotSupported(f"reservations of {self.name} are not listed here; its own commands do it")

    async def release(self, reservation: str) -> None:
        """Give a reservation up."""
        raise NotSupported(f"reservations of {self.name} are not given up from here; its own commands do it")

    def split(self, text: str) -> tuple[str, int | None]:
        """A job's number, or that of a task of an array, in its parts; raises BatchError."""
        if self.task_pattern is not None and (found := self.task_pattern.fullmatch(text)):
            return self.joined(found), int(found["task"])
        if self.job_pattern.fullmatch(text):
            return text, None
        raise BatchError(f"{text!r} is not the number of a job of {self.name}")

    def joined(self, found: re.Match[str]) -> str:
        """The number of the array from that of its task."""
        return found["job"]

    def cluster(self) -> str:
        """What tells this cluster from others of its kind."""
        return "\n".join(f"{name}={self.commands.environment.get(name, '')}" for name in self.cluster_variables)

    async def tolerant(self, *command: str, gone: re.Pattern[str]) -> None:
        """Run a command that may fail because the job is gone, which its complaint says in each line."""
        try:
            await self.commands.run(*command)
        except CommandFailed as problem:
            if problem.done is None:
                raise
            lines = [line for line in (problem.done.err + problem.done.out).splitlines() if line.strip()]
            if not lines or not all(gone.search(line) for line in lines):
                raise


def open_system(name: str, commands: Commands) -> System:
    """The batch system of that name; raises BatchError."""
    if name not in _SYSTEMS:
        raise BatchError(f"there is no batch system {name!r}: {', '.join(NAMES)}")
    module, kind = _SYSTEMS[name]
    found: type[System] = getattr(import_module(module), kind)
    return found(commands)


def marked_name(request: Request, key: str, longest: int) -> str:
    """The name for a job whose key has to be in its name: as much of the wanted name as fits, a dot and the key."""
    wanted = _NOT_IN_NAMES.sub("_", request.name).lstrip("-._0123456789")
    wanted = wanted[: max(0, longest - len(key) - 1)]
    return f"{wanted}.{key}" if wanted else key


def key_of(name: str) -> str:
    """The key in a job's name, or the empty string."""
    end = name.rpartition(".")[2]
    return end if KEY.fullmatch(end) else ""


def user_name() -> str:
    """The user in whose name commands act."""
    return pwd.getpwuid(os.geteuid()).pw_name


def clock_time(seconds: int) -> str:
    """Seconds as hours:minutes:seconds."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def options(values: Iterable[tuple[str, object]]) -> list[str]:
    """`--name=value` for each pair whose value is not empty, None or 0."""
    return [f"{name}={value}" for name, value in values if value]


def fields(text: str, pattern: re.Pattern[str]) -> Mapping[str, str]:
    """What a pattern with the groups `name` and `value` finds, line by line."""
    return {found["name"].strip(): found["value"].strip() for found in pattern.finditer(text)}
