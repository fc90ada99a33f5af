"""`lgi admin check-db`: whether a project's tables and files agree with each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice

import attrs
import click

from lgi.admin.layout import AdminError
from lgi.admin.snapshots import Look, snapshots
from lgi.admin.store import project_database
from lgi.admin.usage import miscounts
from lgi.cli.complaint import Complaint
from lgi.cli.desk import Desk, open_desk, server_options
from lgi.cli.options import Options, common_options, pass_options
from lgi.config import ServerConfig
from lgi.db.consistency import INDEX_TABLES, Problem, check_counts, check_jobs, next_last, of_no_job, repair
from lgi.db.counts import settle_counts
from lgi.db.jobs import fetch_job
from lgi.repository.files import Repositories
from lgi.repository.names import NameRefused, checked_repository
from lgi.setup import repositories_of

BATCH = 500
# A submission under way has files before it has a job. It takes minutes at most once its files are there.
ORPHAN_SECONDS = 3600


@click.command("check-db")
@click.option(
    "--repair",
    "repairing",
    is_flag=True,
    help=f"Make wrong rows of {' and '.join(INDEX_TABLES)} anew, count jobs and files anew that are counted wrongly, "
    "and remove repositories without a job.",
)
@server_options
@common_options
@pass_options
def check_db(options: Options, repairing: bool) -> None:
    """Check that a project's tables and files agree; exits 1 if anything is wrong, and not repaired.

    The project's services may run meanwhile.
    """
    desk = open_desk(options)
    repositories = repositories_of(desk.config)
    found: list[tuple[Problem, bool]] = []
    orphans: list[str] = []
    try:
        with snapshots(project_database(desk.config, desk.project)) as look:
            for problem in _problems(look, repositories):
                repaired = repairing and problem.table in INDEX_TABLES
                if repaired:
                    _repair(desk, problem)
                found.append((problem, repaired))
                _note(desk, problem, repaired)
            for problem, recount in look(check_counts):
                if repairing:
                    desk.run(partial(settle_counts, found=recount))
                found.append((problem, repairing))
                _note(desk, problem, repairing)
            for miscount in miscounts(look, repositories, BATCH):
                if repairing:
                    desk.run(miscount.repair)
                found.append((miscount.problem, repairing))
                _note(desk, miscount.problem, repairing)
        for name in _orphans(desk.config, repositories):
            if repairing:
                repositories.remove(name)
            orphans.append(name)
            done = "; removed" if repairing else ""
            desk.screen.note(f"repository {repositories.path(name)}: no job has it{done}")
    except AdminError as problem:
        raise Complaint(str(problem)) from None
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        raise Complaint(f"{where}{problem.strerror or problem}") from None
    number = len(found) + len(orphans)
    left = sum(not repaired for _problem, repaired in found) + (0 if repairing else len(orphans))
    desk.screen.result(
        {
            "project": desk.project,
            "problems": [attrs.asdict(problem) | {"repaired": repaired} for problem, repaired in found],
            "orphans": [{"repository": name, "repaired": repairing} for name in orphans],
            "left": left,
        }
    )
    if left:
        click.get_current_context().exit(1)
    how = f"was made so: {number} repaired" if number else "is in order"
    desk.screen.line(f"The database of project {desk.project} {how}")


def _note(desk: Desk, problem: Problem, repaired: bool) -> None:
    about = f"job {problem.job_id}: " if problem.job_id else ""
    desk.screen.note(f"{about}{problem.table}: {problem.text}{'; repaired' if repaired else ''}")


def _repair(desk: Desk, problem: Problem) -> None:
    desk.run(lambda connection: repair(connection, problem.job_id, problem.table))


def _problems(look: Look, repositories: Repositories) -> Iterator[Problem]:
    last = 0
    while True:
        first = last + 1
        last, more = look(partial(next_last, after=last, batch=BATCH))
        if not more:
            return
        problems, names = look(partial(check_jobs, first=first, last=last))
        yield from problems
        for job_id, name in names.items():
            if text := _missing(look, repositories, job_id, name):
                yield Problem(job_id=job_id, table="job_queue", text=text)


def _missing(look: Look, repositories: Repositories, job_id: int, name: str) -> str:
    """What is wrong with a job's repository; a job without files needs none."""
    try:
        checked_repository(name)
    except NameRefused as problem:
        return str(problem)
    if repositories.is_there(name):
        return ""
    job = look(partial(fetch_job, job_id=job_id))
    if job is None or not job.repository_size:
        return ""
    # It may have been made since, for its first file, and the job may have been deleted.
    if repositories.is_there(name) or look(partial(fetch_job, job_id=job_id)) is None:
        return ""
    return f"there is no directory of the repository {name}"


def _orphans(config: ServerConfig, repositories: Repositories) -> Iterator[str]:
    """Old repositories that no job of any project has: what a server leaves that is killed during a submission."""
    names = repositories.untouched(time.time() - ORPHAN_SECONDS)
    while batch := set(islice(names, BATCH)):
        for project in config.projects:
            with snapshots(project_database(config, project)) as look:
                batch = look(partial(of_no_job, names=batch))
        yield from sorted(batch)
