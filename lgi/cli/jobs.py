"""`lgi status` and `lgi delete`."""

from __future__ import annotations

from typing import Any

import click

from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen
from lgi.cli.session import Session, run, session
from lgi.cli.show import JOB_HEADERS, details, job_row, job_value
from lgi.client.answers import AnswerMalformed, JobAnswer, ServerRefused
from lgi.errors import ErrorNumber
from lgi.lists import ANY
from lgi.states import JobState

PAGE = 1024
STORED = tuple(state.value for state in JobState if state is not JobState.DELETED)

# What may be wrong with one job while there is nothing wrong with the next.
ABOUT_ONE_JOB = frozenset(
    {
        ErrorNumber.JOB_UNKNOWN,
        ErrorNumber.INTERFACE_LOCK_MISSING,
        ErrorNumber.READ_REFUSED,
        ErrorNumber.MODIFY_REFUSED,
        ErrorNumber.OVERLOADED,
    }
)

JOB_ID = click.IntRange(min=1)


def _state(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value.lower().removeprefix("!") not in (ANY, *STORED):
        raise click.BadParameter(f"{value!r} is none of {', '.join(STORED)} (with ! in front: all but these)")
    return value.lower()


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1, type=JOB_ID)
@click.option(
    "-s", "--state", default=ANY, callback=_state, help="Only jobs in this state; !STATE for all but these."
)
@click.option("-a", "--application", metavar="NAME", default=ANY, help="Only jobs of this application; !NAME.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most so many jobs.")
@common_options
@pass_options
def status(options: Options, jobs: tuple[int, ...], state: str, application: str, limit: int | None) -> int:
    """List your jobs, or show everything about each JOB."""
    if jobs and (state != ANY or application != ANY or limit):
        raise click.UsageError("--state, --application and --limit are for the list, not for single jobs")

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            if jobs:
                return await show_jobs(opened, jobs)
            return await list_jobs(opened, state=state, application=application, limit=limit)

    return run(options, work)


async def all_jobs(session: Session, *, state: str, application: str, limit: int | None) -> list[JobAnswer]:
    """The jobs the user may read, page by page: a page may be smaller than asked for, the last one is empty."""
    found: dict[int, JobAnswer] = {}
    start = 0
    while limit is None or start < limit:
        ask = PAGE if limit is None else min(PAGE, limit - start)
        page = await session.patience.ask(
            session.user.jobs, state=state, application=application, start=start, limit=ask
        )
        if not page:
            break
        if start and all(answer.job.job_id in found for answer in page):
            raise AnswerMalformed("the server gives the same page of jobs again and again")
        start += len(page)
        found.update((answer.job.job_id, answer) for answer in page)
    return list(found.values())[:limit]


async def list_jobs(session: Session, *, state: str, application: str, limit: int | None) -> int:
    """Show the table of jobs."""
    found = await all_jobs(session, state=state, application=application, limit=limit)
    session.screen.result([job_value(answer) for answer in found])
    if found:
        session.screen.table(JOB_HEADERS, [job_row(answer.job) for answer in found])
    else:
        session.screen.line("no jobs")
    return 0


async def show_jobs(session: Session, jobs: tuple[int, ...]) -> int:
    """Show each job in full; JSON is an object for one job, an array for several."""
    found: list[JobAnswer] = []
    for job_id in dict.fromkeys(jobs):
        try:
            answer = await session.patience.ask(session.user.job, job_id)
        except ServerRefused as problem:
            if problem.number not in ABOUT_ONE_JOB:
                raise
            session.screen.complain(problem, f"job {job_id}")
            continue
        if found:
            session.screen.line()
        found.append(answer)
        for line in details(answer):
            session.screen.line(line)
    values = [job_value(answer) for answer in found]
    if values or len(jobs) > 1:
        session.screen.result(values if len(jobs) > 1 else values[0])
    return int(session.screen.failed)


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, type=JOB_ID, required=True)
@common_options
@pass_options
def delete(options: Options, jobs: tuple[int, ...]) -> int:
    """Delete each JOB that is queued or over; a running one is aborted by its resource first."""

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await delete_jobs(opened, jobs)

    return run(options, work)


async def delete_jobs(session: Session, jobs: tuple[int, ...]) -> int:
    """Delete each, or have it aborted."""
    done = []
    for job_id in dict.fromkeys(jobs):
        try:
            answer = await session.patience.ask(session.user.delete, job_id)
        except ServerRefused as problem:
            if problem.number not in ABOUT_ONE_JOB:
                raise
            session.screen.complain(problem, f"job {job_id}")
            continue
        done.append({"job_id": job_id, "state": answer.job.state.value})
        session.screen.line(f"job {job_id}: {answer.job.state.value}")
    session.screen.result(done)
    return int(session.screen.failed)
