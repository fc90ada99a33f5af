"""`lgi delete` and `lgi cancel`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from lgi.cli.complaint import Complaint
from lgi.cli.jobs import each, each_place
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.references import JOB, naming, nothing_to_do
from lgi.cli.screen import Screen
from lgi.cli.session import Session, run, session
from lgi.cli.show import state
from lgi.cli.wait import followed_to_the_end
from lgi.client.answers import JobAnswer
from lgi.client.grid import PlacedJob
from lgi.client.reference import JobReference
from lgi.states import TERMINAL, JobState

UNASKED = 3  # jobs that are deleted without a question, as by `rm -I`


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1, type=JOB)
@click.option("-y", "--yes", is_flag=True, help=f"Do not ask, as a terminal does for more than {UNASKED} jobs.")
@click.option("--wait", "follow", is_flag=True, help="Wait for running ones to end, and then delete them too.")
@common_options
@pass_options
def delete(options: Options, jobs: tuple[JobReference, ...], yes: bool, follow: bool) -> int:
    """Delete each JOB with all of its files, for good.

    A running job is aborted first: it stays with its files until it is deleted again, or until it has ended with
    --wait. To end a job and keep it, see lgi cancel.

    \b
    Examples:
      lgi delete 12 13
      lgi delete --wait 14
      lgi delete $(lgi list -q --state aborted)
    """
    if not jobs:
        return nothing_to_do(options)
    several = len(set(jobs))
    asking = several > UNASKED and not yes and sys.stdin.isatty() and sys.stderr.isatty()
    if asking and not click.confirm(f"Delete {several} jobs and their files?", err=True):
        raise Complaint("nothing was deleted")

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await delete_jobs(opened, jobs, follow=follow)

    return run(options, work)


async def delete_jobs(session: Session, jobs: Sequence[JobReference], *, follow: bool = False) -> int:
    """Delete each, or have it aborted; with `follow` also those that have to be aborted first."""
    screen = session.screen
    called = await naming(session)

    def ask(server: str, job_id: int) -> Any:
        return session.grid.user(server).delete(job_id)

    def say(job: PlacedJob) -> None:
        screen.line(f"job {called.of(job)}: {job.answer.job.state.value}")

    done = await each(session, jobs, ask, say)
    aborting = [job for job in done if job.answer.job.state is not JobState.DELETED]
    if aborting and follow:
        places = [(job.server, job.answer.job.job_id) for job in aborting]
        outcome = await followed_to_the_end(session, places)
        left = [(one.server, one.job_id) for one in outcome.followed if not one.gone and not one.refused]
        done = [job for job in done if job not in aborting] + await each_place(session, left, ask, say)
    elif aborting:
        names = " ".join(called.of(job) for job in aborting)
        screen.note(f"what runs is aborted first, and stays with its files; then lgi delete {names}")
    screen.result([_value(called.of(job), job) for job in done])
    return int(screen.failed)


def _value(reference: str, job: PlacedJob) -> dict[str, Any]:
    return {
        "reference": reference,
        "server": job.server,
        "job_id": job.answer.job.job_id,
        "state": job.answer.job.state.value,
    }


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1, type=JOB)
@click.option("--wait", "follow", is_flag=True, help="Wait for running ones to end.")
@common_options
@pass_options
def cancel(options: Options, jobs: tuple[JobReference, ...], follow: bool) -> int:
    """End each JOB that is queued or running, and keep it with its files.

    One that is over already is left as it is. Exits 0 when none of them will go on.

    \b
    Examples:
      lgi cancel 12
      lgi cancel --wait $(lgi list -q --state running --application lj_md)
    """
    if not jobs:
        return nothing_to_do(options)

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await cancel_jobs(opened, jobs, follow=follow)

    return run(options, work)


async def cancel_jobs(session: Session, jobs: Sequence[JobReference], *, follow: bool = False) -> int:
    """End each that is not over."""
    screen = session.screen
    called = await naming(session)
    before: dict[tuple[str, int], JobState] = {}

    async def ask(server: str, job_id: int) -> JobAnswer:
        # An old one does not know that it is not to delete.
        if not (await session.grid.announced(server)).remembers_submissions:
            raise Complaint(
                f"{server} is too old to cancel jobs; lgi delete aborts a running job, and deletes others"
            )
        user = session.grid.user(server)
        before[server, job_id] = (await user.job(job_id)).job.state
        return await user.delete(job_id, cancel=True)

    def say(job: PlacedJob) -> None:
        over = before[job.server, job.answer.job.job_id] in TERMINAL
        left = ", was over already" if over else ""
        screen.line(f"job {called.of(job)}: {state(job.answer.job)}{left}")

    done = await each(session, jobs, ask, say)
    places = [(job.server, job.answer.job.job_id) for job in done if job.answer.job.state not in TERMINAL]
    ended = {}
    if places and follow:
        outcome = await followed_to_the_end(session, places)
        ended = {(one.server, one.job_id): one.answer for one in outcome.followed if one.answer is not None}
    final = [
        PlacedJob(server=job.server, answer=ended.get((job.server, job.answer.job.job_id)) or job.answer)
        for job in done
    ]
    screen.result([_value(called.of(job), job) for job in final])
    return int(screen.failed)
