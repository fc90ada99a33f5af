"""Frozen values of the domain, as the tables of the document hold them.

All times are whole Unix seconds.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import NamedTuple

import attrs

from lgi.lists import ANY
from lgi.states import JobState


@unique
class ServerFlag(IntEnum):
    """`project_server` of a registered resource (LGI 1.41, active_resources)."""

    NONE = 0
    MASTER = 1
    SLAVE = 2


@attrs.frozen(kw_only=True)
class Job:
    """A job; `input` and `output` are None where a query or an answer left them out.

    `repository_size` is what its files are counted with, in bytes.
    """

    job_id: int
    state: JobState
    application: str
    target_resources: tuple[str, ...]
    owners: tuple[str, ...]
    read_access: tuple[str, ...]
    write_access: tuple[str, ...]
    job_specifics: str = ""
    state_time_stamp: int
    lock_state: int = 0
    daemon_pulse: int = 0
    priority: int = 0
    input: bytes | None = None
    output: bytes | None = None
    repository: str = ""
    repository_size: int = 0

    @property
    def account(self) -> str:
        """The user whose files this job's are: its first owner."""
        return self.owners[0] if self.owners else ""

    def targets(self, resource_name: str) -> bool:
        """Whether the resource may take or see this job."""
        return ANY in self.target_resources or resource_name in self.target_resources


class ListedJob(NamedTuple):
    """A job as lists have it; several names are one text with commas, as they are stored and as answers have them."""

    job_id: int
    state: str
    state_time_stamp: int
    target_resources: str
    owners: str
    application: str
    read_access: str
    write_access: str
    job_specifics: str


@attrs.frozen(kw_only=True)
class Resource:
    """A registered resource; `client_certificate` is PEM, `resource_capabilities` XML, `url` says where it is."""

    resource_id: int
    resource_name: str
    resource_capabilities: str = ""
    client_certificate: str = attrs.field(default="", repr=False)
    last_call_time: int = 0
    project_server: ServerFlag = ServerFlag.NONE
    url: str = ""


@attrs.frozen(kw_only=True)
class Session:
    """A resource's running session."""

    session_id: int
    resource_id: int
    session_time_stamp: int


@attrs.frozen(kw_only=True)
class Lock:
    """A lock on one job: of a session of a resource, or of an interface (resource -1, session 0)."""

    lock_id: int
    job_id: int
    resource_id: int
    session_id: int
    lock_time: int


@attrs.frozen(kw_only=True)
class Grant:
    """One row of users_allowed or groups_allowed; `name` and `application` may be `any`.

    A negative limit counts queued and running jobs, a positive one all jobs, zero is no limit.
    """

    name: str
    application: str
    job_limit: int = 0


@attrs.frozen(kw_only=True)
class Denial:
    """One row of users_denied or groups_denied; `name` and `application` may be `any`."""

    name: str
    application: str


@attrs.frozen(kw_only=True)
class RepositoryFile:
    """A file in a job's repository: size in bytes, date in Unix seconds with a fraction."""

    name: str
    size: int
    date: float


@attrs.frozen(kw_only=True)
class Update:
    """A numbered change for the project's servers that are named (or `any`): one statement in MySQL's language."""

    version: int
    servers: tuple[str, ...]
    query: bytes


@attrs.frozen(kw_only=True)
class LogEntry:
    """One entry of the record of jobs: what happened to which job, when, by whom."""

    number: int
    time: int
    job_id: int
    from_state: str
    to_state: str
    actor: str
    detail: str


@attrs.frozen(kw_only=True)
class Changes:
    """What a transaction has changed that somebody may wait for."""

    jobs: frozenset[int] = frozenset()
    """Jobs that are in another state, or not locked any more."""
    offers: frozenset[tuple[str, str]] = frozenset()
    """What is new to take: (application, target resource or `any`)."""
    agenda: bool = False
    """The scheduler's agenda has an event more."""

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.jobs or self.offers or self.agenda)

    def __or__(self, other: Changes) -> Changes:
        """Both."""
        return Changes(
            jobs=self.jobs | other.jobs, offers=self.offers | other.offers, agenda=self.agenda or other.agenda
        )
