"""`lgi status`: all about some jobs, or the list of all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from lgi.cli.list import Order, Selection, application_option, limit_option, list_jobs, state_option
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.references import JOB, Place, located, naming
from lgi.cli.screen import Screen
from lgi.cli.session import Session, run, session
from lgi.cli.show import details
from lgi.client.answers import JobAnswer, ServerRefused
from lgi.client.grid import PlacedJob
from lgi.client.reference import JobReference
from lgi.client.watch import ABOUT_ONE_JOB
from lgi.lists import ANY


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1, type=JOB)
@state_option
@application_option
@limit_option
@common_options
@pass_options
def status(
    options: Options, jobs: tuple[JobReference, ...], states: tuple[str, ...], application: str, limit: int | None
) -> int:
    """Show everything about each JOB, or list all of your jobs; lgi list can choose and sort.

    JOB is a number, with @ and the name of a server where several servers of the project have such a job.

    \b
    Examples:
      lgi status 12
      lgi status 12@grid2.example.org
      lgi status --json 12 | jq .exit_status
    """
    if jobs and (states != (ANY,) or application != ANY or limit):
        raise click.UsageError("--state, --application and --limit are for the list, not for single jobs")

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            if jobs:
                return await show_jobs(opened, jobs)
            return await list_jobs(opened, Selection(states=states, application=application), Order(limit=limit))

    return run(options, work)


async def show_jobs(session: Session, jobs: Sequence[JobReference]) -> int:
    """Show each job in full; JSON is an object for one job, an array for several."""
    screen = session.screen
    called = await naming(session)
    found: list[dict[str, Any]] = []
    for placed in await each(session, jobs, lambda server, job_id: session.grid.user(server).job(job_id)):
        if found:
            screen.line()
        found.append(called.value(placed))
        for line in details(placed.answer, called.of(placed)):
            screen.line(line)
    if found or len(jobs) > 1:
        screen.result(found if len(jobs) > 1 else found[0])
    return int(screen.failed)


async def each(
    session: Session,
    jobs: Sequence[JobReference],
    action: Callable[[str, int], Awaitable[JobAnswer]],
    done: Callable[[PlacedJob], None] = lambda _job: None,
) -> list[PlacedJob]:
    """Do something with each job; complains of those where it fails, and still does it with the others."""
    return await each_place(session, await located(session, jobs), action, done)


async def each_place(
    session: Session,
    places: Sequence[Place],
    action: Callable[[str, int], Awaitable[JobAnswer]],
    done: Callable[[PlacedJob], None] = lambda _job: None,
) -> list[PlacedJob]:
    """The same with jobs whose servers are known; `done` is told of each at once."""
    called = await naming(session)
    found = []
    for server, job_id in places:
        try:
            answer = await session.patience.ask(action, server, job_id)
        except ServerRefused as problem:
            if problem.number not in ABOUT_ONE_JOB:
                raise
            session.screen.complain(problem, f"job {called.reference(server, job_id)}")
            continue
        found.append(PlacedJob(server=server, answer=answer))
        done(found[-1])
    return found
