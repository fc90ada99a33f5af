"""How many jobs of whom this resource takes: pure functions over values.

LGI 1.41, Resource daemon. Each of the three levels (resource, project, application) has limits, all to be kept:
- a job is refused when one of its owners is denied, or when one of its owners would have more jobs than his limit;
- an owner without an entry falls under `any`, which is a limit for each such owner, not for all of them together
  (with `<any> 1 </any>` beside `<job_limit> 4 </job_limit>`, as in the document's example, four owners have one job
  each); without `any`, he has no limit;
- where owners are named but not `any`, at least one owner of a job has to be among them;
- `job_limit` counts all jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import attrs

from lgi.daemon.config import ApplicationConfig, DaemonConfig, Limits, ProjectConfig
from lgi.lists import ANY, encode_list

MOST_JOBS = 32
OWNERS_FIELD = 254  # bytes that a short text field may have


@attrs.frozen(kw_only=True)
class Taken:
    """A job that this resource holds, as far as limits care."""

    project: str
    application: str
    owners: tuple[str, ...]


@attrs.define(kw_only=True, eq=False)
class Level:
    """The limits of one level and the jobs that count for it."""

    name: str
    limits: Limits
    jobs: list[Taken]

    def add(self, job: Taken) -> None:
        """One more counts."""
        self._of_owner.update(frozenset(job.owners))
        self.jobs.append(job)

    @property
    def free(self) -> int:
        """How many more jobs fit here."""
        return max(0, self.limits.job_limit - len(self.jobs))

    def limit_of(self, owner: str) -> int | None:
        """How many jobs the owner may have here; None: as many as he likes."""
        return self.limits.allow.get(owner, self.limits.allow.get(ANY))

    def has_room_for(self, owner: str) -> bool:
        """Whether one more job of the owner fits."""
        limit = self.limit_of(owner)
        return limit is None or self._of_owner[owner] < limit

    @cached_property
    def _of_owner(self) -> Counter[str]:
        """How many jobs each owner has here."""
        return Counter(owner for job in self.jobs for owner in frozenset(job.owners))

    @property
    def only(self) -> tuple[str, ...]:
        """The owners that a job has to have one of; empty: whoever."""
        return () if ANY in self.limits.allow else tuple(self.limits.allow)


def levels(
    config: DaemonConfig, project: ProjectConfig, application: ApplicationConfig, held: Iterable[Taken]
) -> tuple[Level, Level, Level]:
    """The levels that one more job of the application has to pass, from the resource down."""
    everything = list(held)
    in_project = [job for job in everything if job.project == project.name]
    here = [job for job in in_project if job.application == application.name]
    return (
        Level(name="resource", limits=config.limits, jobs=everything),
        Level(name=f"project {project.name}", limits=project.limits, jobs=in_project),
        Level(name=f"application {application.name}", limits=application.limits, jobs=here),
    )


def room(passed: Sequence[Level]) -> int:
    """How many jobs to ask for; 0: the application is at its limit."""
    return min(MOST_JOBS, *(level.free for level in passed))


def refusal(passed: Sequence[Level], owners: Sequence[str]) -> str | None:
    """Why a job of these owners is not taken, or None if it is."""
    for level in passed:
        if level.free == 0:
            return f"the {level.name} has its limit of {level.limits.job_limit} jobs"
        for owner in owners:
            if owner in level.limits.deny or ANY in level.limits.deny:
                return f"the {level.name} denies the owner {owner}"
            if not level.has_room_for(owner):
                return f"the owner {owner} has the limit of {level.limit_of(owner)} jobs of the {level.name}"
        if level.only and not any(owner in level.only for owner in owners):
            return f"the {level.name} allows none of the owners"
    return None


def posted_owners(passed: Sequence[Level]) -> tuple[str, ...]:
    """The `owners` field for a work request: what the server need not offer, as `!name`, and whom to offer.

    It only saves offers, `refusal` decides; so names that do not fit into the field are left out.
    """
    denied = [name for level in passed for name in level.limits.deny]
    owners = [dict.fromkeys(name for job in level.jobs for name in job.owners) for level in passed]
    full = [
        name for level, names in zip(passed, owners, strict=True) for name in names if not level.has_room_for(name)
    ]
    never = [name for level in passed for name, limit in level.limits.allow.items() if limit == 0 and name != ANY]
    field: list[str] = []
    for entry in dict.fromkeys(f"!{name}" for name in (*denied, *full, *never)):
        if _fits([*field, entry]):
            field.append(entry)
    for level in reversed(passed):
        if level.only:
            # One level's names are enough, and naming fewer than all of them would keep jobs from us.
            return (*field, *level.only) if _fits([*field, *level.only]) else tuple(field)
    return tuple(field)


def _fits(entries: Sequence[str]) -> bool:
    return len(encode_list(entries).encode()) <= OWNERS_FIELD
