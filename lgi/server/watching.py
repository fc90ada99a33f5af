"""Users who wait for changes of jobs: each says what it knows, and hears what is different.

Nothing is kept of them between two calls: who says what he knows cannot miss anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import attrs
from sqlalchemy import Connection

from lgi.access import matches
from lgi.db.jobs import fetch_jobs
from lgi.lists import decode_list
from lgi.model import ListedJob
from lgi.server.members import User
from lgi.server.project import Project
from lgi.states import JobState

RECHECK = 30.0
"""Seconds after which one who waits looks again by himself; the look that is made for all is not his."""
LOOKS = 40.0
"""How often all who wait look again by themselves, together, in a second at most."""

Known = Mapping[int, JobState | None]
"""The state that somebody believes each job to be in, None where he believes nothing."""


@attrs.frozen(kw_only=True)
class Difference:
    """The jobs that are in another state than was known, and the numbers of those that the user cannot read."""

    jobs: tuple[ListedJob, ...] = ()
    gone: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.jobs or self.gone)


def difference(connection: Connection, user: User, known: Known) -> Difference:
    """What is not as it was known, in one statement; a job that is locked counts like others."""
    # Thousands of jobs of a project have few different lists.
    readable = cache(lambda access: matches(user.names, decode_list(access)))
    gone = dict.fromkeys(known)
    jobs = []
    for job in fetch_jobs(connection, known.keys()):
        if readable(job.read_access):
            del gone[job.job_id]
            if job.state != known[job.job_id]:
                jobs.append(job)
    return Difference(jobs=tuple(jobs), gone=tuple(gone))


async def changes(
    project: Project,
    user: User,
    known: Known,
    seconds: int,
    gone: Callable[[Callable[[], None]], None],
    idle: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Difference:
    """What is not as it is known; waits at most `seconds` until there is something, and returns nothing after that.

    `gone` is given what is to be called when the client hangs up. While it waits it holds neither a thread nor a
    connection of the database, and is `idle`. Raises LGIError(OVERLOADED) where it would wait and too many do.
    """
    news = project.news
    deadline = news.reactor.seconds() + seconds
    hung_up = False
    with news.listening(known) as ear:

        def leave() -> None:
            nonlocal hung_up
            hung_up = True
            ear.ring()

        gone(leave)
        found = await project.database.read("watch jobs", difference, user, known)
        if found or not seconds or news.stopped:
            return found
        with news.crowd(project.limits.waiting, project.limits.back_off):
            while not found:
                left = deadline - news.reactor.seconds()
                if left <= 0:
                    break
                with idle():
                    await ear.heard(min(left, max(RECHECK, news.crowded / LOOKS)))
                if hung_up or news.stopped:
                    break
                found = await project.database.read("watch jobs", difference, user, known)
    return found
