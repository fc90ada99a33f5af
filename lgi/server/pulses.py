"""Signs of life, gathered and written together: nobody waits for them, and few of them are news.

A crash loses those of the last seconds. A daemon asks after its jobs more often than a job may go without a pulse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lgi.db.database import Database
from lgi.db.pulses import write_pulses
from lgi.errors import LGIError

GATHER_SECONDS = 1.0


class Pulses:
    """The signs of life of jobs and resources that one process of the server has seen."""

    _log = Logger()

    def __init__(self, reactor: Callable[[], Any], database: Database) -> None:
        self._reactor = reactor
        self._database = database
        self._jobs: dict[int, int] = {}
        self._resources: dict[int, int] = {}
        self._timer: Any = None
        self._writing: Deferred[None] | None = None
        self._stopped = False

    def of_job(self, job_id: int, now: int) -> None:
        """A daemon looks after this job."""
        self._jobs[job_id] = now
        self._begin()

    def of_resource(self, resource_id: int, now: int) -> None:
        """This resource has called."""
        self._resources[resource_id] = now
        self._begin()

    def _begin(self) -> None:
        if self._timer is None and self._writing is None and not self._stopped:
            self._timer = self._reactor().callLater(GATHER_SECONDS, self._write)

    def _write(self) -> None:
        self._timer = None
        self._writing = Deferred.fromCoroutine(self._written())
        self._writing.addBoth(self._end)

    async def _written(self) -> None:
        jobs, resources = self._jobs, self._resources
        self._jobs, self._resources = {}, {}
        try:
            await self._database.run("write pulses", write_pulses, jobs, resources)
        except LGIError as problem:
            self._log.warn("signs of life could not be written yet: {problem}", problem=problem)
            self._jobs, self._resources = jobs | self._jobs, resources | self._resources

    def _end(self, result: object) -> None:
        self._writing = None
        if isinstance(result, Failure):
            self._log.failure("signs of life could not be written", failure=result)
        if self._jobs or self._resources:
            self._begin()

    async def stop(self) -> None:
        """Write what is left, and nothing after that."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await self._writing
        if self._jobs or self._resources:
            # Also what has come in while others were being written.
            self._write()
        if self._writing is not None:
            await self._writing
