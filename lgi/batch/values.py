"""What is asked of a batch system and what it answers, in words that are the same for all of them."""

from __future__ import annotations

import re
from enum import StrEnum, unique
from pathlib import Path
from typing import Any

import attrs


class BatchError(Exception):
    """A batch system that refused, failed or answered nonsense; one line that says which and why."""


class NotSupported(BatchError):
    """What the batch system has no means for."""


@unique
class State(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    UNKNOWN = "unknown"

    @property
    def active(self) -> bool:
        """Whether the batch system still has something to do for it."""
        return self in (State.PENDING, State.HELD, State.RUNNING, State.SUSPENDED)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen; false for `unknown`, of which nothing can be said."""
        return self in (State.FINISHED, State.FAILED, State.CANCELLED, State.LOST)


@attrs.frozen(kw_only=True)
class Status:
    """What is known of one job or array task.

    `exit_code` is 0 to 255, `signal` the number of the one that ended it; the times are in seconds since 1970;
    `restarts` counts how often the batch system has started it anew; `reason` is in the batch system's words. All but
    `state` are None or empty where they are not known.
    """

    state: State
    exit_code: int | None = None
    signal: int | None = None
    queue: str = ""
    submitted: int | None = None
    started: int | None = None
    ended: int | None = None
    restarts: int | None = None
    reason: str = ""


@attrs.frozen(kw_only=True)
class Entry:
    """A job, or a task of an array, as the queue or the accounting lists it; `key` is the mark that we gave it."""

    job: str
    task: int | None = None
    key: str = ""
    status: Status


def unit_name(job: str, task: int | None) -> str:
    """One word or two for a job or a task of it, the same wherever they are remembered."""
    return job if task is None else f"{job} {task}"


_ARRAY = re.compile(r"(\d{1,9})-(\d{1,9})(?::(\d{1,9}))?(?:%(\d{1,9}))?")
LARGEST_ARRAY = 100_000


@attrs.frozen(kw_only=True)
class ArrayRange:
    """The task numbers of an array, both ends included; `most` of them run at a time, 0 is no limit."""

    first: int
    last: int
    step: int = 1
    most: int = 0

    @classmethod
    def parse(cls, text: str) -> ArrayRange:
        """Read `first-last`, with `:step` and `%most` where wanted; raises BatchError."""
        found = _ARRAY.fullmatch(text)
        if found is None:
            raise BatchError(f"{text!r} is no range of an array: FIRST-LAST, FIRST-LAST:STEP, with %MOST at a time")
        first, last, step, most = (int(part) if part else 0 for part in found.groups())
        made = cls(first=first, last=last, step=step or 1, most=most)
        if first > last or not 0 < len(made.tasks) <= LARGEST_ARRAY:
            raise BatchError(f"{text!r} is no range of 1 to {LARGEST_ARRAY} tasks")
        return made

    @property
    def tasks(self) -> range:
        """The numbers."""
        return range(self.first, self.last + 1, self.step)

    def __str__(self) -> str:
        return f"{self.numbers}%{self.most}" if self.most else self.numbers

    @property
    def numbers(self) -> str:
        """The range without the limit."""
        return f"{self.first}-{self.last}:{self.step}" if self.step != 1 else f"{self.first}-{self.last}"


@attrs.frozen(kw_only=True)
class Request:
    """A job to be submitted.

    `script` is an executable file. `cpus` and `memory` (bytes) are those of each node, `wall_time` is in seconds; 0
    and "" leave it to the batch system. `output` and `error` are files for what the script prints; None leaves it to
    the batch system. `extra` goes to the submit command as it is.
    """

    script: Path
    directory: Path
    name: str = ""
    queue: str = ""
    account: str = ""
    nodes: int = 1
    cpus: int = 1
    memory: int = 0
    wall_time: int = 0
    output: Path | None = None
    error: Path | None = None
    array: ArrayRange | None = None
    reservation: str = ""
    hold: bool = False
    extra: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what no batch system could take; raises BatchError."""
        for name, path in (("script", self.script), ("working directory", self.directory)):
            if not path.is_absolute():
                raise BatchError(f"the {name} {path} is not an absolute path")
        for name in ("script", "directory", "output", "error", "name", "queue", "account", "reservation"):
            value = getattr(self, name)
            if value is not None and any(char < " " or char == "\x7f" for char in str(value)):
                raise BatchError(f"the {name} {str(value)!r} has control characters")
        for name in ("name", "queue", "account", "reservation"):
            if getattr(self, name).startswith("-"):
                raise BatchError(f"the {name} {getattr(self, name)!r} begins like an option")
        for name, least in (("nodes", 1), ("cpus", 1), ("memory", 0), ("wall_time", 0)):
            if getattr(self, name) < least:
                raise BatchError(f"{name} is {getattr(self, name)}, it must be at least {least}")


@attrs.frozen(kw_only=True)
class Reservation:
    """Time on nodes that was set aside; the state is waiting, active or other, the times are seconds since 1970."""

    name: str
    state: str
    start: int | None = None
    end: int | None = None


def ended(code: int, signal: int = 0, **known: object) -> Status:
    """The status of a job that ended with an exit code or by a signal: finished when both are 0."""
    state = State.FINISHED if code == 0 and signal == 0 else State.FAILED
    values: dict[str, Any] = {"exit_code": code, "signal": signal or None, **known}
    return attrs.evolve(Status(state=state), **values)
