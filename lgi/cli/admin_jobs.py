"""`lgi admin jobs`: the jobs of everybody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy import Connection

from lgi.admin import oversight
from lgi.cli.desk import Desk, open_desk, server_options
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen
from lgi.cli.several import each, end
from lgi.cli.show import JOB_HEADERS, job_row
from lgi.db.oversight import jobs_over, list_jobs
from lgi.lists import ANY
from lgi.model import Job
from lgi.repository.files import Repositories
from lgi.setup import repositories_of
from lgi.states import TERMINAL, JobState

STATES = [state.value for state in JobState if state is not JobState.DELETED]
BATCH = 500
DAY = 24 * 3600

job_numbers = click.argument("job_ids", metavar="JOB…", nargs=-1, required=True, type=click.IntRange(1))


@click.group()
@server_options
def jobs() -> None:
    """The jobs of everybody."""


@jobs.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("--application", metavar="NAME", help="Only those for this application.")
@click.option("--owner", metavar="NAME", help="Only those of this user or group.")
@click.option("--after", default=0, type=click.IntRange(0), metavar="JOB", help="Only those with higher numbers.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="How many at most.")
@server_options
@common_options
@pass_options
def list_(
    options: Options, state: str | None, application: str | None, owner: str | None, after: int, limit: int
) -> None:
    """Show jobs in order of their numbers."""
    desk = open_desk(options)
    found = desk.run(
        lambda connection: list_jobs(
            connection,
            state=state or "",
            application=application or "",
            owner=owner or "",
            after=after,
            limit=limit + 1,
        )
    )
    shown = found[:limit]
    desk.screen.result([job_fields(job) for job in shown])
    headers = [*JOB_HEADERS, "locked"]
    desk.screen.table(headers, [[*job_row(job), "yes" if job.lock_state else ""] for job in shown])
    if len(found) > limit:
        desk.screen.note(f"there are more: --after {shown[-1].job_id}, or a higher --limit")


def job_fields(job: Job) -> dict[str, Any]:
    """A job for JSON, as the administrator sees it."""
    return {
        "job_id": job.job_id,
        "state": job.state.value,
        "application": job.application,
        "target_resources": list(job.target_resources),
        "owners": list(job.owners),
        "state_time_stamp": job.state_time_stamp,
        "daemon_pulse": job.daemon_pulse or None,
        "locked": bool(job.lock_state),
    }


@jobs.command()
@job_numbers
@click.option("--target", metavar="NAME|any", help="Which resource is to run it; the one that had it by default.")
@server_options
@common_options
@pass_options
def requeue(options: Options, job_ids: tuple[int, ...], target: str | None) -> None:
    """Queue running jobs again, whose daemon is gone for good.

    Without --target a job waits for the resource that had it, where the daemon goes on with it if it still runs it.
    With another target, a daemon that still runs it is told that the job is no longer its own, and drops it.
    """
    desk = open_desk(options)
    now = int(time.time())
    changed = each(desk, job_ids, lambda by, job_id: oversight.requeue(by, job_id, target, now), job_fields)
    for job in changed:
        for_whom = "any resource" if ANY in job.target_resources else ", ".join(job.target_resources)
        told = "" if target is None else "; a daemon that still runs it is told that it is no longer its own"
        desk.screen.line(f"Job {job.job_id} is queued for {for_whom}{told}")
    end(desk)


@jobs.command()
@job_numbers
@server_options
@common_options
@pass_options
def abort(options: Options, job_ids: tuple[int, ...]) -> None:
    """Abort queued jobs at once, and have running ones aborted by their daemons."""
    desk = open_desk(options)
    now = int(time.time())
    for job in each(desk, job_ids, lambda by, job_id: oversight.abort(by, job_id, now), job_fields):
        desk.screen.line(f"Job {job.job_id} is {job.state}")
    end(desk)


@jobs.command()
@click.option(
    "--older-than", "days", required=True, type=click.FloatRange(0), metavar="DAYS", help="Over since then."
)
@click.option(
    "--state", "states", default="finished,aborted", show_default=True, metavar="A,B", help="Which states to delete."
)
@click.option("--dry-run", is_flag=True, help="Only say which jobs would be deleted.")
@server_options
@common_options
@pass_options
def purge(options: Options, days: float, states: str, dry_run: bool) -> None:
    """Delete jobs that have been over for some time, with their files."""
    wanted = [part.strip() for part in states.split(",")]
    for state in wanted:
        if state not in TERMINAL:
            raise click.UsageError(f"--state: {state!r} is none of {', '.join(sorted(TERMINAL))}")
    desk = open_desk(options)
    repositories = repositories_of(desk.config)
    if not dry_run:
        repositories.prepare()
    before = int(time.time() - days * DAY)
    done: list[int] = []
    with _counted(desk.screen) as count:
        for batch in _batches(desk, wanted, before):
            done += batch if dry_run else _delete(desk, repositories, batch, before)
            count(len(done))
    desk.screen.result({"deleted": [] if dry_run else done, "would_delete": done if dry_run else []})
    desk.screen.line(f"{len(done)} job{'' if len(done) == 1 else 's'} {'to delete' if dry_run else 'deleted'}")
    end(desk)


def _batches(desk: Desk, states: list[str], before: int) -> Iterator[list[int]]:
    last = 0

    def following(connection: Connection) -> list[int]:
        return jobs_over(connection, states, before, after=last, limit=BATCH)

    while batch := desk.run(following):
        last = batch[-1]
        yield batch


def _delete(desk: Desk, repositories: Repositories, batch: list[int], before: int) -> list[int]:
    gone = desk.run(lambda connection: oversight.purge(connection, batch, before, int(time.time())))
    for job_id, name in gone.items():
        try:
            if name:
                repositories.remove(name)
        except OSError as problem:
            desk.screen.complain(problem, f"job {job_id} is deleted, but its files are not")
    return list(gone)


@contextmanager
def _counted(screen: Screen) -> Iterator[Callable[[int], None]]:
    """Gives what shows how many are done, on a terminal."""
    if not screen.terminal:
        yield lambda number: None
        return
    console = screen.console()
    with console.status("") as status, screen.drawing(console):
        yield lambda number: status.update(f"{number} jobs so far")
