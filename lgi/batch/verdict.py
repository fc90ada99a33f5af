"""What all witnesses together say of a job: its exit file, the queue, the accounting, and how long it is missing.

Absence proves nothing: a job that the queue does not show is over only when the exit file or the accounting says so,
or when it was cancelled by us. Until then it is unknown, and lost when it stays away for the grace time.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lgi.batch.values import State, Status, ended
from lgi.batch.wrapper import Exit

GRACE = 300.0  # seconds
_ORDER = (
    State.RUNNING,
    State.SUSPENDED,
    State.PENDING,
    State.HELD,
    State.UNKNOWN,
    State.LOST,
    State.FAILED,
    State.CANCELLED,
    State.FINISHED,
)


def left_behind(exit_file: Exit | None, queued: Status | None) -> bool:
    """Whether an exit file is not the last word: the queue shows a later run, or will show one.

    Where the batch system counts its restarts, these tell. Else a job that waits will run again. One that was ended
    by a signal and is still said to run is being cancelled or requeued: the next look tells which.
    """
    if exit_file is None or queued is None:
        return False
    counted = queued.restarts is not None and exit_file.restarts is not None
    if counted and (queued.restarts or 0) > (exit_file.restarts or 0):
        return True
    if not queued.state.active:
        return False
    return bool(exit_file.caught or exit_file.signal) or (not counted and queued.state in (State.PENDING, State.HELD))


def verdict(
    *,
    exit_file: Exit | None = None,
    queued: Status | None = None,
    accounted: Status | None = None,
    cancelled: bool = False,
    missing: float = 0.0,
    grace: float = GRACE,
) -> Status:
    """The status of one job or task; `missing` and `grace` are in seconds."""
    told = next((one for one in (queued, accounted) if one is not None and one.state.over), None)
    if exit_file is not None and not left_behind(exit_file, queued):
        known = attrs.asdict(told or queued or Status(state=State.UNKNOWN))
        for name in ("state", "exit_code", "signal"):
            del known[name]
        status = ended(exit_file.code, exit_file.signal, **known)
        was_cancelled = cancelled or (told is not None and told.state is State.CANCELLED)
        return attrs.evolve(status, state=State.CANCELLED) if was_cancelled and exit_file.code else status
    if queued is not None and not queued.state.over:
        return queued
    if told is not None:
        return attrs.evolve(told, state=State.CANCELLED) if cancelled and told.state is State.FAILED else told
    if cancelled:
        return Status(state=State.CANCELLED)
    if missing >= grace:
        return Status(state=State.LOST, reason=f"the batch system has not shown it for {missing:.0f} seconds")
    return Status(state=State.UNKNOWN, reason="neither queue nor accounting shows it, and there is no exit file")


def combined(tasks: Sequence[Status]) -> Status:
    """The status of an array: that of the task that is furthest from a good end, with the worst exit code."""
    status = min(tasks, key=lambda one: (_ORDER.index(one.state), -(one.exit_code or 0)))
    times = {
        name: [value for one in tasks if (value := getattr(one, name))] for name in ("submitted", "started", "ended")
    }
    return attrs.evolve(
        status,
        submitted=min(times["submitted"], default=None),
        started=min(times["started"], default=None),
        ended=max(times["ended"], default=None) if status.state.over else None,
        restarts=None,
    )
