"""Jobs as people name them: on the command line, and in what is printed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import click

from lgi.cli.options import Options
from lgi.cli.screen import standard_screen
from lgi.cli.session import Session
from lgi.cli.show import job_value
from lgi.client.answers import ServerRefused
from lgi.client.grid import PlacedJob
from lgi.client.post import CONNECTIONS
from lgi.client.reference import JobReference, UnknownReference, server_names
from lgi.client.watch import ABOUT_ONE_JOB

Place = tuple[str, int]
"""The address of a server, and a job's number there."""


class JobType(click.ParamType[JobReference]):
    """`12`, or `12@server`."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JobReference:
        """The reference that the text is."""
        if isinstance(value, JobReference):
            return value
        try:
            return JobReference.parse(value)
        except UnknownReference as problem:
            self.fail(str(problem), param, ctx)


JOB = JobType()


def nothing_to_do(options: Options) -> int:
    """The end of a command for jobs to which none was named, as by a list of those that are there."""
    screen = standard_screen(json=options.json, verbose=options.verbose)
    screen.result([])
    screen.note("no jobs were named, so there is nothing to do")
    return 0


@attrs.frozen
class Naming:
    """What jobs go by: their numbers, with the name of the server where there are several."""

    servers: dict[str, str]

    def reference(self, server: str, job_id: int) -> str:
        """Of the job with this number on that server."""
        name = self.servers.get(server, server) if len(self.servers) > 1 else ""
        return str(JobReference(job_id=job_id, server=name))

    def of(self, job: PlacedJob) -> str:
        """Of a job that has been looked at."""
        return self.reference(job.server, job.answer.job.job_id)

    def value(self, job: PlacedJob) -> dict[str, Any]:
        """The job for JSON."""
        return {"reference": self.of(job), "server": job.server, **job_value(job.answer)}


async def naming(session: Session) -> Naming:
    """How the jobs of the session's project are called; raises what asking for its servers raises."""
    return Naming(server_names(await session.grid.servers()))


async def located(session: Session, references: Iterable[JobReference]) -> list[Place]:
    """Where the jobs are, each once; complains of those that cannot be told, and leaves them out."""
    from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

    gate = DeferredSemaphore(CONNECTIONS)

    async def locate(reference: JobReference) -> Place | None:
        await gate.acquire()
        try:
            return await session.grid.locate(reference), reference.job_id
        except UnknownReference as problem:
            session.screen.complain(problem)
        except ServerRefused as problem:
            if problem.number not in ABOUT_ONE_JOB:
                raise
            session.screen.complain(problem, f"job {reference}")
        finally:
            gate.release()
        return None

    await session.grid.servers()  # asked once, not by each
    locating = [Deferred.fromCoroutine(locate(reference)) for reference in dict.fromkeys(references)]
    try:
        found = await gatherResults(locating, consumeErrors=True)
    except FirstError as first:
        problem = first.subFailure.value
        assert isinstance(problem, Exception)
        raise problem from None
    finally:
        for one in locating:
            one.cancel()
    return list(dict.fromkeys(place for place in found if place is not None))
