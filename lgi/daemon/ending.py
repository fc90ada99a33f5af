"""The end of a job without an abort script: TERM to the process group of its run script, KILL after a while."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from lgi.daemon.jobdir import RUN_PID, JobDirectory
from lgi.daemon.runscript import is_running

GRACE = 10.0  # seconds between TERM and KILL
GONE = 5.0  # seconds that killed processes have to be gone
_LOOK = 0.1


def _members(group: int) -> list[int]:
    """The living processes of a group; the dead that nobody has collected yet do not count."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                state, _parent, its = (process / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(its) == group and state not in "ZX":
                found.append(int(process.name))
    return found


def _ours(job: JobDirectory, group: int) -> bool:
    """Whether one of the group works in the job's directory: the number may have become a stranger's."""
    for pid in _members(group):
        try:
            if job.path.samefile(f"/proc/{pid}/cwd"):
                return True
        except OSError:
            continue
    return False


async def end_group(clock: Any, job: JobDirectory, grace: float = GRACE) -> bool:
    """End what the run script has started; whether nothing of it runs any more. Raises Tampered."""
    if not job.has(RUN_PID):
        return not is_running(job)
    group = int(job.text(RUN_PID))
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, GONE)):
        if _ours(job, group):
            with suppress(ProcessLookupError):
                os.killpg(group, number)
        until = clock.seconds() + patience
        while is_running(job) and _members(group) and clock.seconds() < until:
            await deferLater(clock, _LOOK)
        if not is_running(job):
            return True
    return not is_running(job)
