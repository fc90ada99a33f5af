"""What a job has written so far, or why it does not begin, told to the server so that its owner can follow it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from lgi.client.answers import ServerRefused
from lgi.daemon.jobdir import OUTPUT, JobDirectory, JobRecord
from lgi.daemon.links import Link
from lgi.daemon.steps import is_ours
from lgi.errors import ErrorNumber
from lgi.states import JobState

_log = Logger()
SHORTEST = 5.0
"""Seconds between two posts of a young job; each takes six calls of the server."""
LONGEST = 300.0
SHARE = 0.1
"""Of the time that a job has run for, between two posts: what runs for days is told less often."""


class LiveOutput:
    """Posts the output of one job when it has changed, until `end`."""

    def __init__(self, *, clock: Any, directory: JobDirectory, record: JobRecord, link: Link) -> None:
        self._clock = clock
        self._directory = directory
        self._record = record
        self._link = link
        self._since: float = clock.seconds()
        self._not_before = 0.0
        self._posted: tuple[int, int] | str | None = None
        self._lock = DeferredLock()
        self._ended = False

    async def end(self) -> None:
        """Post nothing any more: what follows is the report, which nothing older may come after."""
        self._ended = True
        await self._lock.acquire()
        self._lock.release()

    async def post(self, trouble: str = "") -> None:
        """Post the output, or else the `trouble` for which there is none yet, if that is due.

        Raises NoAnswer and ServerRefused.
        """
        notice = f"[LGI: the job is accepted and does not begin yet; tried again: {trouble}]\n" if trouble else ""
        marks = self._marks() or notice or None
        if isinstance(self._posted, str) and marks is None:
            # What kept it from beginning is over.
            marks = ""
        if self._ended or marks in (None, self._posted) or self._clock.seconds() < self._not_before:
            return
        await self._lock.acquire()
        try:
            await self._post(marks if isinstance(marks, str) else None)
            self._posted = marks
        except ServerRefused as refusal:
            if refusal.number != ErrorNumber.LOCK_REFUSED:
                raise
            # Somebody looks at the job; there is a next time.
            _log.debug("job {job_id}: output not told: {refusal}", job_id=self._record.job_id, refusal=refusal)
        finally:
            now = self._clock.seconds()
            self._not_before = now + min(LONGEST, max(SHORTEST, SHARE * (now - self._since)))
            self._lock.release()

    async def _post(self, notice: str | None) -> None:
        job_id = self._record.job_id
        async with self._link.locked(job_id) as session_id:
            job = await self._link.state(job_id)
            if job.state is JobState.RUNNING and is_ours(job, self._record.reference):
                most = min(self._record.max_output_size, self._link.largest_output)
                content = self._directory.output(most) if notice is None else notice.encode()[:most]
                await self._link.update(session_id, job_id, output=content)

    def _marks(self) -> tuple[int, int] | None:
        """What changes with the output; None where there is none."""
        try:
            status = (self._directory.path / OUTPUT).lstat()
        except OSError:
            return None
        return (status.st_size, status.st_mtime_ns) if status.st_size else None
