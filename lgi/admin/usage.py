"""Whether files are counted with what they take: each job's in its row, each user's in his account."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import attrs
from sqlalchemy import Connection

from lgi.admin.snapshots import Look
from lgi.db.consistency import Problem, counted_sizes, next_last
from lgi.db.schema import job_queue, user_usage
from lgi.db.usage import recount, settle_account, sums
from lgi.repository.files import Repositories
from lgi.repository.names import NameRefused

SETTLE_SECONDS = 3.0
"""In so long a file that counts already is put in place: what is wrong after that as well is wrong."""


@attrs.frozen(kw_only=True)
class Miscount:
    """What is counted wrongly, and what counts it anew."""

    problem: Problem
    repair: Callable[[Connection], object]


def size_of(repositories: Repositories, repository: str) -> int | None:
    """What the files of a repository count with, in bytes, all but the server's own; None if there is none."""
    try:
        files = repositories.list(repository)
    except NameRefused:
        return None
    return sum(file.size for file in files if not file.name.startswith(".")) if files else None


def miscounts(
    look: Look, repositories: Repositories, batch: int, *, pause: Callable[[float], None] = time.sleep
) -> Iterator[Miscount]:
    """Everything that is counted wrongly; jobs first, so that what is repaired meanwhile is right in the accounts.

    The project's services may run meanwhile. Raises OSError where the files cannot be looked at.
    """
    doubtful = dict(_doubtful(look, repositories, batch))
    if doubtful:
        pause(SETTLE_SECONDS)
    for job_id, (repository, counted, size) in doubtful.items():
        again = look(partial(counted_sizes, first=job_id, last=job_id)).get(job_id)
        if again == (repository, counted) and size_of(repositories, repository) == size:
            yield Miscount(
                problem=Problem(
                    job_id=job_id,
                    table=job_queue.name,
                    text=f"the files of {repository} take {size} bytes, {counted} are counted",
                ),
                repair=partial(recount, repository=repository, size=size),
            )
    said, due = look(sums)
    for user in sorted(said.keys() | due.keys()):
        counted, size = said.get(user, 0), due.get(user, 0)
        if counted != size:
            yield Miscount(
                problem=Problem(
                    job_id=0,
                    table=user_usage.name,
                    text=f"the jobs of {user} count with {size} bytes, his account has {counted}",
                ),
                repair=partial(settle_account, user=user, difference=size - counted),
            )


def _doubtful(look: Look, repositories: Repositories, batch: int) -> Iterator[tuple[int, tuple[str, int, int]]]:
    last, more = look(partial(next_last, after=0, batch=batch))
    first = 1
    while more:
        for job_id, (repository, counted) in look(partial(counted_sizes, first=first, last=last)).items():
            size = size_of(repositories, repository)
            # A job without a repository is somebody else's to complain of.
            if size is not None and size != counted:
                yield job_id, (repository, counted, size)
        first = last + 1
        last, more = look(partial(next_last, after=last, batch=batch))
