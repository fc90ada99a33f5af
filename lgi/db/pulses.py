"""Signs of life of jobs and resources: `daemon_pulse` of `job_queue`, `last_call_time` of `active_resources`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, Table, bindparam, select, update

from lgi.db.prepared import Prepared, numbered, values_of
from lgi.db.schema import active_resources, job_queue

_AT_ONCE = 256


def write_pulses(connection: Connection, jobs: Mapping[int, int], resources: Mapping[int, int]) -> None:
    """Write when each of these jobs was looked after, and when each of these resources called, in Unix seconds."""
    for now, numbers in _by_time(resources):
        _writing("resources", len(numbers))(connection, now=now, **values_of("number", numbers))
    for now, numbers in _by_time(jobs):
        _writing("jobs", len(numbers))(connection, now=now, **values_of("number", numbers))


def _by_time(times: Mapping[int, int]) -> Iterator[tuple[int, list[int]]]:
    """What is written in one statement, in order of numbers: as other transactions take them."""
    found: dict[int, list[int]] = defaultdict(list)
    for number, now in times.items():
        found[now].append(number)
    for now, numbers in sorted(found.items()):
        numbers.sort()
        for first in range(0, len(numbers), _AT_ONCE):
            yield now, numbers[first : first + _AT_ONCE]


_COLUMNS: dict[str, tuple[Table, Column[Any], str]] = {
    "resources": (active_resources, active_resources.c.resource_id, "last_call_time"),
    "jobs": (job_queue, job_queue.c.job_id, "daemon_pulse"),
}


@lru_cache(maxsize=2 * _AT_ONCE)
def _writing(kind: str, number: int) -> Prepared:
    table, key, column = _COLUMNS[kind]
    these = key.in_(numbered("number", number)), table.c[column] < bindparam("now")
    writing = update(table).values({column: bindparam("now")})
    # PostgreSQL takes rows in whatever order it finds them, unless it is told.
    in_order = select(key).where(*these).order_by(key).with_for_update()
    return Prepared(writing.where(*these), postgresql=writing.where(key.in_(in_order)))
