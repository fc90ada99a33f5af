"""How many jobs there are, and for how long the oldest one waits: for whoever looks often, at a bounded price."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from sqlalchemy import Connection, func, select

from lgi.db.counts import OWNERS
from lgi.db.schema import job_counts, job_offers, job_queue

STEPS = 512
"""Kinds of offers, by application, target and priority, that are looked at for the oldest jobs."""


@attrs.frozen(kw_only=True)
class Depth:
    """Jobs by (application, state), and by application since when the oldest one is queued, in seconds since 1970."""

    jobs: dict[tuple[str, str], int]
    oldest: dict[str, int]


def depth(connection: Connection) -> Depth:
    """What is queued and what became of the rest."""
    counts = job_counts.c
    # Every job is counted once by its owners, whoever they are.
    summed = select(counts.application, counts.state, func.sum(counts.number)).where(counts.kind == OWNERS)
    jobs = {
        (application, state): int(number)
        for application, state, number in connection.execute(summed.group_by(counts.application, counts.state))
    }
    firsts = dict(_firsts(connection))
    oldest: dict[str, int] = {}
    for job_id, since in connection.execute(
        select(job_queue.c.job_id, job_queue.c.state_time_stamp).where(job_queue.c.job_id.in_(firsts))
    ):
        application = firsts[job_id]
        oldest[application] = min(since, oldest.get(application, since))
    return Depth(jobs=jobs, oldest=oldest)


def _firsts(connection: Connection) -> Iterator[tuple[int, str]]:
    """The first job of each application, target and priority, and its application: a row each, by the key."""
    key = job_offers.c
    columns = (key.application, key.target, key.priority, key.job_id)
    first = select(*columns).order_by(*columns).limit(1)
    row = connection.execute(first).one_or_none()
    for _ in range(STEPS):
        if row is None:
            return
        yield row.job_id, row.application
        same_application = first.where(key.application == row.application)
        for after in (
            same_application.where(key.target == row.target, key.priority > row.priority),
            same_application.where(key.target > row.target),
            first.where(key.application > row.application),
        ):
            following = connection.execute(after).one_or_none()
            if following is not None:
                break
        row = following
